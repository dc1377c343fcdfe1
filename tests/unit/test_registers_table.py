"""The table of registers by field holds together: no overlap, no lost bit, no text that cannot be read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import gdbhyp.arch
from gdbhyp.arch import registers, registers_kinds, sysregs
from gdbhyp.arch.registers import describe, groups, layout_of, register_names
from gdbhyp.errors import UsageError

TABLE = Path(gdbhyp.arch.__file__).parent / "data" / "registers.txt"
LINE = re.compile(r"(\d\d?)(:\d\d?)? [A-Za-z0-9_<>\[\]: ]+(=\d\w*)?( \|[^|]*){0,3}$")
VALUES = (0, (1 << 64) - 1, 0x5555_5555_5555_5555, 0xAAAA_AAAA_AAAA_AAAA, *(0xB7 << 4 * n for n in range(15)))


def test_every_line_is_of_the_form() -> None:
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line and line[0] not in "#@=%":
            assert LINE.match(line), line


def test_no_register_twice() -> None:
    names = re.findall(r"^= (\S+)", TABLE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(names) == len(set(names))


def check_bits(name: str, value: int, e2h: bool) -> None:
    before, rebuilt = 64, 0
    for field in describe(name, value, e2h=e2h).fields:
        assert before > field.msb >= field.lsb >= 0, (name, field)
        rebuilt |= field.value << field.lsb
        before = field.lsb
    assert rebuilt == value, name


@pytest.mark.parametrize("e2h", [False, True])
def test_each_bit_is_in_one_field(e2h: bool) -> None:
    for name in register_names():
        for value in VALUES:
            check_bits(name, value, e2h)


def test_every_name_is_a_register() -> None:
    unknown = {"CPSR"}  # GDB's name for the process state, which no encoding reads
    for name in register_names():
        if "<n>" in name:
            assert sysregs.encoding_of(name.replace("<n>", "0")), name
        elif name not in unknown:
            assert sysregs.encoding_of(name), name


def test_every_value_of_a_narrow_field_has_words() -> None:
    for name in register_names():
        for field in layout_of(name).fields:
            if field.kind and field.msb - field.lsb < 8:
                for value in range(1 << field.msb - field.lsb + 1):
                    assert field.text(value, value << field.lsb), (name, field.name)


HYPERVISOR_REGISTERS = (
    "HCR_EL2 HCRX_EL2 VTCR_EL2 VTTBR_EL2 VSTCR_EL2 VSTTBR_EL2 TCR_EL1 TCR_EL2 TCR2_EL1 TCR2_EL2 "
    "TTBR0_EL1 TTBR1_EL1 TTBR0_EL2 TTBR1_EL2 SCTLR_EL1 SCTLR_EL2 SCTLR2_EL1 SCTLR2_EL2 MAIR_EL1 "
    "MAIR_EL2 PIR_EL1 PIR_EL2 PIRE0_EL1 PIRE0_EL2 POR_EL1 POR_EL2 CPTR_EL2 CPACR_EL1 MDCR_EL2 HSTR_EL2 "
    "HFGRTR_EL2 HFGWTR_EL2 HFGITR_EL2 HFGRTR2_EL2 HFGWTR2_EL2 HFGITR2_EL2 HDFGRTR_EL2 HDFGWTR_EL2 "
    "HDFGRTR2_EL2 HDFGWTR2_EL2 HAFGRTR_EL2 CNTHCTL_EL2 ICH_HCR_EL2 ICH_LR<n>_EL2 ICH_VMCR_EL2 "
    "ICH_VTR_EL2 ICH_MISR_EL2 ICC_SRE_EL2 ICC_CTLR_EL1 ICC_PMR_EL1 ICC_SGI1R_EL1 SPSR_EL1 SPSR_EL2 "
    "ELR_EL2 FAR_EL2 HPFAR_EL2 PAR_EL1 PFAR_EL2 VSESR_EL2 VDISR_EL2 ID_AA64MMFR0_EL1 ID_AA64MMFR1_EL1 "
    "ID_AA64MMFR2_EL1 ID_AA64MMFR3_EL1 ID_AA64MMFR4_EL1 ID_AA64PFR0_EL1 ID_AA64PFR1_EL1 ID_AA64PFR2_EL1 "
    "ID_AA64ISAR0_EL1 ID_AA64ISAR1_EL1 ID_AA64ISAR2_EL1 ID_AA64DFR0_EL1 ID_AA64DFR1_EL1 MPIDR_EL1 "
    "MIDR_EL1 GPCCR_EL3 GPTBR_EL3 VNCR_EL2 ESR_EL1 ESR_EL2 ESR_EL3 "
)


def test_registers_of_a_hypervisor_have_long_names() -> None:
    for name in HYPERVISOR_REGISTERS.split():
        assert describe(name, 0).long_name, name


def test_groups() -> None:
    assert set(groups()) >= {"translation", "trap", "gic", "timer", "id", "exception"}
    for group in groups():
        assert register_names(group)
    assert "VTCR_EL2" in register_names("translation")
    assert "VTCR_EL2" not in register_names("gic")


def test_unknown_register() -> None:
    with pytest.raises(UsageError, match="no system register is called VTTCR_EL2; perhaps VTCR_EL2 is meant"):
        describe("VTTCR_EL2", 0)


def test_value_too_wide() -> None:
    with pytest.raises(UsageError, match="64-bit"):
        describe("HCR_EL2", 1 << 64)


def test_kinds_are_all_used() -> None:
    text = TABLE.read_text(encoding="utf-8")
    used = set(re.findall(r"\| ~(\w+)", text))
    assert used == set(registers_kinds.KINDS)
    assert set(re.findall(r"\| @(\w+)", text)) == set(registers.macros())
