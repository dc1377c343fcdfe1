"""Exported symbols: what a Linux kernel offers to modules, data among it, which a short kallsyms leaves out.

An entry is three 32-bit words: the distances from themselves to the symbol, to its name, and to its namespace, which
is an empty string or null (since 5.4, CONFIG_HAVE_ARCH_PREL32_RELOCATIONS; include/linux/export.h). The entries stand
in sections of their own, sorted by name. A name can be the tail of another one.
"""

from __future__ import annotations

import re
import struct
import sys
from array import array

_ENTRY = 12
# A symbol that every kernel exports.
_KNOWN = b"init_task\0"
_NAME = re.compile(rb"[A-Za-z_][A-Za-z0-9_.$]{0,511}\0")
_MOST = 1 << 17
# A word may look like an entry by chance; so many in the order of their names do not.
_NEIGHBOURS = 16


def find(data: bytes) -> dict[str, int]:
    """Return exported symbols as offsets from the beginning of ``data``, which holds a kernel's read-only data.

    Only the section that ``init_task`` is in is read. The result is empty if there is no such table.
    """
    at = data.find(_KNOWN)
    while at >= 0:
        entry = _entry_of(data, at)
        if entry is not None:
            return _section(data, entry)
        at = data.find(_KNOWN, at + 1)
    return {}


def _entry_of(data: bytes, name: int) -> int | None:
    """Return the offset of the entry whose name stands at ``name``."""
    words = array("i", data[: len(data) // 4 * 4])
    if sys.byteorder == "big":
        words.byteswap()
    start = max(0, name // 4 - (1 << 22))
    for position in range(name // 4, start, -1):
        at = 4 * (position - 1)
        if (
            words[position] == name - 4 * position
            and len(_section(data, at, most=_NEIGHBOURS)) == _NEIGHBOURS
        ):
            return at
    return None


def _read(data: bytes, at: int) -> tuple[str, int] | None:
    """Return the name and the offset of the symbol of the entry at ``at``, None if it is no entry."""
    if at < 0 or at + _ENTRY > len(data):
        return None
    value, name, _ = struct.unpack_from("<3i", data, at)
    where = at + 4 + name
    found = _NAME.match(data, where) if 0 < where < len(data) else None
    return None if found is None else (found[0][:-1].decode("ascii"), at + value)


def _section(data: bytes, entry: int, most: int = _MOST) -> dict[str, int]:
    """Return the symbols around an entry, as far as their names are in order."""
    found: dict[str, int] = {}
    for step, in_order in ((_ENTRY, str.__lt__), (-_ENTRY, str.__gt__)):
        at, before = entry, None
        while len(found) < most and (read := _read(data, at)) is not None:
            if before is not None and not in_order(before, read[0]):
                break
            found[read[0]] = read[1]
            before = read[0]
            at += step
    return found
