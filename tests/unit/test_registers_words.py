"""What values of registers mean, and what they trap."""

from __future__ import annotations

import pytest

from gdbhyp.arch.registers import RegisterView, compose, describe, trapped_by
from gdbhyp.errors import UsageError


def words(view: RegisterView) -> dict[str, str]:
    return {field.name: field.text for field in view.notable}


def test_vtcr_of_kvm() -> None:
    view = describe("VTCR_EL2", 0x8002_3558)
    assert view.note == "40-bit IPA, 4 KiB granule, walk starts at level 1"
    assert words(view) == {
        "PS": "40 bits",
        "SH0": "Inner Shareable",
        "ORGN0": "Write-Back, Read- and Write-Allocate",
        "IRGN0": "Write-Back, Read- and Write-Allocate",
        "SL0": "level 1",
        "T0SZ": "40 bits",
    }


@pytest.mark.parametrize(
    ("value", "level"),
    [
        (0 << 14 | 0 << 6, "level 2"),
        (0 << 14 | 1 << 6, "level 1"),
        (0 << 14 | 2 << 6, "level 0"),
        (0 << 14 | 3 << 6, "level 3"),
        (1 << 33 | 1 << 32, "level -1"),
        (1 << 14 | 0 << 6, "level 3"),
        (1 << 14 | 1 << 6, "level 2"),
        (2 << 14 | 2 << 6, "level 1"),
    ],
)
def test_start_level(value: int, level: str) -> None:
    text = next(field.text for field in describe("VTCR_EL2", value).fields if field.name == "SL0")
    assert text == level


def test_vttbr() -> None:
    assert words(describe("VTTBR_EL2", 0x1_0000_4150_8001)) == {
        "VMID": "1",
        "BADDR": "table at 0x41508000",
        "CnP": "shared by the PEs of the Inner Shareable domain",
    }


def test_par_success() -> None:
    view = describe("PAR_EL1", 0xFF00_0000_4150_8B80)
    assert view.note == "PA 0x41508000, Normal, Write-Back non-transient RW-allocate"
    assert view.layout == ""


def test_par_fault() -> None:
    view = describe("PAR_EL1", 0xB0F | 1 << 9 | 1 << 8)
    assert view.layout == "fault"
    assert view.note == "stage 2 on a stage 1 walk: Translation fault, level 3"


def test_par_of_a_kvm_guest_after_reset() -> None:
    assert "no result of AT" in describe("PAR_EL1", 0x1DE7_EC7E_DBAD_C0DE).note


@pytest.mark.parametrize(
    ("attribute", "text"),
    [
        (0x00, "Device-nGnRnE"),
        (0x04, "Device-nGnRE"),
        (0x08, "Device-nGRE"),
        (0x0C, "Device-GRE"),
        (0x01, "Device-nGnRnE, XS 0"),
        (0x44, "Normal, Non-cacheable"),
        (0x40, "Normal, Non-cacheable, XS 0"),
        (0xA0, "Normal, Write-Through, XS 0"),
        (0xF0, "Normal, Tagged, Write-Back non-transient RW-allocate"),
        (0xFF, "Normal, Write-Back non-transient RW-allocate"),
        (0xBB, "Normal, Write-Through non-transient RW-allocate"),
        (0x4F, "Normal, Outer Non-cacheable, Inner Write-Back non-transient RW-allocate"),
        (0x77, "Normal, Write-Back transient RW-allocate"),
        (0x02, "UNPREDICTABLE"),
        (0x10, "UNPREDICTABLE"),
    ],
)
def test_mair_byte(attribute: int, text: str) -> None:
    assert describe("MAIR_EL2", attribute << 56).fields[0].text == text


def test_midr_has_the_name_of_the_part() -> None:
    assert describe("MIDR_EL1", 0x410F_D083).note == "Cortex-A72 r0p3"
    assert describe("MIDR_EL1", 0x000F_0510).note == ""


def test_esr_is_decoded() -> None:
    assert describe("ESR_EL2", 0x93C58045).note == (
        "guest write of 8 bytes from x5 (stage-2 translation fault, level 1)"
    )


def test_spsr_by_execution_state() -> None:
    assert words(describe("SPSR_EL2", 0x3C5))["M[3:0]"] == "EL1h"
    assert words(describe("SPSR_EL2", 0x1D3))["M[3:0]"] == "Supervisor"


