"""MMU faults: their kinds, their status codes, and how a fault taken to EL2 is reported.

Source: Arm ARM (DDI 0487) descriptions of ESR_EL2 (ISS encodings for Instruction and Data Aborts), HPFAR_EL2
and PAR_EL1; Arm's ASL v9.4 ``EncodeLDFSC``, ``IPAValid``, ``AArch64_FaultSyndrome``.
"""

from __future__ import annotations

from gdbhyp.arch.fields import Bits, bit
from gdbhyp.arch.permissions import Denied

TRANSLATION = "translation"
ACCESS_FLAG = "access_flag"
PERMISSION = "permission"
ADDRESS_SIZE = "address_size"
EXTERNAL_ABORT = "external_abort"
GRANULE_PROTECTION = "granule_protection"

_STATUS = {
    ADDRESS_SIZE: 0b000000,
    TRANSLATION: 0b000100,
    ACCESS_FLAG: 0b001000,
    PERMISSION: 0b001100,
    EXTERNAL_ABORT: 0b010100,
    GRANULE_PROTECTION: 0b100100,
}
"""Status code of a fault at level 0; the level is added."""

_STATUS_MINUS_1 = {
    ADDRESS_SIZE: 0b101001,
    TRANSLATION: 0b101011,
    EXTERNAL_ABORT: 0b010011,
    GRANULE_PROTECTION: 0b100011,
}

_STATUS_OUTPUT_GPF = 0b101000

_IPA_REPORTED = (TRANSLATION, ACCESS_FLAG, ADDRESS_SIZE)

# ESR_EL2
_EC = Bits(31, 26)
_IL = bit(25)
_S1PTW = bit(7)
_WNR = bit(6)
_ISS2_DIRTY_BIT = bit(37)
_ISS2_OVERLAY = bit(38)
_ISS2_ASSURED_ONLY = bit(39)
_TOP_LEVEL = bit(21)
_EC_INSTRUCTION_ABORT_LOWER = 0x20
_EC_DATA_ABORT_LOWER = 0x24
_EC_SAME = 1

# HPFAR_EL2
_FIPA = Bits(47, 4)
_FIPA_PAGE = 12
_HPFAR_NS = bit(63)


def status_code(kind: str, level: int, *, on_walk: bool = True) -> int:
    """The six-bit xFSC or FST; ``on_walk`` is False for a granule protection fault on the access itself."""
    if kind == GRANULE_PROTECTION and not on_walk:
        return _STATUS_OUTPUT_GPF
    if level < 0:
        return _STATUS_MINUS_1[kind]
    return _STATUS[kind] + level


def hpfar_valid(kind: str, stage: int, s1ptw: bool) -> bool:
    """Whether HPFAR_EL2 holds the IPA: not for a stage-2 permission fault, unless on a stage-1 walk."""
    if stage != 2:
        return False
    return kind in _IPA_REPORTED or kind == GRANULE_PROTECTION or (s1ptw and kind == PERMISSION)


def esr_el2(
    fst: int, *, execute: bool, write: bool, s1ptw: bool, same_el: bool, denied: Denied | None
) -> int:
    """ESR_EL2 of the abort, without the instruction syndrome (ISV = 0), which no walk can know."""
    ec = (_EC_INSTRUCTION_ABORT_LOWER if execute else _EC_DATA_ABORT_LOWER) + _EC_SAME * same_el
    esr = _EC.put(ec) | _IL.put(1) | _S1PTW.put(s1ptw) | fst
    if write and not execute:
        esr |= _WNR.put(1)
    if denied is not None:
        esr |= _ISS2_DIRTY_BIT.put(denied.dirty_bit) | _ISS2_OVERLAY.put(denied.overlay)
        esr |= _ISS2_ASSURED_ONLY.put(denied.assured_only) | _TOP_LEVEL.put(denied.top_level)
    return esr


def hpfar_el2(ipa: int, non_secure_ipa: bool) -> int:
    """HPFAR_EL2 for an IPA; NS is set for a Non-secure IPA of Secure state only."""
    return _FIPA.put(ipa >> _FIPA_PAGE) | _HPFAR_NS.put(non_secure_ipa)
