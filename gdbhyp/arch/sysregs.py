"""Names and encodings of the AArch64 system registers and system instructions.

The table is ``data/sysregs.json``, which names its source; it is read when the first name is asked for.
A system register is op0 = 2 or 3, a system instruction (AT, DC, IC, TLBI, …) is op0 = 1.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from gdbhyp.arch.data import load

Encoding = tuple[int, int, int, int, int]
"""op0, op1, CRn, CRm, op2."""


@cache
def _names() -> dict[str, str]:
    """Return the table: ``NAME``, or ``READ|WRITE``, by ``op0_op1_CRn_CRm_op2``."""
    names: dict[str, str] = _document()["names"]
    return names


@cache
def _document() -> dict[str, Any]:
    return load("sysregs.json")


@cache
def _without_register() -> frozenset[str]:
    return frozenset(_document()["without_register"])


@cache
def _encodings() -> dict[str, Encoding]:
    """Return the encodings by name in capitals."""
    found: dict[str, Encoding] = {}
    for key, names in _names().items():
        op0, op1, crn, crm, op2 = map(int, key.split("_"))
        for name in filter(None, names.split("|")):
            found[name.upper()] = (op0, op1, crn, crm, op2)
    return found


def name_of(op0: int, op1: int, crn: int, crm: int, op2: int, *, read: bool | None = None) -> str | None:
    """Return the register's or instruction's name, or None when the encoding is not allocated.

    An instruction's name is its mnemonic and operation, ``"TLBI VMALLE1IS"``. ``read`` chooses where an
    encoding names one register for MRS and another for MSR; without it such a pair is
    ``"DBGDTRRX_EL0/DBGDTRTX_EL0"``.
    """
    names = _names().get(f"{op0}_{op1}_{crn}_{crm}_{op2}")
    if names is None or "|" not in names:
        return names
    reading, _, writing = names.partition("|")
    if read is None and reading and writing:
        return f"{reading}/{writing}"
    return (reading or writing) if read or read is None else (writing or reading)


def generic_name(op0: int, op1: int, crn: int, crm: int, op2: int) -> str:
    """Return the name that every assembler accepts: ``"S3_0_C1_C0_0"``."""
    return f"S{op0}_{op1}_C{crn}_C{crm}_{op2}"


def encoding_of(name: str) -> Encoding | None:
    """Return (op0, op1, CRn, CRm, op2) of a name in any case, also of the generic form; None when it is not
    known.
    """
    upper = " ".join(name.upper().split())
    return _encodings().get(upper) or _generic_encoding(upper)


def _generic_encoding(name: str) -> Encoding | None:
    """Return the encoding that ``generic_name`` made ``name`` of."""
    parts = name.replace("_C", "_").removeprefix("S").split("_")
    if len(parts) != 5 or not all(part.isdecimal() and len(part) < 3 for part in parts):
        return None
    op0, op1, crn, crm, op2 = map(int, parts)
    encoding = (op0, op1, crn, crm, op2)
    return encoding if generic_name(*encoding) == name and _in_range(encoding) else None


def _in_range(encoding: Encoding) -> bool:
    return all(value < limit for value, limit in zip(encoding, (4, 8, 16, 16, 8), strict=True))


def instruction_of(op0: int, op1: int, crn: int, crm: int, op2: int, register: str, *, read: bool) -> str:
    """Return the trapped instruction as an assembler takes it: ``"mrs x3, ID_AA64PFR0_EL1"``, ``"at S1E1R,
    x0"``.

    ``register`` is Rt as written; it is left out of an instruction that takes none.
    """
    name = name_of(op0, op1, crn, crm, op2, read=read)
    if op0 == 1:
        return _system_instruction(name, (op0, op1, crn, crm, op2), register, read)
    name = name or generic_name(op0, op1, crn, crm, op2)
    return f"mrs {register}, {name}" if read else f"msr {name}, {register}"


def _system_instruction(name: str | None, encoding: Encoding, register: str, read: bool) -> str:
    if name is None:
        _, op1, crn, crm, op2 = encoding
        operands = f"#{op1}, C{crn}, C{crm}, #{op2}"
        return f"sysl {register}, {operands}" if read else f"sys {operands}, {register}"
    mnemonic, _, operation = name.partition(" ")
    words = f"{mnemonic.lower()} {operation}".rstrip()
    if read:
        return f"{words} {register}" if not operation else f"{mnemonic.lower()} {register}, {operation}"
    if name in _without_register():
        return words
    return f"{words}, {register}" if operation else f"{words} {register}"
