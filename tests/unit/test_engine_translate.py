"""The public side of a translation: two stages in one, faults as EL2 would see them, registers given by hand."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.pagetables import (
    AF,
    EVERYTHING,
    MAIR,
    Format,
    SparseMemory,
    Tables,
    single_tcr,
    stage1_tcr,
    stage2_vtcr,
)

from gdbhyp.engine.machine import Machine
from gdbhyp.engine.map import MappedRange, map_both
from gdbhyp.engine.translate import (
    Access,
    Regime,
    Stage2Reader,
    current_regime,
    explicit,
    registers_needed,
    translate,
    with_registers,
)
from gdbhyp.errors import MemoryUnavailable, NoTarget, UsageError

E2H, TGE, VM = 1 << 34, 1 << 27, 1
FORMATS = [Format(12), Format(12, ds=True), Format(14), Format(14, ds=True), Format(16, lpa=True)]
RW2 = AF | 0b11 << 6 | 0b1111 << 2


def behind_stage2(
    first: SparseMemory, form: Format, bits: int, seed: int
) -> tuple[SparseMemory, Tables, dict[int, int]]:
    """Scatter a memory of IPA pages over physical memory; returns it, the stage-2 tables, and where pages are."""
    memory = SparseMemory()
    tables = Tables(memory, form, bits, form.start_level(bits, concatenated=True), 0x80_0000_0000)
    size_bits = form.granule
    where: dict[int, int] = {}
    for number, page in enumerate(sorted({at << 12 >> size_bits for at in first.pages})):
        # No two neighbours stay neighbours.
        where[page] = 0x40_0000 + ((number * 7 + seed) % 997) * 3
        tables.map(page << size_bits, where[page] << size_bits, 3, RW2)
    for at, content in first.pages.items():
        page = at << 12 >> size_bits
        target = (where[page] << size_bits) + ((at << 12) & ((1 << size_bits) - 1))
        memory.pages[target >> 12] = content
    return memory, tables, where


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(FORMATS),
    st.sampled_from(FORMATS),
    st.integers(30, 42),
    st.lists(st.integers(0, (1 << 42) - 1), min_size=1, max_size=5),
    st.integers(0, 500),
)
def test_both_stages_are_one_after_the_other(
    form1: Format, form2: Format, bits: int, addresses: list[int], seed: int
) -> None:
    ipas = SparseMemory()
    tables = Tables(ipas, form1, bits, form1.start_level(bits), 0x100_0000)
    data = {}
    for number, address in enumerate(addresses):
        va = address & ((1 << bits) - 1) & ~((1 << form1.granule) - 1)
        data[va] = 0x3000_0000 + (number << 16)
        ipas.pages.setdefault(data[va] >> 12, bytearray(0x1000))
    for va, ipa in data.items():
        tables.map(va, ipa)
    memory, second, where = behind_stage2(ipas, form2, 42, seed)
    regs = EVERYTHING | {"SCTLR_EL1": 5, "MAIR_EL1": MAIR, "HCR_EL2": VM}
    regs |= {"TCR_EL1": stage1_tcr(form1, bits), "TTBR0_EL1": tables.ttbr()}
    regs |= {"VTCR_EL2": stage2_vtcr(form2, 42, second.start), "VTTBR_EL2": second.ttbr()}
    machine = Machine(regs, memory)
    ranges = [item for item in map_both(machine) if isinstance(item, MappedRange)]
    for va, ipa in data.items():
        page = 1 << min(form1.granule, form2.granule)
        expected = (where[ipa >> form2.granule] << form2.granule) | ipa & ((1 << form2.granule) - 1)
        found = translate(machine, va + 0x123, Regime.EL10)
        assert (found.output, found.ipa) == (expected + 0x123, ipa + 0x123)
        assert found.page_size == page
        assert all(step.stage == 1 and len(step.nested) > 0 for step in found.steps if step.stage == 1)
        assert [r.output + va - r.start for r in ranges if r.start <= va < r.end] == [expected]
        alone = translate(machine, va, Regime.EL10, stages="1")
        assert (alone.output, alone.output_space) == (ipa, "IPA")
        assert translate(machine, ipa, Regime.EL10, stages="2").output == expected


def test_stage2_reader_crosses_pages() -> None:
    ipas = SparseMemory()
    text = bytes(range(256)) * 64
    ipas.write(0x5000, text)
    memory, tables, _ = behind_stage2(ipas, Format(12), 40, 3)
    regs = EVERYTHING | {"VTCR_EL2": stage2_vtcr(Format(12), 40, 1), "VTTBR_EL2": tables.ttbr()}
    reader = Stage2Reader(Machine(regs, memory))
    assert reader.read(0x5000, len(text)) == text
    assert reader.read(0x5FFE, 5) == text[0xFFE:0x1003]
    assert reader.read(0x5000, 0) == b""


def test_stage2_reader_says_what_is_missing() -> None:
    ipas = SparseMemory()
    ipas.write(0x5000, bytes(0x2000))
    memory, tables, where = behind_stage2(ipas, Format(12), 40, 3)
    regs = EVERYTHING | {"VTCR_EL2": stage2_vtcr(Format(12), 40, 1), "VTTBR_EL2": tables.ttbr()}
    reader = Stage2Reader(Machine(regs, memory))
    with pytest.raises(MemoryUnavailable, match="translation fault at level 3") as unmapped:
        reader.read(0x6FF8, 16)
    assert (unmapped.value.space, unmapped.value.address, unmapped.value.first_bad) == ("IPA", 0x6FF8, 0x7000)
    del memory.pages[where[6]]
    with pytest.raises(MemoryUnavailable, match=f"PA {where[6] << 12:#x}") as absent:
        reader.read(0x5FF8, 16)
    assert (absent.value.space, absent.value.size, absent.value.first_bad) == ("IPA", 16, 0x6000)


@pytest.mark.parametrize(
    ("access", "address", "esr", "hpfar"),
    [
        # Translation fault at level 3, store from EL0: HPFAR_EL2 holds the IPA.
        (Access("write", 0), 0x1ABC, 0x9200_0047, 0x30_0010),
        # Permission fault on the output: HPFAR_EL2 is UNKNOWN.
        (Access("write", 1), 0x2ABC, 0x9200_004F, None),
        (Access("execute", 1), 0x2ABC, 0x8200_000F, None),
        # The level 3 table is out of reach: S1PTW with the stage-2 level, and the IPA of the descriptor.
        (Access("read", 1), 0x20_0ABC, 0x9200_0086, 0x7770),
        (Access("write", 1), 0x20_0ABC, 0x9200_00C6, 0x7770),
    ],
)
def test_faults_as_el2_sees_them(access: Access, address: int, esr: int, hpfar: int | None) -> None:
    ipas = SparseMemory()
    tables = Tables(ipas, Format(12), 39, 1, 0x100_0000)
    tables.map(0x1000, 0x3000_1000, 3, AF | 1 << 6)
    tables.map(0x2000, 0x3000_2000)
    tables.put(tables.slot(0x20_0000, 2), 0x77_7000 | 3)
    memory, second, _ = behind_stage2(ipas, Format(12), 40, 1)
    second.map(0x3000_2000, 0x9000, 3, AF | 1 << 6 | 0xF << 2 | 2 << 53)
    regs = EVERYTHING | {"SCTLR_EL1": 5, "MAIR_EL1": MAIR, "HCR_EL2": VM}
    regs |= {"TCR_EL1": stage1_tcr(Format(12), 39), "TTBR0_EL1": tables.ttbr()}
    regs |= {"VTCR_EL2": stage2_vtcr(Format(12), 40, 1), "VTTBR_EL2": second.ttbr()}
    fault = translate(Machine(regs, memory), address, Regime.EL10, access=access).fault
    assert fault is not None
    assert fault.esr_el2 == esr, hex(fault.esr_el2)
    assert fault.far_el2 == address
    assert (fault.hpfar_el2, fault.hpfar_valid) == (hpfar, hpfar is not None)


@pytest.mark.parametrize(
    ("hcr", "regime", "access", "esr"),
    [
        (0, Regime.EL2, None, 0x9600_0004),
        (0, Regime.EL2, Access("execute", 2), 0x8600_0004),
        (E2H, Regime.EL20, Access("write", 2), 0x9600_0044),
        (E2H | TGE, Regime.EL20, Access("write", 0), 0x9200_0044),
    ],
)
def test_faults_of_el2_itself(hcr: int, regime: Regime, access: Access | None, esr: int) -> None:
    regs = EVERYTHING | {"SCTLR_EL2": 5, "HCR_EL2": hcr, "TCR_EL2": 11}
    fault = translate(Machine(regs, SparseMemory()), 0, regime, access=access).fault
    assert fault is not None
    assert (fault.esr_el2, fault.hpfar_valid, fault.hpfar_el2) == (esr, False, None)


def test_registers_needed() -> None:
    both = registers_needed(Regime.EL10)
    assert {"TTBR0_EL1", "TTBR1_EL1", "TCR_EL1", "SCTLR_EL1", "MAIR_EL1", "HCR_EL2"} <= set(both)
    assert {"VTTBR_EL2", "VTCR_EL2"} <= set(both)
    assert "VTTBR_EL2" not in registers_needed(Regime.EL10, "1")
    assert "TTBR0_EL1" not in registers_needed(Regime.EL10, "2")
    assert set(registers_needed(Regime.EL2)) >= {"TTBR0_EL2", "TCR_EL2"}
    assert "TTBR1_EL2" not in registers_needed(Regime.EL2)
    assert "TTBR1_EL2" in registers_needed(Regime.EL20)
    assert "HCR_EL2" not in registers_needed(Regime.EL3)


@pytest.mark.parametrize(
    ("hcr", "regimes"),
    [
        (0, ("EL1&0", "EL1&0", "EL2", "EL3")),
        (TGE, ("EL1&0", "EL1&0", "EL2", "EL3")),
        (E2H, ("EL1&0", "EL1&0", "EL2&0", "EL3")),
        (E2H | TGE, ("EL2&0", "EL1&0", "EL2&0", "EL3")),
    ],
)
def test_current_regime(hcr: int, regimes: tuple[str, ...]) -> None:
    registers = EVERYTHING | {"HCR_EL2": hcr}
    assert tuple(current_regime(registers, el).value for el in range(4)) == regimes


def test_explicit_roots_while_the_host_runs() -> None:
    """A VHE host is at hand (TGE = 1, VM = 0), the guest's tables are asked for: both stages are walked."""
    ipas = SparseMemory()
    tables = Tables(ipas, Format(12), 39, 1, 0x100_0000)
    tables.map(0x5000, 0x3000_1000)
    ipas.pages[0x30001] = bytearray(0x1000)
    memory, second, where = behind_stage2(ipas, Format(12), 40, 1)
    host = Machine(EVERYTHING | {"HCR_EL2": E2H | TGE, "TTBR0_EL1": 0xDEAD000}, memory)
    guest = explicit(
        host,
        ttbr=tables.ttbr(),
        tcr=stage1_tcr(Format(12), 39),
        vttbr=second.ttbr(),
        vtcr=stage2_vtcr(Format(12), 40, 1),
    )
    assert translate(guest, 0x5678, Regime.EL10).output == (where[0x30001] << 12) + 0x678
    only = explicit(host, vttbr=second.ttbr(), vtcr=stage2_vtcr(Format(12), 40, 1))
    assert translate(only, 0x3000_1000, Regime.EL10, stages="2").output == where[0x30001] << 12


