"""Words for fields whose values are too many to list: numbers, addresses, sizes, memory attributes.

``data/registers.txt`` names one of these behind a tilde. Sources: Arm Architecture Reference Manual (DDI
0487 and DDI 0601), the field descriptions of the registers that use each.
"""

from __future__ import annotations

from collections.abc import Callable

from gdbhyp.arch.registers_parts import implementer


def words(kind: str, value: int, register: int) -> str:
    """Return what ``value`` of a field of this kind means in a register that holds ``register``."""
    return KINDS[kind](value, register)


def start_level(vtcr: int) -> str:
    """Return the level at which the stage 2 walk of a VTCR_EL2 value starts: VTCR_EL2.{SL2,SL0,TG0,DS}."""
    code, granule = vtcr >> 6 & 3, vtcr >> 14 & 3
    if granule == 0:
        if vtcr >> 33 & 1 and vtcr >> 32 & 1:
            return "level -1" if code == 0 else "reserved"
        return ("level 2", "level 1", "level 0", "level 3")[code]
    return ("level 3", "level 2", "level 1", "level 0")[code]


def attributes(value: int) -> str:
    """Return a byte of MAIR_ELx, which PAR_EL1.ATTR is too, in words."""
    if value >> 4 == 0:
        return _device(value)
    if value in _SPECIAL_ATTRIBUTES:
        return _SPECIAL_ATTRIBUTES[value]
    outer, inner = _cacheability(value >> 4), _cacheability(value & 0xF)
    if not value & 0xF:
        return "UNPREDICTABLE"
    if inner == outer:
        return f"Normal, {inner}"
    return f"Normal, Outer {outer}, Inner {inner}"


_SPECIAL_ATTRIBUTES = {
    0x40: "Normal, Non-cacheable, XS 0",
    0xA0: "Normal, Write-Through, XS 0",
    0xF0: "Normal, Tagged, Write-Back non-transient RW-allocate",
}

_DEVICE = ("nGnRnE", "nGnRE", "nGRE", "GRE")


def _device(value: int) -> str:
    if value & 0b10:
        return "UNPREDICTABLE"
    return f"Device-{_DEVICE[value >> 2 & 3]}{', XS 0' if value & 1 else ''}"


def _cacheability(nibble: int) -> str:
    if nibble == 0b0100:
        return "Non-cacheable"
    policy = "Write-Back" if nibble & 0b0100 else "Write-Through"
    transient = "non-transient" if nibble & 0b1000 else "transient"
    hints = "".join(name for name, bit in (("R", 2), ("W", 1)) if nibble & bit)
    return f"{policy} {transient} {hints + '-allocate' if hints else 'no-allocate'}"


# DDI 0487, "Indirect permissions": what each base permission of PIR_ELx and PIRE0_ELx grants. Those from 8 on are
# not subject to overlays.
_STAGE_1_PERMISSIONS = (
    *("no access", "R", "X", "RX", "reserved, no access", "RW", "RWX, write implies execute never", "RWX"),
    *("R, no overlay", "R, Guarded Control Stack", "RX, no overlay", "reserved, no access"),
    *("RW, no overlay", "reserved, no access", "RWX, no overlay", "reserved, no access"),
)

# The same of S2PIR_EL2; MRO is mostly read-only, with writes by RCW instructions and table walks.
_STAGE_2_PERMISSIONS = (
    *("no access", "reserved, no access", "MRO", "MRO, TopLevel 1"),
    *("WO", "reserved, no access", "MRO, TopLevel 0", "MRO, TopLevel 0 and 1"),
    *(
        "RO",
        "RO, EL0 X",
        "RO, EL1 X",
        "RO, EL0 and EL1 X",
        "RW",
        "RW, EL0 X",
        "RW, EL1 X",
        "RW, EL0 and EL1 X",
    ),
)

_OVERLAYS = ("no access", "R", "X", "RX", "W", "RW", "WX", "RWX")


def _overlay(value: int, _register: int) -> str:
    return _OVERLAYS[value] if value < 8 else "reserved, no access"


def _bits(value: int, _register: int) -> str:
    """Return the numbers of the bits that are set."""
    return ", ".join(str(bit) for bit in range(value.bit_length()) if value >> bit & 1) or "none"


def _interrupt(value: int, _register: int) -> str:
    if value in _SPECIAL_INTERRUPTS:
        return _SPECIAL_INTERRUPTS[value]
    kind = next((name for last, name in _INTERRUPT_RANGES if value <= last), "LPI")
    return f"{value} ({kind})"


_SPECIAL_INTERRUPTS = {
    1020: "1020 (Secure group 1)",
    1021: "1021 (Non-secure group 1)",
    1022: "1022 (non-maskable)",
    1023: "1023 (spurious)",
}
_INTERRUPT_RANGES = (
    *((15, "SGI"), (31, "PPI"), (1019, "SPI"), (1055, "reserved"), (1119, "extended PPI")),
    *((4095, "reserved"), (5119, "extended SPI"), (8191, "reserved")),
)


