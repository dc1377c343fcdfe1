"""Names and encodings of system registers, and instructions as an assembler takes them."""

from __future__ import annotations

import pytest

from gdbhyp.arch.sysregs import encoding_of, generic_name, instruction_of, name_of


def test_name() -> None:
    assert name_of(3, 4, 1, 1, 0) == "HCR_EL2"
    assert name_of(3, 0, 0, 4, 0) == "ID_AA64PFR0_EL1"


def test_unallocated() -> None:
    assert name_of(3, 7, 15, 15, 7) is None
    assert name_of(0, 0, 0, 0, 0) is None


def test_array() -> None:
    assert name_of(3, 4, 12, 12, 3) == "ICH_LR3_EL2"
    assert name_of(3, 3, 14, 15, 7) == "PMCCFILTR_EL0"


def test_one_encoding_two_registers() -> None:
    assert name_of(2, 3, 0, 5, 0, read=True) == "DBGDTRRX_EL0"
    assert name_of(2, 3, 0, 5, 0, read=False) == "DBGDTRTX_EL0"
    assert name_of(2, 3, 0, 5, 0) == "DBGDTRRX_EL0/DBGDTRTX_EL0"


def test_write_only_is_named_in_both_directions() -> None:
    assert name_of(3, 0, 12, 11, 5, read=False) == "ICC_SGI1R_EL1"
    assert name_of(3, 0, 12, 11, 5, read=True) == "ICC_SGI1R_EL1"
    assert name_of(3, 0, 12, 11, 5) == "ICC_SGI1R_EL1"


@pytest.mark.parametrize("name", ["HCR_EL2", "hcr_el2", " HCR_EL2 ", "S3_4_C1_C1_0", "s3_4_c1_c1_0"])
def test_encoding(name: str) -> None:
    assert encoding_of(name) == (3, 4, 1, 1, 0)


@pytest.mark.parametrize("name", ["", "HCR_EL9", "S3_4_C16_C1_0", "S3_8_C1_C1_0", "S3_4_C1_C1_0_"])
def test_no_encoding(name: str) -> None:
    assert encoding_of(name) is None


def test_encoding_of_both_names() -> None:
    assert encoding_of("DBGDTRRX_EL0") == encoding_of("DBGDTRTX_EL0") == (2, 3, 0, 5, 0)


def test_generic_name() -> None:
    assert generic_name(3, 4, 1, 1, 0) == "S3_4_C1_C1_0"
    assert encoding_of(generic_name(3, 0, 15, 2, 7)) == (3, 0, 15, 2, 7)


@pytest.mark.parametrize(
    ("encoding", "read", "text"),
    [
        ((3, 0, 0, 4, 0), True, "mrs x3, ID_AA64PFR0_EL1"),
        ((3, 0, 1, 0, 0), False, "msr SCTLR_EL1, x3"),
        ((3, 0, 15, 2, 7), False, "msr S3_0_C15_C2_7, x3"),
        ((1, 0, 7, 8, 0), False, "at S1E1R, x3"),
        ((1, 4, 7, 8, 4), False, "at S12E1R, x3"),
        ((1, 0, 8, 7, 0), False, "tlbi VMALLE1"),
        ((1, 0, 8, 7, 1), False, "tlbi VAE1, x3"),
        ((1, 3, 7, 14, 1), False, "dc CIVAC, x3"),
        ((1, 0, 7, 1, 0), False, "ic IALLUIS"),
        ((1, 3, 7, 5, 1), False, "ic IVAU, x3"),
        ((1, 3, 7, 3, 4), False, "cfp RCTX, x3"),
        ((1, 3, 7, 7, 3), True, "gcsss2 x3"),
        ((1, 0, 11, 0, 3), False, "sys #0, C11, C0, #3, x3"),
        ((1, 0, 11, 0, 3), True, "sysl x3, #0, C11, C0, #3"),
    ],
)
def test_instruction(encoding: tuple[int, int, int, int, int], read: bool, text: str) -> None:
    assert instruction_of(*encoding, "x3", read=read) == text
