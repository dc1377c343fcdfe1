"""Xen's own tables of symbols and domains, whole and damaged."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.xenimage import (
    CONTROL,
    HEAP,
    INSIDE,
    NEXT,
    OUTSIDE,
    PHYSICAL,
    START,
    TABLE,
    XenWorld,
    many_symbols,
    symbol_table,
)

from gdbhyp.analyses.vcpu import choose, vcpu_report
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import BadInput
from gdbhyp.hypervisors.vms import loaded_vms
from gdbhyp.hypervisors.xen import domains, symbols
from gdbhyp.hypervisors.xen.image import find_image

SYMBOLS = many_symbols({"get_domain_by_id": START + 0x9002, "p2m.c#static": START + 0x9102})


@pytest.mark.parametrize("alignment", [4, 8, 256])
def test_symbols(alignment: int) -> None:
    found = symbols.find(bytes(0x300) + symbol_table(SYMBOLS, alignment) + b"what follows")
    assert [(symbol.type + symbol.name, symbol.address) for symbol in found] == SYMBOLS


def test_symbols_before_another_array() -> None:
    """Newer ones have an array of offsets sorted by name between the names and the markers."""
    found = symbols.find(symbol_table(SYMBOLS, gap=bytes(range(1, 201)) * 6))
    assert found.address("get_domain_by_id") == START + 0x9002


@pytest.mark.parametrize("position", [-512 + 6, 80, 8 * 600])
def test_damaged_symbols(position: int) -> None:
    """In the index of tokens, in the addresses, and in the first name's length."""
    table = bytearray(symbol_table(SYMBOLS))
    at = position % len(table)
    table[at : at + 256] = b"\xff" * 256
    with pytest.raises(BadInput):
        symbols.find(bytes(table))


def test_no_symbols() -> None:
    with pytest.raises(BadInput, match="not found"):
        symbols.find(bytes(0x1000))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=2000), st.integers(0, 5000))
def test_any_bytes(noise: bytes, at: int) -> None:
    table = bytearray(symbol_table(SYMBOLS[:300]))
    table[at : at + len(noise)] = noise
    with contextlib.suppress(BadInput):
        symbols.find(bytes(table))


def test_plain_names() -> None:
    assert [symbols.plain_name(name) for name in ("p2m.c#lookup", "lookup")] == ["lookup", "lookup"]


def test_domains() -> None:
    world = XenWorld()
    stop = world.stop(VTTBR_EL2=0x1_0000_4100_0000)
    vms, problems = domains.to_vms(stop, find_image(stop))
    assert [(vm.vm, vm.vmid, vm.vttbr, len(vm.vcpus)) for vm in vms] == [
        (0, 1, 0x1_0000_4100_0000, 2),
        (1, 2, 0x2_0000_4200_0000, 1),
    ]
    assert not problems
    assert "loaded in VTTBR_EL2 of CPU 0" in vms[0].how
    assert "loaded" not in vms[1].how


def test_two_domains_in_one_bucket() -> None:
    world = XenWorld([(257, 0x2_0000_4200_0000, 1), (1, 0x1_0000_4100_0000, 1)])
    world.word(world.at[1] + NEXT, world.at[257])
    stop = world.stop()
    vms, problems = domains.to_vms(stop, find_image(stop))
    assert [vm.vm for vm in vms] == [1, 257]
    assert not problems


def test_loop_in_a_bucket() -> None:
    world = XenWorld()
    world.word(world.at[1] + NEXT, world.at[1])
    stop = world.stop()
    vms, _ = domains.to_vms(stop, find_image(stop))
    assert [vm.vm for vm in vms] == [0, 1]


def test_what_is_no_domain() -> None:
    world = XenWorld()
    world.word(TABLE + 8 * 7, world.at[1])
    world.word(TABLE + 8 * 9, HEAP - 0x1000)
    stop = world.stop()
    vms, problems = domains.to_vms(stop, find_image(stop))
    assert [vm.vm for vm in vms] == [0, 1]
    assert ["domain_hash[7]" in problems[0], "domain_hash[9] cannot be followed" in problems[1]] == [
        True,
        True,
    ]


def test_another_xen() -> None:
    """A function that does not look like the known one is said, and nothing is guessed."""
    world = XenWorld()
    world.memory.write(PHYSICAL + 0x2000, b"\x1f\x20\x03\xd5" * 15)
    stop = world.stop()
    with pytest.raises(BadInput, match="get_domain_by_id"):
        domains.to_vms(stop, find_image(stop))


def test_missing_image() -> None:
    world = XenWorld()
    del world.memory.pages[PHYSICAL + 0x2000 >> 12]
    with pytest.raises(BadInput, match="cannot be read"):
        find_image(world.stop())


