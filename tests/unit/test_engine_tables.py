"""Whole tables at once: every fast way says of a table what one descriptor after the other says."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from unit.pagetables import (
    AF,
    CONTIGUOUS,
    EVERYTHING,
    MAIR,
    Format,
    SparseMemory,
    Tables,
    single_tcr,
    stage1_tcr,
    stage2_vtcr,
)

from gdbhyp.engine import map as engine_map
from gdbhyp.engine.machine import Machine
from gdbhyp.engine.map import Budget, MappedRange, Problem, map_both, map_stage
from gdbhyp.engine.tables import Mapper
from gdbhyp.engine.translate import Regime, translate

RW2 = AF | 0b11 << 6 | 0b1111 << 2
FORMATS = [Format(12), Format(12, ds=True), Format(14), Format(14, ds=True), Format(16), Format(16, lpa=True)]


@dataclass(frozen=True)
class World:
    """A machine whose stage 1 or 2 ends in one table full of given descriptors; ``start`` is what it maps."""

    machine: Machine
    memory: SparseMemory
    stage: int
    table: int
    start: int
    step: int
    count: int

    def put(self, words: list[int], big_endian: bool = False) -> None:
        data = struct.pack(f"{'>' if big_endian else '<'}{len(words)}Q", *words)
        for offset in range(0, len(data), 0x1000):
            place = self.table + offset & 0xFFF
            page = self.memory.pages[self.table + offset >> 12]
            page[place : place + 0x1000] = data[offset : offset + 0x1000]

    def mapped(self, **options: Any) -> list[MappedRange | Problem]:
        return list(map_stage(self.machine, Regime.EL10, self.stage, **options))


def world(form: Format, stage: int, level: int, *, ps: int | None = None, big_endian: bool = False) -> World:
    bits = 40
    start = form.start_level(bits)
    tables = Tables(SparseMemory(), form, bits, start, big_endian=big_endian)
    registers = dict(EVERYTHING)
    if not form.lpa and form.granule == 16:
        registers["ID_AA64MMFR0_EL1"] = 5
    if stage == 1:
        registers |= {"TCR_EL1": stage1_tcr(form, bits, ps=ps), "TTBR0_EL1": tables.ttbr(), "MAIR_EL1": MAIR}
        registers["SCTLR_EL1"] = 5 | big_endian << 25
    else:
        registers |= {"VTCR_EL2": stage2_vtcr(form, bits, start, ps=ps), "VTTBR_EL2": tables.ttbr()}
        registers["SCTLR_EL2"] = big_endian << 25
    size = 1 << form.size_bits(level)
    count = 1 << (form.stride if level > start else bits - form.size_bits(level))
    at = size * count * (1 if level > start else 0)
    slot = tables.slot(at, level)
    return World(Machine(registers, tables.memory), tables.memory, stage, slot, at, size, count)


def one_by_one(here: World, **options: Any) -> list[MappedRange | Problem]:
    """Map with each descriptor decoded by itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Mapper,
            "_decode",
            lambda self, table, base, address, data, value: self._each(
                self._leaves_of(table), table, base, address, data
            ),
        )
        return here.mapped(**options)


ATTRIBUTES = [
    RW2,
    AF | 1 << 6,
    RW2 | 2 << 53,
    RW2 | CONTIGUOUS,
    RW2 & ~AF,
    RW2 | 1 << 51,
    RW2 | 3 << 55,  # software bits
    RW2 | 1 << 58,
    RW2 | 3 << 8,
    RW2 | 7 << 60,
]


