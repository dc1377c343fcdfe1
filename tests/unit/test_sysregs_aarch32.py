"""Names of AArch32 System registers by their coprocessor encoding."""

from __future__ import annotations

import pytest

from gdbhyp.arch.syndrome import decode_esr
from gdbhyp.arch.sysregs_aarch32 import long_name_of, name_of


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ((15, 0, 0, 0, 0), "MIDR"),
        ((15, 0, 1, 0, 0), "SCTLR"),
        ((15, 4, 1, 1, 0), "HCR"),
        ((15, 0, 7, 14, 1), "DCCIMVAC"),
        ((15, 0, 14, 15, 7), "PMCCFILTR"),
        ((14, 0, 0, 1, 0), "DBGDSCRint"),
        ((15, 0, 15, 0, 0), None),
        ((15, 0, 0, 0, 4), None),
        ((15, 0, 64, 2, 1), None),
        ((13, 0, 0, 0, 0), None),
    ],
)
def test_name(encoding: tuple[int, int, int, int, int], name: str | None) -> None:
    assert name_of(*encoding) == name


def test_long_name() -> None:
    assert long_name_of(15, 6, 2) == "VTTBR"
    assert long_name_of(14, 0, 1) == "DBGDRAR"
    assert long_name_of(15, 7, 2) is None


def test_in_a_syndrome() -> None:
    decoded = decode_esr(0x0FE00480)
    assert decoded.system_register == "SCTLR"
    assert decoded.summary == "mcr p15, #0, r4, c1, c0, #0 (SCTLR) trapped"
    assert decode_esr(0x13E00405).system_register == "TTBR0"
