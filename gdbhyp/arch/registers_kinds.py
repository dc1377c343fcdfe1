"""Words for fields whose values are too many to list: numbers, addresses, sizes, memory attributes.

``data/registers.txt`` names one of these behind a tilde. Sources: Arm Architecture Reference Manual (DDI
0487 and DDI 0601), the field descriptions of the registers that use each.
"""

from __future__ import annotations

from collections.abc import Callable

from gdbhyp.arch.registers_parts import implementer

__all__ = ["trap_rule", "words"]


def words(kind: str, value: int) -> str:
    """Return what ``value`` of a field of this kind means."""
    return _KINDS[kind](value)


def _number(value: int) -> str:
    return str(value)


def _hex(value: int) -> str:
    return f"{value:#x}"


def _size_offset(value: int) -> str:
    return f"{64 - value}-bit input" if value else "64-bit input"


def _attributes(value: int) -> str:
    """Return a byte of MAIR_ELx in words."""
    if value >> 4 == 0:
        return _device(value)
    if value == 0x40:
        return "Normal Inner and Outer Non-cacheable, XS 0"
    if value == 0xA0:
        return "Normal Inner and Outer Write-Through, XS 0"
    if value == 0xF0:
        return "Normal Tagged Inner and Outer Write-Back non-transient"
    outer, inner = _cacheability(value >> 4), _cacheability(value & 0xF)
    if inner is None or outer is None:
        return "UNPREDICTABLE"
    if inner == outer:
        return f"Normal Inner and Outer {inner}"
    return f"Normal Outer {outer}, Inner {inner}"


_DEVICE = ("nGnRnE", "nGnRE", "nGRE", "GRE")


def _device(value: int) -> str:
    if value & 0b10:
        return "UNPREDICTABLE"
    return f"Device-{_DEVICE[value >> 2 & 3]}{', XS 0' if value & 1 else ''}"


def _cacheability(nibble: int) -> str | None:
    if nibble == 0:
        return None
    if nibble == 0b0100:
        return "Non-cacheable"
    policy = "Write-Back" if nibble & 0b0100 else "Write-Through"
    if not nibble & 0b1000 and not nibble & 0b0011:
        return None
    transient = "non-transient" if nibble & 0b1000 else "transient"
    hints = "".join(name for name, bit in (("R", 2), ("W", 1)) if nibble & bit)
    return f"{policy} {transient} {hints + '-allocate' if hints else 'no-allocate'}"


def _base(shift: int, what: str) -> Callable[[int], str]:
    return lambda value: f"{what}{value << shift:#x}"


def _log2(unit: str) -> Callable[[int], str]:
    return lambda value: f"{1 << value} {unit}"


def _plus_one(value: int) -> str:
    return str(value + 1)


_KINDS: dict[str, Callable[[int], str]] = {
    "number": _number,
    "hex": _hex,
    "tsz": _size_offset,
    "attributes": _attributes,
    "va": _base(0, "VA "),
    "va11": _base(11, "VA "),
    "va12": _base(12, "VA "),
    "table1": _base(1, "table at "),
    "pa12": _base(12, "PA "),
    "ipa12": _base(12, "IPA page "),
    "log2words": _log2("words"),
    "plus1": _plus_one,
    "implementer": implementer,
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
        return f"{what[0].upper()}{what[1:]} {target}", {
            0 if inverted else 1: f"{what} {target} at EL1 and EL0"
        }

    return rule


_FINE_GRAINED = (
    *(("HFGRTR", "reads of"), ("HDFGRTR", "reads of"), ("HAFGRTR", "reads of")),
    *(("HFGWTR", "writes of"), ("HDFGWTR", "writes of"), ("HFGITR", "execution of")),
)
