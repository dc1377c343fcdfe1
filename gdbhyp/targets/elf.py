"""ELF cores: QEMU's ``dump-guest-memory``, /proc/vmcore, makedumpfile's, ``virsh dump --memory-only``, snapshots.

A PT_LOAD segment says by p_paddr where its bytes stand in physical memory, and a PT_NOTE segment holds the notes
(System V ABI, "Program Header"). The file is mapped; no count or size in it is believed before it is compared with
the file.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gdbhyp.errors import BadInput
from gdbhyp.targets.flat import PA_LIMIT, FlatMemory, Gap, Segment, map_file
from gdbhyp.targets.notes import NT_ARM_SVE, Note, read_notes

MAGIC = b"\x7fELF"
PT_LOAD, PT_NOTE = 1, 4
EM_AARCH64 = 183
ET_CORE = 4
# e_ident, then e_type to e_shstrndx, and a program header, of ELFCLASS64.
HEADER = "16sHHIQQQIHHHHHH"
PROGRAM_HEADER = "IIQQQQQQ"
_CLASS64 = 2
_ORDERS = {1: "<", 2: ">"}
_MACHINES = {3: "x86", 40: "Arm (AArch32)", 62: "x86-64", 243: "RISC-V", 22: "s390", 21: "PowerPC64"}
# With more than 65534 program headers, their number is in sh_info of the first section header.
PN_XNUM, _SH_INFO = 0xFFFF, 44
_MOST_SEGMENTS = 1 << 20
_MOST_NOTES = 1 << 28


@dataclass(frozen=True)
class ElfCore:
    """What an ELF core holds. ``missing`` counts the bytes that it claims and the file does not have."""

    memory: FlatMemory
    notes: tuple[Note, ...]
    big: bool
    missing: int


@dataclass(frozen=True)
class _Part:
    """One program header, in bytes and file offsets."""

    kind: int
    offset: int
    virtual: int
    physical: int
    in_file: int
    in_memory: int


def open_elf(path: Path) -> ElfCore:
    """Open an ELF core; bytes that a segment claims and the file does not have are missing from memory.

    :raises BadInput: with a sentence, if it is no AArch64 ELF file with segments at physical addresses.
    """
    contents = map_file(path)
    try:
        order = _order(contents, path)
        parts = _parts(contents, order, path)
    except struct.error as error:
        raise BadInput(f"{path} is a damaged ELF file: it is cut off inside its headers") from error
    loaded = [part for part in parts if part.kind == PT_LOAD and part.physical < PA_LIMIT]
    described = _notes(contents, parts, path, order)
    loaded = [replace(part, offset=part.offset - described.shift) for part in loaded]
    segments, gaps = _memory(contents, loaded)
    if not segments:
        raise BadInput(f"{path} has no memory in it: no PT_LOAD segment with contents")
    if len(loaded) > 1 and not any(part.physical for part in loaded):
        raise BadInput(f"{path} has no physical addresses: it is the core of a process, not of a machine")
    missing = sum(max(0, part.offset + part.in_file - max(len(contents), part.offset)) for part in loaded)
    return ElfCore(FlatMemory(segments, gaps), described.notes, order == ">", missing)


def _order(contents: bytes | mmap.mmap, path: Path) -> str:
    """Return struct's sign for the file's byte order, after a check of what kind of file it is."""
    ident = bytes(contents[:16])
    if len(ident) < 16 or ident[4] != _CLASS64 or ident[5] not in _ORDERS:
        raise BadInput(f"{path} is a damaged ELF file, or not a 64-bit one")
    order = _ORDERS[ident[5]]
    (machine,) = struct.unpack_from(order + "H", contents, 18)
    if machine != EM_AARCH64:
        raise BadInput(
            f"{path} is an ELF file of {_MACHINES.get(machine, f'machine {machine}')}, not of AArch64"
        )
    return order


def _parts(contents: bytes | mmap.mmap, order: str, path: Path) -> list[_Part]:
    header = struct.unpack_from(order + HEADER, contents)
    start, sections, entry_size, count = header[5], header[6], header[9], header[10]
    if count == PN_XNUM:
        (count,) = struct.unpack_from(order + "I", contents, sections + _SH_INFO)
    entry = struct.Struct(order + PROGRAM_HEADER)
    if entry_size < entry.size or count > _MOST_SEGMENTS or start + count * entry_size > len(contents):
        raise BadInput(
            f"{path} is a damaged ELF file: it has no room for the {count} program headers it claims"
        )
    values = (entry.unpack_from(contents, start + n * entry_size) for n in range(count))
    return [
        _Part(kind, offset, virtual, physical, in_file, in_memory)
        for kind, _, offset, virtual, physical, in_file, in_memory, _ in values
    ]


_CUT_SHORT = "the file is cut short there"
_LEFT_OUT = "it was left out of the dump when that was made"


def _memory(contents: bytes | mmap.mmap, parts: Sequence[_Part]) -> tuple[list[Segment], list[Gap]]:
    """Return the segments, with what overlaps taken once, and the ranges without contents.

    A vmcore has the kernel's own text both for itself and in the memory around it: the same bytes, of which those of
    the segment that begins first are taken.
    """
    view = memoryview(contents)
    segments: list[Segment] = []
    gaps: list[Gap] = []
    taken = 0
    for part in sorted(parts, key=lambda part: (part.physical, -part.in_file)):
        end = min(part.physical + part.in_file, PA_LIMIT)
        start = max(part.physical, taken)
        at = part.offset + start - part.physical
        data = view[at : max(at, part.offset + end - part.physical)]
        if len(data):
            segments.append(Segment(start, data))
            taken = start + len(data)
        if taken < end and start < end:
            gaps.append(Gap(start + len(data), end, _CUT_SHORT))
        if part.in_memory > part.in_file:
            gaps.append(Gap(end, min(part.physical + part.in_memory, PA_LIMIT), _LEFT_OUT))
    return segments, gaps


@dataclass(frozen=True)
class _Notes:
    """The notes, and how much nearer to the file's beginning than its headers say its memory is."""

    notes: tuple[Note, ...]
    shift: int = 0


