"""Names and encodings of the AArch64 system registers and system instructions.

The table is ``data/sysregs.json``, which names its source; it is read when the first name is asked for.
A system register is op0 = 2 or 3, a system instruction (AT, DC, IC, TLBI, …) is op0 = 1.
"""

from __future__ import annotations

import re
from functools import lru_cache

from gdbhyp.arch.data import load

Encoding = tuple[int, int, int, int, int]
"""op0, op1, CRn, CRm, op2."""


class _Names:
    """The table, indexed both ways; ``read`` and ``write`` differ where one encoding has two registers."""

    def __init__(self) -> None:
        document = load("sysregs.json")
        self.read: dict[Encoding, str] = {}
        self.write: dict[Encoding, str] = {}
        self.encodings: dict[str, Encoding] = {}
        self.without_register: set[str] = set(document["without_register"])
        for key, name in document["names"].items():
            op0, op1, crn, crm, op2 = map(int, key.split("_"))
            encoding = (op0, op1, crn, crm, op2)
            reading, _, writing = name.partition("|")
            self.read[encoding] = reading or writing
            self.write[encoding] = writing or reading
            self.encodings[reading or writing] = self.encodings[writing or reading] = encoding


@lru_cache(maxsize=1)
def _names() -> _Names:
    return _Names()


def name_of(op0: int, op1: int, crn: int, crm: int, op2: int, *, read: bool | None = None) -> str | None:
    """Return the register's or instruction's name, or None when the encoding is not allocated.

    An instruction's name is its mnemonic and operation, ``"TLBI VMALLE1IS"``. ``read`` chooses where an
    encoding names one register for MRS and another for MSR; without it such a pair is
    ``"DBGDTRRX_EL0/DBGDTRTX_EL0"``.
    """
    names = _names()
    encoding = (op0, op1, crn, crm, op2)
    reading, writing = names.read.get(encoding), names.write.get(encoding)
    if read is None and reading != writing:
        return f"{reading}/{writing}"
    return reading if read is None or read else writing


def generic_name(op0: int, op1: int, crn: int, crm: int, op2: int) -> str:
    """Return the name that every assembler accepts: ``"S3_0_C1_C0_0"``."""
    return f"S{op0}_{op1}_C{crn}_C{crm}_{op2}"


def encoding_of(name: str) -> Encoding | None:
    """Return (op0, op1, CRn, CRm, op2) of a name in any case, also of the generic form; None when it is not
    known.
    """
    upper = " ".join(name.upper().split())
    match = re.fullmatch(r"S([0-3])_([0-7])_C(\d\d?)_C(\d\d?)_([0-7])", upper)
    if match is None:
        return _names().encodings.get(upper)
    op0, op1, crn, crm, op2 = map(int, match.groups())
    return (op0, op1, crn, crm, op2) if crn < 16 and crm < 16 else None


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
    if name in _names().without_register:
        return words
    return f"{words}, {register}" if operation else f"{words} {register}"