def _exception_class(value: int, _register: int) -> str:
    from gdbhyp.arch.syndrome_tables import CLASSES, RESERVED_CLASS

    return CLASSES.get(value, RESERVED_CLASS).name


def _fault_status(value: int, _register: int) -> str:
    from gdbhyp.arch.syndrome_tables import FAULT_STATUS

    status = FAULT_STATUS.get(value)
    return status.text if status else "reserved"


def _shifted(shift: int, what: str) -> Callable[[int, int], str]:
    return lambda value, _register: f"{what} {value << shift:#x}"


def _listed(names: tuple[str, ...]) -> Callable[[int, int], str]:
    return lambda value, _register: names[value]


KINDS: dict[str, Callable[[int, int], str]] = {
    "number": lambda value, _register: str(value),
    "plus1": lambda value, _register: str(value + 1),
    "hex": lambda value, _register: f"{value:#x}",
    "bits": _bits,
    "tsz": lambda value, _register: f"{64 - value} bits",
    "twed": lambda value, _register: f"{1 << value + 8} cycles",
    "linesize": lambda value, _register: f"{16 << value} bytes",
    "log2words": lambda value, _register: f"{4 << value} bytes",
    "sl0": lambda _value, register: start_level(register),
    "attributes": lambda value, _register: attributes(value),
    "implementer": lambda value, _register: implementer(value),
    "pir": _listed(_STAGE_1_PERMISSIONS),
    "s2pir": _listed(_STAGE_2_PERMISSIONS),
    "por": _overlay,
    "intid": _interrupt,
    "ec": _exception_class,
    "fault": _fault_status,
    "va": _shifted(0, "VA"),
    "va11": _shifted(11, "VA"),
    "va12": _shifted(12, "VA"),
    "pa": _shifted(0, "PA"),
    "pa12": _shifted(12, "PA"),
    "pa16": _shifted(16, "PA"),
    "ipa12": _shifted(12, "IPA page"),
    "table1": _shifted(1, "table at"),
}


def trap_rule(register: str) -> Callable[[str], tuple[str, dict[int, str]]] | None:
    """Return how to word the fields of a fine-grained trap register, None for other registers.

    The function takes a field's name and returns its long name and what it traps, by value. A name that
    starts with "n" and a capital traps when it is 0.
    """
    what = next((text for prefix, text in _FINE_GRAINED if register.startswith(prefix)), None)
    if what is None:
        return None

    def rule(field: str) -> tuple[str, dict[int, str]]:
        inverted = field[0] == "n" and field[1:2].isupper()
        target = field[1:] if inverted else field
        words = f"{what} {_accessed(target)}" if what else _executed(target)
        return f"Trap {words}", {0 if inverted else 1: words}

    return rule


_FINE_GRAINED = (
    *(("HFGRTR", "reads of"), ("HDFGRTR", "reads of"), ("HAFGRTR", "reads of")),
    *(("HFGWTR", "writes of"), ("HDFGWTR", "writes of"), ("HFGITR", "")),
)


def _accessed(register: str) -> str:
    """Return the registers that a field names, and where their accesses trap."""
    levels = "at EL1" if register.endswith(("_EL1", "Key")) else "at EL1 and EL0"
    return f"{register.replace('n_EL', '<n>_EL')} {levels}"


_INSTRUCTIONS = {
    "ERET": "ERET, ERETAA and ERETAB at EL1",
    "SVC_EL0": "SVC at EL0",
    "SVC_EL1": "SVC at EL1",
    "PSBCSYNC": "PSB CSYNC at EL1 and EL0",
    "GCSPUSHM_EL1": "GCSPUSHM at EL1",
    "GCSSTR_EL1": "GCSSTR and GCSSTTR at EL1",
    "GCSEPP": "GCSPUSHX, GCSPOPCX and GCSPOPX at EL1",
    "BRBIALL": "BRB IALL at EL1",
    "BRBINJ": "BRB INJ at EL1",
    "ICIVAU": "IC IVAU at EL1 and EL0",
}
_ONLY_AT_EL1 = ("TLBI", "PLBI", "AT", "IC", "DCI", "DCCSW", "DCCISW")


def _executed(field: str) -> str:
    """Return the instruction that a field of HFGITR_EL2 or HFGITR2_EL2 names, and where it traps."""
    if field in _INSTRUCTIONS:
        return _INSTRUCTIONS[field]
    levels = "at EL1" if field.startswith(_ONLY_AT_EL1) else "at EL1 and EL0"
    for mnemonic in ("TLBI", "PLBI", "AT", "IC", "DC", "CFP", "CPP", "DVP", "COSP"):
        if field.startswith(mnemonic):
            return f"{mnemonic} {field.removeprefix(mnemonic)} {levels}"
    return f"{field} {levels}"
