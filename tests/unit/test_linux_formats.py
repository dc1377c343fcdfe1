"""kallsyms, BTF and exported symbols, in all the orders and sizes in which kernels carry them."""

from __future__ import annotations

import random
import struct

import pytest
from unit import linuximage
from unit.linuximage import Row, Types

from gdbhyp.engine.layouts import NoType
from gdbhyp.errors import BadInput
from gdbhyp.hypervisors.linux import btf, kallsyms, ksymtab

BASE = 0xFFFF_8000_1001_0000
ORDERS = ("old", "seqs", "new")


def _rows(count: int) -> list[Row]:
    kinds = "TtDdBbRr"
    return [(kinds[n % 8], f"kvm_vm_{n}__init" + "x" * (n % 200), BASE + 16 * n) for n in range(count)]


def _somewhere(table: bytes) -> bytes:
    """Put a table between other read-only data."""
    return b"Linux version\0".ljust(4096, b"\xa5") + table + b"\xa5" * 4096


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("absolute", [False, True], ids=["relative", "absolute"])
@pytest.mark.parametrize("count", [257, 512, 513, 1000, 3000])
def test_every_symbol(order: str, absolute: bool, count: int) -> None:
    rows = _rows(count)
    found = kallsyms.find(_somewhere(linuximage.kallsyms(rows, order, absolute)))
    assert [(s.type, s.name, s.address) for s in found] == rows


@pytest.mark.parametrize("order", ORDERS)
def test_absolute_percpu(order: str) -> None:
    rows = [("A", f"percpu_{n}", 64 * n) for n in range(300)] + _rows(300)
    found = kallsyms.find(_somewhere(linuximage.kallsyms(rows, order, percpu=True)))
    assert [(s.type, s.name, s.address) for s in found] == rows


def test_lookup() -> None:
    rows = [("T", "_text", BASE), ("t", "same", BASE + 8), ("T", "alias", BASE + 8), ("t", "same", BASE + 64)]
    rows += [("T", name, address + 128) for _, name, address in _rows(400)]
    found = kallsyms.find(_somewhere(linuximage.kallsyms(rows)))
    assert found.address("same") == BASE + 8
    assert found.address("nothing") is None
    assert found.at(BASE + 12) == (("same", BASE + 8, "t"), 4)
    assert found.at(BASE - 1) is None


def test_digits_elsewhere() -> None:
    """Another table that lists the digits, as for Unicode or keys, is not taken for the tokens."""
    decoy = b"".join(bytes([n]) + b"\0" for n in range(1, 256)) + b"\0" * 64
    rows = _rows(600)
    decoys = linuximage.padded(decoy) + linuximage.padded(b"x" + decoy)
    found = kallsyms.find(_somewhere(decoys + linuximage.kallsyms(rows, "new")))
    assert len(found) == 600


@pytest.mark.parametrize("order", ORDERS)
def test_cut_off(order: str) -> None:
    """A table of which a part is missing is no table; nothing is made up."""
    table = linuximage.kallsyms(_rows(700), order)
    needed = len(table) - (linuximage.padded_size(3 * 700) if order == "new" else 0)
    for size in range(0, needed - 8, 997):
        with pytest.raises(BadInput):
            kallsyms.find(table[:size])


@pytest.mark.parametrize("order", ORDERS)
def test_damaged(order: str) -> None:
    """Whatever bytes are turned over, the answer is a table or the sentence that there is none."""
    table = linuximage.kallsyms(_rows(400), order)
    chance = random.Random(order)
    for _ in range(200):
        damaged = bytearray(table)
        for _ in range(chance.choice((1, 4, 64))):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        try:
            found = kallsyms.find(bytes(damaged))
        except BadInput:
            continue
        assert len(list(found)) == len(found)


def _types() -> tuple[Types, int]:
    types = Types()
    word, byte = types.integer("long unsigned int", 8), types.integer("char", 1)
    types.typedef("u64", word)
    constant = types.const(word)
    inner = types.struct("", 16, [("a", word, 0), ("b", constant, 8)], kind=5)
    name = types.array(byte, 16)
    head = types.struct("list_head", 16, [("next", types.pointer(), 0), ("prev", types.pointer(), 8)])
    types.struct(
        "thing",
        72,
        [("head", head, 0), ("", inner, 16), ("comm", name, 32), ("rows", types.array(head, 2), 48)],
    )
    types.bits("flags", 8, [("low", word, 0, 3), ("high", word, 3, 5), ("plain", byte, 8, 0)])
    types.enum("vcpu_sysreg", {"ZERO": 0, "SCTLR_EL1": 7, "NEGATIVE": -1})
    return types, head


def test_members() -> None:
    types, _ = _types()
    found = btf.Btf(types.data())
    thing = found.struct("thing")
    assert thing.size == 72
    assert thing.offset("head.prev") == 8
    assert thing.offset("b") == 24, "through an anonymous union"
    assert thing.member("comm").size == 16
    assert found.element(thing.member("rows").type) == (found.struct("list_head").id, 2)
    high = found.struct("flags").member("high")
    assert (high.offset, high.shift, high.bits) == (0, 3, 5)
    assert found.struct("flags").offset("plain") == 1
    assert found.enum("vcpu_sysreg") == {"ZERO": 0, "SCTLR_EL1": 7, "NEGATIVE": -1}
    assert not thing.has("nothing")
    with pytest.raises(NoType, match="thing of this kernel has no member nothing"):
        thing.member("nothing")
    with pytest.raises(NoType, match="no struct missing"):
        found.struct("missing")


def test_types_damaged() -> None:
    """Damaged types are refused or answer with a NoType, and no type refers to itself for ever."""
    data = _types()[0].data()
    chance = random.Random(4)
    for _ in range(500):
        damaged = bytearray(data)
        damaged[chance.randrange(24, len(data))] = chance.randrange(256)
        try:
            found = btf.Btf(bytes(damaged))
            for path in ("head.next", "b", "rows", "comm"):
                found.struct("thing").member(path)
        except (BadInput, NoType):
            continue
    for size in range(0, len(data), 7):
        with pytest.raises(BadInput):
            btf.Btf(data[:size])


def test_typedef_of_itself() -> None:
    types = Types()
    types.typedef("loop", 1)
    with pytest.raises(NoType):
        btf.Btf(types.data()).struct("loop")


def test_exports() -> None:
    symbols = {f"a_symbol_{n}": 0x1000 + n for n in range(40)} | {"init_task": 0x8880, "memstart_addr": 0x20}
    data = (
        b"\xa5" * 1024 + linuximage.exports({name: at - 1024 for name, at in symbols.items()}) + b"\xa5" * 64
    )
    assert ksymtab.find(data) == symbols
    assert ksymtab.find(data.replace(b"init_task", b"init_tusk")) == {}
    assert ksymtab.find(struct.pack("<3i", 1, 8, 0) + b"init_task\0") == {}, "a table of one is no table"