def test_explicit_roots_of_el2() -> None:
    tables = Tables(SparseMemory(), Format(12), 39, 1)
    tables.map(0x5000, 0x9000)
    bare = Machine(EVERYTHING, tables.memory)
    given = explicit(bare, Regime.EL2, ttbr=tables.ttbr(), tcr=single_tcr(Format(12), 39))
    assert translate(given, 0x5678, Regime.EL2).output == 0x9678
    assert bare.registers.get("TTBR0_EL2") is None


def test_explicit_roots_of_a_dump_without_registers() -> None:
    """Without ID registers the given ones decide: here 16 KiB with DS, which few processors have."""
    form = Format(14, ds=True)
    second = Tables(SparseMemory(), form, 50, form.start_level(50, concatenated=True))
    second.map(0x2_0000_1234_4000, 0xF_0000_0000_8000, 3, RW2)
    dump = Machine({}, second.memory)
    given = explicit(dump, vttbr=second.ttbr(), vtcr=stage2_vtcr(form, 50, second.start))
    assert given.missing(registers_needed(Regime.EL10, "2")) == []
    assert translate(given, 0x2_0000_1234_4000, Regime.EL10, stages="2").output == 0xF_0000_0000_8000


def test_with_registers_overrides_also_with_zero() -> None:
    machine = Machine({"A": 1, "B": 2}, SparseMemory(), {"PAN": 1})
    changed = with_registers(machine, {"A": 0, "C": 3})
    assert [changed.registers.get(name) for name in "ABCD"] == [0, 2, 3, None]
    assert changed.pstate == {"PAN": 1}


