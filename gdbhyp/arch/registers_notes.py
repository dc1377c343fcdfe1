"""What the fields of a register say together, in one line.

Sources: Arm Architecture Reference Manual (DDI 0487), the descriptions of the registers that are named here.
"""

from __future__ import annotations

from collections.abc import Callable

from gdbhyp.arch.registers_kinds import attributes, start_level
from gdbhyp.arch.registers_parts import part_name


def note(name: str, value: int) -> str:
    """Return the line for ``value`` of the register ``name``, "" where its fields say it all."""
    maker = _NOTES.get(name)
    return maker(value) if maker else ""


def _syndrome(level: int) -> Callable[[int], str]:
    def maker(value: int) -> str:
        from gdbhyp.arch.syndrome import decode_esr

        return decode_esr(value, el=level).summary

    return maker


def _serror(value: int) -> str:
    """Return the line of a register whose bits 24:0 are those of the syndrome of an SError."""
    return _syndrome(2)(0x2F << 26 | value & 0x1FF_FFFF)


def _deferred(value: int) -> str:
    return _serror(value) if value >> 31 & 1 else "nothing was deferred"


def _processor(midr: int) -> str:
    name = part_name(midr)
    return f"{name} r{midr >> 20 & 0xF}p{midr & 0xF}" if name else ""


def _affinity(mpidr: int) -> str:
    return ".".join(str(mpidr >> shift & 0xFF) for shift in (32, 16, 8, 0))


_GRANULES_0 = ("4 KiB", "64 KiB", "16 KiB", "reserved")


def _stage_2(vtcr: int) -> str:
    granule = _GRANULES_0[vtcr >> 14 & 3]
    return f"{64 - (vtcr & 0x3F)}-bit IPA, {granule} granule, walk starts at {start_level(vtcr)}"


def _physical_address(par: int) -> str:
    """Return the line of PAR_EL1: F 0, PA 51:12, ATTR 63:56; F 1, FST 6:1, PTW 8, S 9."""
    if par == _KVM_POISON:
        return "the value to which KVM resets a guest's PAR_EL1, no result of AT"
    if not par & 1:
        return f"PA {par & 0x000F_FFFF_FFFF_F000:#x}, {attributes(par >> 56)}"
    from gdbhyp.arch.syndrome_tables import FAULT_STATUS

    status = FAULT_STATUS.get(par >> 1 & 0x3F)
    stage, walk = 1 + (par >> 9 & 1), " on a stage 1 walk" if par >> 8 & 1 else ""
    return f"stage {stage}{walk}: {status.text if status else 'reserved fault status'}"


_KVM_POISON = 0x1DE7_EC7E_DBAD_C0DE


def _faulting_page(hpfar: int) -> str:
    return f"IPA {(hpfar & 0x0000_FFFF_FFFF_FFF0) << 8:#x}, where the syndrome makes it valid"


_NOTES: dict[str, Callable[[int], str]] = {
    "ESR_EL1": _syndrome(1),
    "ESR_EL2": _syndrome(2),
    "ESR_EL3": _syndrome(3),
    "MIDR_EL1": _processor,
    "VPIDR_EL2": _processor,
    "MPIDR_EL1": _affinity,
    "VMPIDR_EL2": _affinity,
    "VTCR_EL2": _stage_2,
    "PAR_EL1": _physical_address,
    "HPFAR_EL2": _faulting_page,
    "VSESR_EL2": _serror,
    "DISR_EL1": _deferred,
    "VDISR_EL2": _deferred,
}
