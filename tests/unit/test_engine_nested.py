"""VNCR_EL2: an address of EL2's, in EL2's translation, when nested virtualization redirects register accesses."""

from __future__ import annotations

import pytest
from unit.pagetables import AF, EVERYTHING, MAIR, Format, SparseMemory, Tables, stage1_tcr

from gdbhyp.engine.machine import Machine
from gdbhyp.engine.nested import translate_vncr, vncr_page
from gdbhyp.errors import UsageError

NV, NV2, E2H = 1 << 42, 1 << 45, 1 << 34


def machine(**extra: int) -> Machine:
    tables = Tables(SparseMemory(), Format(12), 39, 1)
    tables.map(0x7_FFFF_F000, 0x1234_5000, 3, AF)
    regs = EVERYTHING | {"TCR_EL2": stage1_tcr(Format(12), 39, upper=True), "TTBR1_EL2": tables.ttbr()}
    regs |= {"SCTLR_EL2": 5, "MAIR_EL2": MAIR, "HCR_EL2": NV | NV2 | E2H}
    regs |= {"VNCR_EL2": 0x1FF_FF87_FFFF_F000}
    return Machine(regs | extra, tables.memory)


def test_the_address_is_sign_extended_from_bit_56() -> None:
    assert vncr_page(machine().registers) == 0xFFFF_FF87_FFFF_F000
    assert vncr_page(machine(VNCR_EL2=0x0FF_FFFF_FFFF_F123).registers) == 0x00FF_FFFF_FFFF_F000


def test_it_is_translated_as_el2_does() -> None:
    found = translate_vncr(machine(), 0x118)
    assert found is not None
    assert found.output == 0x1234_5118
    assert found.regime.value == "EL2&0"


def test_a_fault_is_an_answer() -> None:
    found = translate_vncr(machine(VNCR_EL2=0x1FF_FF80_0000_0000))
    assert found is not None
    assert found.fault is not None
    assert found.fault.kind == "translation"


@pytest.mark.parametrize("change", [{"HCR_EL2": NV}, {"HCR_EL2": NV2}, {"ID_AA64MMFR2_EL1": 1 << 24}])
def test_nothing_is_redirected(change: dict[str, int]) -> None:
    assert vncr_page(machine(**change).registers) is None
    assert translate_vncr(machine(**change)) is None


def test_offsets_stay_in_the_page() -> None:
    with pytest.raises(UsageError, match="0x1000"):
        translate_vncr(machine(), 0x1000)
