"""Units of memory as numbers, characters and strings, by the letters of GDB's ``x`` command."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from gdbhyp.errors import UsageError

SIZES = {"b": 1, "h": 2, "w": 4, "g": 8}
LETTERS = "xduotzacfsi"
MOST_UNITS = 1 << 16
_FORMAT = re.compile(r"(\d*)([a-z]*)")
_FLOATS = {2: "<e", 4: "<f", 8: "<d"}
_ESCAPES = {
    0: r"\000",
    7: r"\a",
    8: r"\b",
    9: r"\t",
    10: r"\n",
    12: r"\f",
    13: r"\r",
    27: r"\033",
    39: r"\'",
    92: "\\\\",
}


@dataclass(frozen=True)
class Format:
    """``count`` units of ``size`` bytes (0 for strings, which end with a zero byte), shown by ``letter``."""

    count: int = 1
    letter: str = "x"
    size: int = 4

    @property
    def columns(self) -> int:
        """How many units a line has."""
        if self.letter in "sia":
            return 1 if self.letter != "a" else 2
        if self.letter == "t":
            return {1: 8, 2: 8, 4: 2, 8: 1}[self.size]
        return {1: 8, 2: 8, 4: 4, 8: 2}[self.size]


def parse_format(text: str) -> Format:
    """Return the format of ``4xg``: a count, a letter of xduotzacfsi and one of bhwg, each of which may be missing.

    :raises UsageError: if it is none.
    """
    match = _FORMAT.fullmatch(text)
    letters = match[2] if match else "?"
    shown = [letter for letter in letters if letter in LETTERS]
    sizes = [letter for letter in letters if letter in SIZES]
    if match is None or len(letters) != len(shown) + len(sizes) or len(shown) > 1 or len(sizes) > 1:
        raise UsageError(
            f"'/{text}' is no format: write a count, a letter of {LETTERS} and one of bhwg, as /4xg"
        )
    letter = shown[0] if shown else "x"
    count = int(match[1] or 1)
    if not 0 < count <= MOST_UNITS:
        raise UsageError(f"a count is 1 to {MOST_UNITS}, not {count}")
    return Format(count, letter, _size(letter, sizes[0] if sizes else ""))


def _size(letter: str, chosen: str) -> int:
    if letter in "si":
        return {"s": 0, "i": 4}[letter]
    if letter == "a":
        return 8
    size = SIZES[chosen or {"c": "b", "f": "g"}.get(letter, "w")]
    if letter == "f" and size not in _FLOATS:
        raise UsageError("a floating-point number has 2, 4 or 8 bytes: /fh, /fw or /fg")
    return size


def unit_text(data: bytes, letter: str) -> str:
    """Return one unit as ``letter`` shows it; memory is little-endian."""
    value, digits = int.from_bytes(data, "little"), 2 * len(data)
    if letter == "f":
        return format(struct.unpack(_FLOATS[len(data)], data)[0], ".17g" if len(data) == 8 else ".9g")
    if letter == "d":
        return str(value - (1 << 4 * digits) if value >> 4 * digits - 1 else value)
    if letter == "c":
        return f"{value - 256 if value > 127 else value} '{_character(value)}'"
    return {
        "u": str(value),
        "o": f"0{value:o}" if value else "0",
        "t": f"{value:0{4 * digits}b}",
        "a": f"{value:#x}",
        "z": f"0x{value:0{digits}x}",
        "x": f"0x{value:0{digits}x}",
    }[letter]


def _character(value: int) -> str:
    if value in _ESCAPES:
        return _ESCAPES[value]
    return chr(value) if 32 <= value < 127 else f"\\{value:03o}"


def string_text(data: bytes) -> str:
    """Return bytes as a string in quotes."""
    return '"' + "".join(_character(byte) if byte != 39 else "'" for byte in data).replace('"', '\\"') + '"'