def test_vcpu_states() -> None:
    """A vCPU is where its CPU is when it runs, and where Xen saved it when it does not."""
    world = XenWorld([(0, 0x1_0000_4100_0000, 2)])
    infos = []
    for number in (0, 1):
        vcpu = world.at[0] + 0x2000 + 0x1000 * number
        stack = HEAP + 0x10000 + 0x8000 * number
        infos.append(stack + 0x8000 - 0x160)
        world.word(vcpu + 0x2E8, stack)
        world.word(vcpu + 0x2F0, infos[-1])
        world.word(infos[-1] + 0x100, 0x8000_0000 + number)
        world.word(infos[-1] + 0x108, 0b0101)
    running = world.stop(CPSR=0b0101, PC=0x1234, SP_EL2=infos[1] + 0x120, VTTBR_EL2=0x1_0000_4100_0000)
    vms, _ = domains.to_vms(running, find_image(running))
    assert [(v.pc, v.cpu) for v in vms[0].vcpus] == [(0x8000_0000, None), (0x1234, 0)]
    inside = world.stop(SP=infos[1] - 64)
    assert [(v.pc, v.cpu) for v in domains.to_vms(inside, find_image(inside))[0][0].vcpus] == [
        (0x8000_0000, None),
        (0x8000_0001, 0),
    ]
    entered = world.stop(SP=infos[1] + 0x120, ELR_EL2=0x5678)
    assert domains.to_vms(entered, find_image(entered))[0][0].vcpus[1].pc == 0x5678
    world.word(infos[0] + 0x108, 0b1101)
    assert domains.to_vms(inside, find_image(inside))[0][0].vcpus[0].pc is None


def _xen(world: XenWorld, **registers: int) -> Stop:
    return replace(world.stop(**registers), assumed="xen")


def _with_stacks(world: XenWorld, count: int) -> list[tuple[int, int]]:
    """Give the first domain's vCPUs stacks; return (struct vcpu, cpu_info) of each."""
    found = []
    for number in range(count):
        vcpu = world.at[0] + 0x2000 + 0x1000 * number
        stack = HEAP + 0x10000 + 0x8000 * number
        info = stack + 0x8000 - 0x160
        world.word(vcpu + 0x2E8, stack)
        world.word(vcpu + 0x2F0, info)
        found.append((vcpu, info))
    return found


def _fill(world: XenWorld, vcpu: int, info: int) -> dict[str, int]:
    """Save a value of its own for each register, and return them by name."""
    saved = {f"X{number}": 0x1000 + number for number in range(31)}
    for number in range(31):
        world.word(info + 8 * number, saved[f"X{number}"])
    for number, (name, offset) in enumerate(INSIDE.items()):
        value = 0b0101 if name == "SPSR_EL2" else 0x2000 + number
        saved[{"ELR_EL2": "PC", "SPSR_EL2": "CPSR"}.get(name, name)] = value
        world.word(info + offset, value)
    for number, (name, (offset, size)) in enumerate({**OUTSIDE, **CONTROL}.items()):
        saved[name] = 0x8000_3000 + number
        world.write(vcpu + offset, saved[name].to_bytes(size, "little"))
    return saved


def test_saved_context() -> None:
    """Registers are where Xen's functions save them; what a CPU has of the vCPU that it runs is newer."""
    world = XenWorld([(0, 0x1_0000_4100_0000, 2)])
    (vcpu, info), _ = _with_stacks(world, 2)
    saved = _fill(world, vcpu, info)
    stop = _xen(world)
    report = vcpu_report(stop, *choose(stop, 0, 0))
    assert {row.name: row.saved for row in report.general} == {
        name: value for name, value in saved.items() if name[0] == "X" or name in ("SP_EL0", "PC", "CPSR")
    }
    assert {row.name: row.saved for row in report.system} == {
        name: saved[name] for name in (*OUTSIDE, "SPSR_EL1", "SP_EL1", "ELR_EL1")
    }
    assert {row.name: row.saved for row in report.control} == {name: saved[name] for name in CONTROL}
    assert (report.last_exit, report.pending) == (None, None), (
        "ESR_EL2 is saved at interrupts too, where it is stale"
    )
    own = {"VTTBR_EL2": 0x1_0000_4100_0000, "VMPIDR_EL2": saved["VMPIDR_EL2"], "TTBR0_EL1": 0x77}
    inside = _xen(world, SP=info - 64, **own)
    report = vcpu_report(inside, *choose(inside, 0, 0))
    assert [(r.name, r.live) for r in report.system if r.name == "TTBR0_EL1"] == [("TTBR0_EL1", 0x77)]
    assert not any(row.differs for row in report.general)
    # In the middle of a switch the stack is the next vCPU's, and the registers are not yet.
    switching = _xen(world, SP=info - 64, **own | {"VMPIDR_EL2": 1})
    report = vcpu_report(switching, *choose(switching, 0, 0))
    assert not any(row.differs for row in report.system)


def test_context_of_another_xen() -> None:
    """A register that is loaded from elsewhere than it was saved to is not believed."""
    world = XenWorld([(0, 0x1_0000_4100_0000, 1)], wrong="TTBR1_EL1")
    _with_stacks(world, 1)
    stop = _xen(world)
    with pytest.raises(BadInput, match="does not save TTBR1_EL1"):
        vcpu_report(stop, *choose(stop, 0, 0))


def test_list_and_registers() -> None:
    """What a CPU has loaded and no domain has is shown, too; and it is all there is when the list cannot be read."""
    world = XenWorld()
    stranger = 0x7_0000_4300_0000
    stop = world.stop(VTTBR_EL2=stranger)
    loaded = loaded_vms(stop)
    found = domains.find(stop, loaded)
    assert [(vm.vm, vm.vttbr) for vm in found.vms][2:] == [(2, stranger)]
    assert "is of no domain" in found.problems[0]
    world.memory.write(PHYSICAL + 0x2000, b"\x1f\x20\x03\xd5" * 15)
    found = domains.find(stop, loaded)
    assert [vm.vttbr for vm in found.vms] == [stranger]
    assert "Xen's own list of domains was not read" in found.problems[0]