def test_layout_by_e2h() -> None:
    assert "TFP" in words(describe("CPTR_EL2", 1 << 10))
    assert "FPEN" in words(describe("CPTR_EL2", 3 << 20, e2h=True))
    assert describe("TCR_EL2", 1 << 38).notable[0].name == "RES0"
    assert describe("TCR_EL2", 1 << 38, e2h=True).notable[0].name == "TBI1"


def test_alias_of_an_el1_register() -> None:
    assert describe("TCR_EL12", 25).fields[-1].text == "39 bits"
    assert describe("CNTV_CTL_EL02", 1).notable[0].name == "ENABLE"


def test_array_of_registers() -> None:
    view = describe("ICH_LR3_EL2", 1 << 62 | 27)
    assert (view.name, words(view)) == ("ICH_LR3_EL2", {"State": "pending", "vINTID": "27"})


def test_register_without_fields() -> None:
    view = describe("TPIDR_EL0", 0x1234)
    assert [(field.msb, field.lsb, field.text) for field in view.fields] == [(63, 0, "0x1234")]


def test_unnamed_bits_are_shown() -> None:
    field = describe("VTTBR_EL2", 0).fields
    assert all(each.name != "RES0" for each in field)
    assert describe("HSTR_EL2", 1 << 40).notable[0].name == "RES0"


def test_res1_is_not_notable() -> None:
    assert describe("CPTR_EL2", 0x33FF).notable == ()
    assert [field.name for field in describe("CPTR_EL2", 0x32FF).notable] == ["TZ"]


def test_hcr_of_kvm_traps() -> None:
    trapped = trapped_by("HCR_EL2", 0x4_8078_663F | 3 << 40)
    assert "TWI: WFI and WFIT at EL1 and EL0" in trapped
    assert "TSC: SMC at EL1" in trapped
    assert not any(line.startswith(("API", "VM:")) for line in trapped)


def test_a_missing_enable_traps() -> None:
    assert "API: pointer authentication instructions at EL1 and EL0 (with FEAT_PAuth)" in trapped_by(
        "HCR_EL2", 0
    )


def test_fine_grained_traps() -> None:
    assert "TCR_EL1: reads of TCR_EL1 at EL1" in trapped_by("HFGRTR_EL2", 1 << 32)
    every = (1 << 64) - 1
    assert not any(line.startswith("n") for line in trapped_by("HFGRTR_EL2", every))
    assert "nTPIDR2_EL0: reads of TPIDR2_EL0 at EL1 and EL0" in trapped_by("HFGRTR_EL2", 0)


@pytest.mark.parametrize(
    ("bit", "text"),
    [
        (0, "ICIALLUIS: IC IALLUIS at EL1"),
        (2, "ICIVAU: IC IVAU at EL1 and EL0"),
        (4, "DCISW: DC ISW at EL1"),
        (10, "DCCIVAC: DC CIVAC at EL1 and EL0"),
        (12, "ATS1E1R: AT S1E1R at EL1"),
        (29, "TLBIVAE1IS: TLBI VAE1IS at EL1"),
        (48, "CFPRCTX: CFP RCTX at EL1 and EL0"),
        (51, "ERET: ERET, ERETAA and ERETAB at EL1"),
        (52, "SVC_EL0: SVC at EL0"),
    ],
)
def test_fine_grained_instruction_traps(bit: int, text: str) -> None:
    assert text in trapped_by("HFGITR_EL2", 1 << bit)


def test_cptr_traps_by_e2h() -> None:
    assert trapped_by("CPTR_EL2", 1 << 10)[0].startswith("TFP: floating-point")
    assert any(line.startswith("FPEN") for line in trapped_by("CPTR_EL2", 0, e2h=True))
    assert not any(line.startswith("FPEN") for line in trapped_by("CPTR_EL2", 3 << 20, e2h=True))


def test_compose() -> None:
    assert compose("HCR_EL2", 0x1, {"tge": 1, "VM": 0}) == 0x800_0000
    assert compose("VTCR_EL2", 0, {"T0SZ": 24}) == 24


@pytest.mark.parametrize("fields", [{"XYZ": 1}, {"VM": 2}, {"VM": -1}])
def test_compose_refuses(fields: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="HCR_EL2"):
        compose("HCR_EL2", 0, fields)
