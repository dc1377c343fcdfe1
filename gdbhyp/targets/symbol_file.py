"""A file of symbols alone: an ELF with sections that have no contents and a table of symbols at run addresses.

Source: System V ABI, "Object files"; the machine is EM_AARCH64.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_IDENT = b"\x7fELF\x02\x01\x01" + bytes(9)
_ET_EXEC, _EM_AARCH64 = 2, 183
_SYMTAB, _STRTAB, _NOBITS = 2, 3, 8
_ALLOC, _WRITE, _EXECUTE = 2, 1, 4
_LOCAL, _GLOBAL, _OBJECT, _FUNC = 0, 1, 1, 2


class Part(NamedTuple):
    """A section of memory from ``start`` to ``end`` (exclusive)."""

    name: str
    start: int
    end: int
    executable: bool


class Entry(NamedTuple):
    """A symbol: ``part`` counts the sections from 0."""

    name: str
    address: int
    size: int
    part: int
    code: bool
    local: bool


def symbol_file(parts: Sequence[Part], entries: Sequence[Entry]) -> bytes:
    """Return the bytes of an ELF file with these sections and symbols."""
    ordered = sorted(entries, key=lambda entry: not entry.local)
    names, table = bytearray(b"\0"), bytearray(_SYMBOL.size)
    for entry in ordered:
        info = (_LOCAL if entry.local else _GLOBAL) << 4 | (_FUNC if entry.code else _OBJECT)
        table += _SYMBOL.pack(len(names), info, 0, entry.part + 1, entry.address, entry.size)
        names += entry.name.encode() + b"\0"
    locals_ = 1 + sum(entry.local for entry in entries)
    section_names = (
        b"\0" + b"".join(part.name.encode() + b"\0" for part in parts) + b".symtab\0.strtab\0.shstrtab\0"
    )
    table_at = _HEADER.size
    names_at = table_at + len(table)
    section_names_at = names_at + len(names)
    headers_at = -(-(section_names_at + len(section_names)) // 8) * 8
    count = len(parts) + 4

    def name_of(text: str) -> int:
        return section_names.index(b"\0" + text.encode() + b"\0") + 1

    headers = [bytes(_SECTION.size)]
    for part in parts:
        flags = _ALLOC | (_EXECUTE if part.executable else _WRITE)
        headers.append(
            _SECTION.pack(
                name_of(part.name),
                _NOBITS,
                flags,
                part.start,
                _HEADER.size,
                part.end - part.start,
                0,
                0,
                4,
                0,
            )
        )
    strings = len(parts) + 2
    headers += [
        _SECTION.pack(
            name_of(".symtab"), _SYMTAB, 0, 0, table_at, len(table), strings, locals_, 8, _SYMBOL.size
        ),
        _SECTION.pack(name_of(".strtab"), _STRTAB, 0, 0, names_at, len(names), 0, 0, 1, 0),
        _SECTION.pack(name_of(".shstrtab"), _STRTAB, 0, 0, section_names_at, len(section_names), 0, 0, 1, 0),
    ]
    header = _HEADER.pack(
        _IDENT,
        _ET_EXEC,
        _EM_AARCH64,
        1,
        0,
        0,
        headers_at,
        0,
        _HEADER.size,
        56,
        0,
        _SECTION.size,
        count,
        count - 1,
    )
    body = header + bytes(table) + bytes(names) + section_names
    return body + bytes(headers_at - len(body)) + b"".join(headers)