def table(chance: random.Random, form: Format, level: int, count: int) -> list[int]:
    """A table of stretches: consecutive, all the same, scattered, empty, swapped out, reserved, random."""
    size = 1 << form.size_bits(level)
    kind = 0b11 if level == 3 else 0b01
    top = (1 << form.output_bits) // size
    words: list[int] = []
    attributes = chance.choice(ATTRIBUTES)
    while len(words) < count:
        length = chance.choice([1, 1, 2, 3, 7, count // 4, count])
        if chance.random() < 0.5:
            attributes = chance.choice(ATTRIBUTES)
        # Often at the end of the address's bits, where adding carries out of them, or at that of what 40 bits allow.
        edges = [chance.randrange(top), max(0, top - chance.randrange(1, 6)), (1 << 40) // size - 2]
        first = chance.choice(edges)
        leaf = form.encode(first * size) | attributes | kind
        match chance.choice(["run", "run", "same", "scattered", "empty", "swap", "strange", "random"]):
            case "run":
                words += [(leaf + n * size) & (1 << 64) - 1 for n in range(length)]
            case "same":
                words += [leaf] * length
            case "scattered":
                words += [
                    form.encode(chance.randrange(top) * size) | attributes | kind for _ in range(length)
                ]
            case "empty":
                words += [0] * length
            case "swap":
                words += [first * size | attributes & ~3 | 2 * (n & 1) for n in range(length)]
            case "strange":
                words.append(leaf ^ 2 if level == 3 else leaf)
            case _:
                words += [chance.getrandbits(64) & ~(2 if level < 3 else 0) for _ in range(min(length, 8))]
    return words[:count]


def some_world(seed: int) -> tuple[random.Random, World]:
    """A table by a seed: any format, stage, level and byte order."""
    chance = random.Random(seed)
    form, level = FORMATS[seed % len(FORMATS)], chance.choice([2, 3, 3])
    big_endian = chance.random() < 0.3
    here = world(form, chance.choice([1, 2]), level, ps=chance.choice([None, 40]), big_endian=big_endian)
    here.put(table(chance, form, level, here.count), big_endian)
    return chance, here


def test_every_way_says_the_same() -> None:
    for seed in range(360):
        chance, here = some_world(seed)
        assert here.mapped() == one_by_one(here), f"seed {seed}"
        low = here.start + chance.randrange(here.count * here.step)
        window = {"start": low, "end": low + chance.randrange(1, here.count * here.step)}
        assert here.mapped(**window) == one_by_one(here, **window), f"seed {seed}"


@pytest.mark.parametrize("seed", range(60))
def test_map_and_walk_agree(seed: int) -> None:
    chance, here = some_world(seed)
    items = here.mapped()
    for one, other in pairwise(items):
        assert one.end <= other.start, "ascending, and nothing twice"
    edges = {(edge - here.start) // here.step for item in items for edge in (item.start, item.end)}
    probes = (
        set(chance.sample(range(here.count), 16))
        | set(list(edges)[:50])
        | {edge - 1 for edge in list(edges)[:50]}
    )
    for index in probes & set(range(here.count)):
        address = here.start + index * here.step + 0x123
        agree(
            only_at(items, address),
            address,
            translate(here.machine, address, Regime.EL10, stages=str(here.stage)),
        )


def only_at(items: list[MappedRange | Problem], address: int) -> MappedRange | Problem | None:
    """Return the item that holds an address, of which there is no more than one."""
    found = [item for item in items if item.start <= address < item.end]
    assert len(found) <= 1
    return found[0] if found else None


def agree(item: MappedRange | Problem | None, address: int, found: Any) -> None:
    """Assert that the map's item is what a walk found."""
    if item is None:
        assert found.fault.kind == "translation"
    elif isinstance(item, Problem):
        assert found.fault.kind == {"reserved": "translation"}.get(item.kind, item.kind)
        assert found.fault.level == item.level
    elif not item.access_flag:
        assert found.fault.kind == "access_flag"
    else:
        offset = address - item.start
        assert found.output == item.output + (offset % item.page_size if item.constant else offset)
        assert (found.level, found.page_size, found.contiguous) == (
            item.level,
            item.page_size,
            item.contiguous,
        )
        rights = found.permissions
        assert (rights.read, rights.write, rights.execute) == (item.read, item.write, item.execute)
        assert (rights.el0_read, rights.el0_write, rights.el0_execute) == (
            item.el0_read,
            item.el0_write,
            item.el0_execute,
        )
        memory = found.attributes
        assert (memory.memory, memory.attr, memory.shareability) == (
            item.memory,
            item.attr,
            item.shareability,
        )
        assert found.space == item.space


def test_a_run_that_carries_out_of_its_address() -> None:
    """The page behind the last one of 48 bits has bit 48 set, which is no address bit but one of attributes."""
    here = world(Format(12), 2, 3)
    last = (1 << 48) - 0x1000
    here.put([last | RW2 | 3, (last | RW2 | 3) + 0x1000, *[0] * 510])
    first, second = here.mapped()
    assert isinstance(first, MappedRange)
    assert isinstance(second, MappedRange)
    assert (first.start, first.end, first.output) == (here.start, here.start + 0x1000, last)
    assert (second.output, second.end) == (0, here.start + 0x2000)


def test_a_whole_run_that_carries() -> None:
    here = world(Format(12), 2, 3)
    first = (1 << 48) - 0x10_0000
    words = [((first | RW2 | 3) + n * 0x1000) for n in range(512)]
    here.put(words)
    assert here.mapped() == one_by_one(here)
    assert [(r.start - here.start, r.output) for r in here.mapped() if isinstance(r, MappedRange)] == [
        (0, first),
        (0x10_0000, 0),
    ]


def test_a_run_beyond_the_output_size() -> None:
    """The output size is 40 bits: of 512 pages the last 2 are beyond it."""
    here = world(Format(12), 2, 3, ps=40)
    first = (1 << 40) - 510 * 0x1000
    here.put([first + n * 0x1000 | RW2 | 3 for n in range(512)])
    mapped, problem = here.mapped()
    assert isinstance(mapped, MappedRange)
    assert isinstance(problem, Problem)
    assert (mapped.end - mapped.start, mapped.output) == (510 << 12, first)
    assert (problem.kind, problem.start, problem.end) == (
        "address_size",
        mapped.end,
        here.start + (512 << 12),
    )


def test_software_bits_alternate() -> None:
    here = world(Format(12), 2, 3)
    here.put([0x4000_0000 + n * 0x1000 | RW2 | (n & 3) << 55 & 3 << 56 | 3 for n in range(512)])
    (only,) = here.mapped()
    assert isinstance(only, MappedRange)
    assert (only.end - only.start, only.output) == (512 << 12, 0x4000_0000)


def test_bits_that_make_no_difference_alternate() -> None:
    """DBM without hardware dirty state: pages with and without it have the same shape, and are one range."""
    here = world(Format(12), 2, 3)
    here.put([0x4000_0000 + n * 0x1000 | RW2 | (n & 1) << 51 | 3 for n in range(512)])
    assert len(here.mapped()) == 1


def test_what_is_nse_in_el3_is_nothing_else() -> None:
    """In the EL3 regime of a processor with FEAT_RME, bit 11 is NSE and with NS says the space of a page."""
    form = Format(12)
    tables = Tables(SparseMemory(), form, 39, 1)
    for page, bits in enumerate((0, 1 << 5, 1 << 11, 1 << 5 | 1 << 11)):
        tables.map(page << 12, 0x9000 + (page << 12), 3, AF | bits)
    registers = EVERYTHING | {
        "ID_AA64PFR0_EL1": 1 << 36 | 1 << 12 | 1 << 52,
        "SCTLR_EL3": 1,
        "TCR_EL3": single_tcr(form, 39),
        "TTBR0_EL3": tables.ttbr(),
        "MAIR_EL3": MAIR,
    }
    machine = Machine(registers, tables.memory)
    found = [item for item in map_stage(machine, Regime.EL3, 1) if isinstance(item, MappedRange)]
    walked = [translate(machine, page << 12, Regime.EL3).space for page in range(4)]
    assert [item.space for item in found for _ in range((item.end - item.start) >> 12)] == walked
    assert len(set(walked)) > 1


class Sharing:
    """A root at level 1 whose entries point to a few level 2 tables, whose entries point to a few level 3 tables."""

    def __init__(self) -> None:
        self.memory = SparseMemory()
        self.tables = Tables(self.memory, Format(12), 39, 1)
        for page in range(0, 512, 5):
            self.tables.map(page << 12, 0x4000_0000 + (page << 13), 3, RW2)
        self.leaf = self.tables.slot(0, 3)
        self.middle = self.tables.slot(0, 2)
        registers = {"VTCR_EL2": stage2_vtcr(Format(12), 39, 1), "VTTBR_EL2": self.tables.ttbr()}
        self.machine = Machine(EVERYTHING | registers, self.memory)

    def mapped(self, **options: Any) -> list[MappedRange | Problem]:
        self.memory.reads = 0
        return list(map_stage(self.machine, Regime.EL10, 2, **options))


def test_a_shared_table_is_read_once() -> None:
    shared = Sharing()
    for page in range(10, 512):
        shared.memory.write_word(shared.leaf + 8 * page, 0)
    once = shared.mapped()
    for index in (1, 2, 7):
        shared.memory.write_word(shared.middle + 8 * index, shared.leaf | 3)
    found = shared.mapped()
    assert shared.memory.reads == 3
    moved = [
        (item.start + (index << 21), item.output)
        for index in (0, 1, 2, 7)
        for item in once
        if isinstance(item, MappedRange)
    ]
    assert [(item.start, item.output) for item in found if isinstance(item, MappedRange)] == moved


def test_a_shared_tree_is_read_once() -> None:
    shared = Sharing()
    for page in range(10, 512):
        shared.memory.write_word(shared.leaf + 8 * page, 0)
    for index in (3, 4, 200):
        shared.memory.write_word(shared.tables.root + 8 * index, shared.middle | 3)
    found = shared.mapped()
    assert shared.memory.reads == 3
    assert [item.start >> 30 for item in found] == [0, 0, 3, 3, 4, 4, 200, 200]


def test_what_is_shared_and_large_is_the_same_too() -> None:
    shared = Sharing()
    for index in (3, 200):
        shared.memory.write_word(shared.tables.root + 8 * index, shared.middle | 3)
    found = shared.mapped()
    assert [item.start - (3 << 30) for item in found if item.start >> 30 == 3] == [
        item.start for item in found if item.start >> 30 == 0
    ]


def test_shared_tables_count_against_the_budget() -> None:
    shared = Sharing()
    for page in range(5, 512):
        shared.memory.write_word(shared.leaf + 8 * page, 0)
    for index in range(512):
        shared.memory.write_word(shared.middle + 8 * index, shared.leaf | 3)
    shared.memory.write_word(shared.middle + 8 * 511, 0)
    found = shared.mapped(budget=Budget(100))
    (problem,) = [item for item in found if isinstance(item, Problem)]
    assert problem.kind == "budget"
    assert (problem.start, problem.end) == (98 << 21, 511 << 21)


def scattered_in_both() -> Machine:
    """300 pages whose IPAs lie in 64 MiB, most of them mapped somewhere by stage 2, with stage 1's tables at 32 MiB."""
    memory = SparseMemory()
    first = Tables(memory, Format(12), 39, 1, 0x100_0000)
    second = Tables(memory, Format(12), 39, 1, 0x400_0000)
    chance = random.Random(5)
    ipas = chance.sample(range(0x4000), 300)
    for number, ipa in enumerate(ipas):
        first.map((number + number // 7) << 12, ipa << 12, 3, AF | chance.choice((0, 1 << 7, 1 << 54)))
    for ipa in sorted(set(ipas) | {ipa + 1 for ipa in ipas}):
        if chance.random() < 0.9:
            second.map(ipa << 12, chance.randrange(1 << 20) << 12, 3, chance.choice((RW2, AF | 1 << 6)))
    for page in {page for page in memory.pages if 0x1000 <= page < 0x2000}:
        second.map(page << 12, page << 12, 3, RW2)
    registers = EVERYTHING | {
        "TCR_EL1": stage1_tcr(Format(12), 39),
        "TTBR0_EL1": first.ttbr(),
        "SCTLR_EL1": 5,
    }
    registers |= {"VTCR_EL2": stage2_vtcr(Format(12), 39, 1), "VTTBR_EL2": second.ttbr(), "HCR_EL2": 1}
    return Machine(registers | {"MAIR_EL1": MAIR}, memory)


def test_both_stages_of_scattered_pages() -> None:
    """Both stages together are what walks through both say, page by page."""
    machine = scattered_in_both()
    items = list(map_both(machine))
    for page in range(360):
        address = page << 12 | 0x10
        item = only_at(items, address)
        found = translate(machine, address, Regime.EL10)
        if item is None:
            assert found.fault is not None
        else:
            agree(item, address, found)


def test_a_table_of_stage_2_is_read_once_for_all_that_stage_1_has_there() -> None:
    machine = scattered_in_both()
    assert isinstance(machine.memory, SparseMemory)
    list(map_stage(machine, Regime.EL10, 1))
    first, machine.memory.reads = machine.memory.reads, 0
    list(map_stage(machine, Regime.EL10, 2))
    second, machine.memory.reads = machine.memory.reads, 0
    list(map_both(machine))
    # A table above is read on the way to each of those below it.
    assert machine.memory.reads <= first + 3 * second


def test_no_more_than_so_much_of_stage_2_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = list(map_both(scattered_in_both()))
    monkeypatch.setattr(engine_map, "_REMEMBERED", 20)
    assert list(map_both(scattered_in_both())) == expected


@pytest.mark.parametrize("seed", range(16))
def test_both_stages_where_many_addresses_lead_to_one(seed: int) -> None:
    """Blocks and pages of either stage that share outputs are what walks say, page by page and no page more."""
    chance = random.Random(seed)
    form1, form2 = (
        chance.choice((Format(12), Format(14))),
        chance.choice((Format(12), Format(14), Format(16))),
    )
    memory = SparseMemory()
    first = Tables(memory, form1, 39, form1.start_level(39), 0x10_0000_0000)
    second = Tables(memory, form2, 39, form2.start_level(39), 0x20_0000_0000)
    _repeat(chance, first, 16 << 20, AF, blocks=0.2)
    _repeat(chance, second, 80 << 20, RW2, blocks=0.2)
    for page in sorted(memory.pages):
        if page << 12 < 0x20_0000_0000:
            second.map(page << 12, (page << 12) & -(1 << form2.granule), 3, RW2)
    registers = EVERYTHING | {"TCR_EL1": stage1_tcr(form1, 39), "TTBR0_EL1": first.ttbr(), "SCTLR_EL1": 5}
    registers |= {"VTCR_EL2": stage2_vtcr(form2, 39, second.start), "VTTBR_EL2": second.ttbr(), "HCR_EL2": 1}
    machine = Machine(registers | {"MAIR_EL1": MAIR}, memory)
    items = list(map_both(machine))
    assert all(one.end <= other.start for one, other in pairwise(items))
    waiting = iter(items)
    item = next(waiting, None)
    # Runs of pages begin where a block would.
    for address in sorted(
        {block + at << 12 for block in range(0, 1 << 13, 512) for at in range(-8, 64) if block + at >= 0}
    ):
        while item is not None and item.end <= address:
            item = next(waiting, None)
        found = translate(machine, address, Regime.EL10)
        if item is None or address < item.start:
            assert found.fault is not None
        else:
            agree(item, address, found)


def _repeat(chance: random.Random, tables: Tables, end: int, attributes: int, *, blocks: float) -> None:
    """Map some of the input up to ``end`` to few outputs: block after block, or a run of pages at the start of one."""
    block, page = 1 << tables.form.size_bits(2), 1 << tables.form.granule
    for address in range(0, end, block):
        if chance.random() < blocks:
            tables.map(address, chance.choice((0, 0, block)), 2, attributes)
            continue
        output, step = chance.randrange(8) * page, chance.choice((0, page))
        for number in range(chance.randrange(60)):
            tables.map(address + number * page, output + number * step, 3, attributes)
