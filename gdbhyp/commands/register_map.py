"""A file that says how a stub's registers are had, for stubs that do not use the architecture's names.

It is a JSON object: ``names`` has the stub's name of a register, ``monitor`` a command of its monitor that prints the
register, ``values`` a number. ``hyp-help stubs`` shows one.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gdbhyp.errors import BadInput

_KEYS = ("names", "monitor", "values")
_LONGEST = 1 << 20


@dataclass(frozen=True)
class RegisterMap:
    """How registers are had, by the Arm ARM's names."""

    names: dict[str, str] = field(default_factory=dict)
    monitor: dict[str, str] = field(default_factory=dict)
    values: dict[str, int] = field(default_factory=dict)


def read(path: str) -> RegisterMap:
    """Read a file.

    :raises BadInput: if it cannot be read, or is none of these.
    """
    try:
        text = Path(path).read_bytes()[: _LONGEST + 1]
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise BadInput(f"{path} is no JSON object that maps registers: see 'hyp-help stubs'")
    unknown = sorted(set(found) - {*_KEYS})
    if unknown:
        raise BadInput(f"{path} has a key '{unknown[0]}': its keys are {', '.join(_KEYS)}")
    names, monitor = (_texts(path, found, key) for key in ("names", "monitor"))
    return RegisterMap(names, monitor, _values(path, found.get("values", {})))


def _texts(path: str, found: dict[str, Any], key: str) -> dict[str, str]:
    given = found.get(key, {})
    if not isinstance(given, dict) or not all(isinstance(v, str) and v.isprintable() for v in given.values()):
        raise BadInput(f"{path}: '{key}' is no object of texts by register names")
    return {name.upper(): value for name, value in given.items()}


def _values(path: str, given: Any) -> dict[str, int]:
    values = {}
    for name, value in given.items() if isinstance(given, dict) else [("values", None)]:
        try:
            number = int(value, 0) if isinstance(value, str) else value
        except ValueError:
            number = None
        if type(number) is not int or not 0 <= number < 1 << 64:
            raise BadInput(f"{path}: the value of {name} is no 64-bit number")
        values[name.upper()] = number
    return values


def printed_value(text: str) -> int | None:
    """Return the register in what a monitor command printed, None if there is none.

    It is the last number that begins with 0x, or else the last word of hexadecimal digits that has a decimal one.
    """
    numbers = re.findall(r"\b0[xX]([0-9a-fA-F]{1,16})\b", text) or re.findall(
        r"\b(?=[a-fA-F]*[0-9])([0-9a-fA-F]{1,16})\b", text
    )
    return int(numbers[-1], 16) if numbers else None