def test_wrong_questions() -> None:
    machine = Machine(EVERYTHING, SparseMemory())
    with pytest.raises(UsageError, match="no stage 2"):
        translate(machine, 0, Regime.EL2, stages="2")
    with pytest.raises(UsageError, match="both, 1 or 2"):
        translate(machine, 0, Regime.EL10, stages="3")
    secure = with_registers(machine, {"SCR_EL3": 0})
    with pytest.raises(NoTarget, match="EEL2"):
        translate(secure, 0, Regime.EL10, stages="2")
    with pytest.raises(NoTarget, match="EEL2"):
        Stage2Reader(secure)


def test_changed_registers_are_seen() -> None:
    """Parameters are remembered by register values, so another root is another answer at once."""
    tables = Tables(SparseMemory(), Format(12), 39, 1)
    tables.map(0x5000, 0x9000)
    other = Tables(tables.memory, Format(12), 39, 1, 0x80_0000)
    other.map(0x5000, 0xA000)
    registers = EVERYTHING | {"SCTLR_EL1": 1, "TCR_EL1": stage1_tcr(Format(12), 39)}
    machine = Machine(registers, tables.memory)
    for root, output in ((tables, 0x9000), (other, 0xA000), (tables, 0x9000)):
        registers["TTBR0_EL1"] = root.ttbr()
        assert translate(machine, 0x5000, Regime.EL10).output == output
    # Nothing of memory is remembered.
    tables.map(0x5000, 0xB000)
    assert translate(machine, 0x5000, Regime.EL10).output == 0xB000


def test_a_fault_of_stage2_alone_has_no_va() -> None:
    regs = EVERYTHING | {"VTCR_EL2": stage2_vtcr(Format(12), 40, 1)}
    fault = translate(Machine(regs, SparseMemory()), 0x5000, Regime.EL10, stages="2").fault
    assert fault is not None
    assert (fault.kind, fault.address, fault.far_el2) == ("external_abort", 0, None)
