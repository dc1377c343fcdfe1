"""What a program's ELF file says about itself: its build ID, and where its code was linked to.

Source: System V ABI, "Object files", sections; the build ID is a note of owner "GNU" and type 3.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gdbhyp.errors import BadInput
from gdbhyp.targets.elf import HEADER, MAGIC
from gdbhyp.targets.flat import map_file
from gdbhyp.targets.notes import read_notes

_SECTION = struct.Struct("<IIQQQQIIQQ")
_HEADER = struct.Struct("<" + HEADER)
_CLASS64_LITTLE = b"\x02\x01"
_SHT_NOTE = 7
_NT_GNU_BUILD_ID = 3
_LONGEST_NOTES = 1 << 20


@dataclass(frozen=True)
class Program:
    """A linked program; ``build_id`` is hexadecimal, "" without one; ``text`` is the address of its .text section."""

    build_id: str
    text: int


def read_program(path: str) -> Program:
    """Read the headers of a 64-bit little-endian ELF file.

    :raises BadInput: if it cannot be read, is no such file, or has no .text section.
    """
    contents = map_file(Path(path))
    if contents[:6] != MAGIC + _CLASS64_LITTLE:
        raise BadInput(f"{path} is no 64-bit ELF file")
    try:
        sections = list(_sections(contents))
    except (struct.error, IndexError, OverflowError) as error:
        raise BadInput(f"{path} is a damaged ELF file: its table of sections is cut off") from error
    text = next((section.address for section in sections if section.name == b".text"), None)
    if text is None:
        raise BadInput(f"{path} has no .text section, so it is no program with symbols")
    return Program(_build_id(contents, sections), text)


@dataclass(frozen=True)
class _Section:
    name: bytes
    kind: int
    address: int
    offset: int
    size: int


def _sections(contents: bytes | mmap.mmap) -> Iterator[_Section]:
    header = _HEADER.unpack_from(contents)
    start, size, count, names = header[6], *header[11:14]
    if not start or size != _SECTION.size:
        return
    rows = [_SECTION.unpack_from(contents, start + number * size) for number in range(count)]
    names_at = rows[names][4]
    for row in rows:
        end = contents.find(b"\0", names_at + row[0])
        yield _Section(contents[names_at + row[0] : end], row[1], row[3], row[4], row[5])


def _build_id(contents: bytes | mmap.mmap, sections: list[_Section]) -> str:
    for section in sections:
        if section.kind == _SHT_NOTE and section.size <= _LONGEST_NOTES:
            notes, _ = read_notes(bytes(contents[section.offset : section.offset + section.size]))
            for note in notes:
                if (note.name, note.kind) == ("GNU", _NT_GNU_BUILD_ID):
                    return note.contents.hex()
    return ""
