"""Integers as people paste them where there is no GDB to evaluate an expression."""

from __future__ import annotations

import re
from collections.abc import Callable

from gdbhyp.errors import UsageError

_PASTED = re.compile(r"(?:\w+\s*[=:]\s*)?(?:0[xX])?([0-9a-fA-F_]+)[,;.)]?")


def parse_number(text: str) -> int:
    """Return a 64-bit value: hexadecimal with or without 0x, ``NAME=VALUE`` and trailing punctuation as in logs.

    :raises UsageError: if it is none, or has more than 64 bits.
    """
    if text.startswith("&"):
        raise UsageError(f"only GDB knows where {text[1:]} is: use the command there, or give the address")
    match = _PASTED.fullmatch(text.strip())
    digits = match[1].replace("_", "") if match else ""
    if not digits:
        raise UsageError(f"'{text}' is not a hexadecimal number")
    value = int(digits, 16)
    if value >> 64:
        raise UsageError(f"'{text}' has more than 64 bits")
    return value


def small_number(text: str, what: str) -> int:
    """Return a count, decimal unless it says 0x, for ``what`` the person wrote it for.

    :raises UsageError: if it is none.
    """
    try:
        number = int(text, 0)
    except ValueError:
        number = -1
    if number < 0:
        raise UsageError(f"{what} takes a number, such as 36 or 0x24, not '{text}'")
    return number


def address_range(number: Callable[[str], int], text: str | None) -> tuple[int, int] | None:
    """Return the first and the last address of ``ADDRESS`` or ``FIRST-LAST``, each read by ``number``.

    :raises UsageError: if the range is empty.
    """
    if text is None:
        return None
    first, found, last = text.partition("-")
    begin = number(first)
    end = number(last) if found else begin
    if end < begin:
        raise UsageError(f"the range {text} is empty: write FIRST-LAST, both included")
    return begin, end
