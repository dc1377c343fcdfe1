"""Integers as people paste them where there is no GDB to evaluate an expression."""

from __future__ import annotations

import re

from gdbhyp.errors import UsageError

_PASTED = re.compile(r"(?:\w+\s*[=:]\s*)?(?:0[xX])?([0-9a-fA-F_]+)[,;.)]?")


def parse_number(text: str) -> int:
    """Return a 64-bit value: hexadecimal with or without 0x, ``NAME=VALUE`` and trailing punctuation as in logs.

    :raises UsageError: if it is none, or has more than 64 bits.
    """
    match = _PASTED.fullmatch(text.strip())
    digits = match[1].replace("_", "") if match else ""
    if not digits:
        raise UsageError(f"'{text}' is not a hexadecimal number")
    value = int(digits, 16)
    if value >> 64:
        raise UsageError(f"'{text}' has more than 64 bits")
    return value