def _notes(contents: bytes | mmap.mmap, parts: Sequence[_Part], path: Path, order: str) -> _Notes:
    """Read all PT_NOTE segments.

    QEMU (7.2 to 10.0 at least) makes room for as many notes as CPU 0's times the number of CPUs, and lets memory
    follow what it really wrote. With CPUs of different SVE vector lengths that is less or more, and the file's length
    shows it.
    """
    found: list[Note] = []
    shift = 0
    for part in (part for part in parts if part.kind == PT_NOTE):
        if part.offset + part.in_file > len(contents) or part.in_file > _MOST_NOTES:
            raise BadInput(
                f"{path} is damaged: its notes are {part.in_file} bytes at {part.offset}, beyond its end"
            )
        big = order == ">"
        data = bytes(contents[part.offset : part.offset + part.in_file])
        some, end = read_notes(data, big=big)
        misplaced = _misplaced(contents, part, parts, order)
        if misplaced is not None:
            some, shift = misplaced
        elif any(data[end : end + _NOTE_HEADER]):
            raise BadInput(f"{path} is damaged: what is at byte {end} of its notes is no note")
        found.extend(some)
    return _Notes(tuple(found), shift)


def _misplaced(
    contents: bytes | mmap.mmap, part: _Part, parts: Sequence[_Part], order: str
) -> tuple[tuple[Note, ...], int] | None:
    """Return the notes as they were written and the shift, if the vector lengths and the file's length show one."""
    window = bytes(contents[part.offset : part.offset + part.in_file + _LARGEST_SURPLUS])
    written, end = read_notes(window, big=order == ">")
    lengths = {len(note.contents) for note in written if note.kind == NT_ARM_SVE}
    shift = part.in_file - end
    if len(lengths) < 2 or not shift or len(contents) != _expected_size(contents, parts, order) - shift:
        return None
    return written, shift


def _expected_size(contents: bytes | mmap.mmap, parts: Sequence[_Part], order: str) -> int:
    """Return where the file ends by its headers: behind its last segment, or the string table that QEMU puts there."""
    header = struct.unpack_from(order + HEADER, contents)
    at, size, count = header[6], header[11], header[12]
    section = struct.Struct(order + _SECTION)
    ends = [part.offset + part.in_file for part in parts if part.kind == PT_LOAD]
    if size == section.size and count <= _MOST_SECTIONS and at + count * size <= len(contents):
        sections = (section.unpack_from(contents, at + n * size) for n in range(count))
        ends.extend(offset + length for _, _, _, _, offset, length, *_ in sections)
    return max(ends, default=0)


_NOTE_HEADER = 12
# A note of a vector length of 2048 bits is 8768 bytes; as many CPUs as this allows for have one.
_LARGEST_SURPLUS = 1 << 24
_SECTION, _MOST_SECTIONS = "IIQQQQIIQQ", 64
