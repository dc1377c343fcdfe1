"""Writing ELF cores of a machine: all at once under their final name, or not at all.

Memory is written as it is read, so that headers come last: the file is | ELF header | memory | notes | program headers
| (a section header, if there are more program headers than the ELF header can count) |. Pages of zeros are holes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gdbhyp.engine.machine import Reader
from gdbhyp.errors import GdbhypError, MemoryUnavailable
from gdbhyp.targets.elf import EM_AARCH64, ET_CORE, HEADER, MAGIC, PN_XNUM, PROGRAM_HEADER, PT_LOAD, PT_NOTE

Progress = Callable[[int, int], None]
Seen = Callable[[int, bytes], None]
_CHUNK = 1 << 16
_PAGE = 4096
_HEADER = struct.Struct("<" + HEADER)
_PROGRAM_HEADER = struct.Struct("<" + PROGRAM_HEADER)
_SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
_READ_WRITE_EXECUTE = 7
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Mapped:
    """``size`` bytes of physical memory at ``pa`` that a debugger shall find at ``va``."""

    va: int
    pa: int
    size: int


@dataclass(frozen=True)
class Written:
    """What was written: the file's size, and the physical ranges that could not be read, with the reason."""

    size: int
    unread: tuple[tuple[int, int, str], ...]


@dataclass(frozen=True)
class _Load:
    """A PT_LOAD segment: ``size`` bytes of the file at ``offset``."""

    offset: int
    va: int
    pa: int
    size: int


def _not_looked_at(address: int, data: bytes, /) -> None:
    pass


def write_core(
    path: Path,
    memory: Reader,
    ranges: Sequence[tuple[int, int]],
    notes: Callable[[], bytes],
    mapped: Sequence[Mapped],
    progress: Progress,
    seen: Seen = _not_looked_at,
) -> Written:
    """Write ``ranges`` [start, end) of physical memory with ``notes()`` to ``path``, which is replaced if it exists.

    ``progress(done, total)`` is told bytes of memory, and ``seen(address, data)`` each piece of memory that is not
    zeros, before the notes are asked for. Whatever goes wrong, Ctrl-C included, there is no file of half
    the contents.

    :raises GdbhypError: with a sentence, if the file cannot be written.
    """
    if path.exists() and not path.is_file():
        raise GdbhypError(f"{path} is no regular file, which a snapshot has to be: choose another name")
    needed = sum(end - start for start, end in ranges)
    try:
        with _whole_or_nothing(path) as file:
            return _write(file, memory, ranges, notes, mapped, progress, seen)
    except OSError as error:
        reason = error.strerror
        if error.errno in _FULL:
            free = shutil.disk_usage(path.parent).free
            reason = f"{reason}; it can take {needed:,} bytes, and {free:,} are free there"
        raise GdbhypError(f"cannot write {path}: {reason}") from error


@contextlib.contextmanager
def _whole_or_nothing(path: Path) -> Iterator[BinaryIO]:
    """Open a file beside ``path`` that only its owner may read, and rename it when all of it is on the disk."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _write(
    file: BinaryIO,
    memory: Reader,
    ranges: Sequence[tuple[int, int]],
    notes: Callable[[], bytes],
    mapped: Sequence[Mapped],
    progress: Progress,
    seen: Seen,
) -> Written:
    file.seek(_PAGE)
    loads, unread = _write_memory(file, memory, ranges, progress, seen)
    notes_at = file.tell()
    notes_size = file.write(notes())
    headers = [_PROGRAM_HEADER.pack(PT_NOTE, 0, notes_at, 0, 0, notes_size, 0, 4)]
    headers.extend(
        _PROGRAM_HEADER.pack(
            PT_LOAD, _READ_WRITE_EXECUTE, load.offset, load.va, load.pa, load.size, load.size, _PAGE
        )
        for load in (*_views(loads, mapped), *loads)
    )
    headers_at = file.tell()
    file.write(b"".join(headers))
    sections_at = file.tell() if len(headers) >= PN_XNUM else 0
    if sections_at:
        file.write(_SECTION_HEADER.pack(0, 0, 0, 0, 0, 0, 0, len(headers), 0, 0))
    size = file.tell()
    file.seek(0)
    file.write(_elf_header(headers_at, len(headers), sections_at))
    return Written(size, tuple(unread))


def _elf_header(headers_at: int, count: int, sections_at: int) -> bytes:
    ident = MAGIC + bytes((2, 1, 1))
    shown = min(count, PN_XNUM)
    sections = (_SECTION_HEADER.size, 1, 0) if sections_at else (0, 0, 0)
    return _HEADER.pack(
        ident,
        ET_CORE,
        EM_AARCH64,
        1,
        0,
        headers_at,
        sections_at,
        0,
        _HEADER.size,
        _PROGRAM_HEADER.size,
        shown,
        *sections,
    )


def _write_memory(
    file: BinaryIO, memory: Reader, ranges: Sequence[tuple[int, int]], progress: Progress, seen: Seen
) -> tuple[list[_Load], list[tuple[int, int, str]]]:
    """Write all ranges one behind the other; return where they are, and what could not be read."""
    total = sum(end - start for start, end in ranges)
    loads: list[_Load] = []
    unread: list[tuple[int, int, str]] = []
    done = 0
    for start, end in ranges:
        at = start
        while at < end:
            size = min(_CHUNK - at % _CHUNK, end - at)
            offset = file.tell()
            read = _write_chunk(file, memory, at, size, seen)
            if isinstance(read, str):
                unread.append((at, at + size, read))
            elif loads and (loads[-1].pa + loads[-1].size, loads[-1].offset + loads[-1].size) == (at, offset):
                loads[-1] = _Load(loads[-1].offset, loads[-1].va, loads[-1].pa, loads[-1].size + size)
            else:
                loads.append(_Load(offset, at, at, size))
            at += size
            done += size
            progress(done, total)
    return loads, unread


def _write_chunk(file: BinaryIO, memory: Reader, address: int, size: int, seen: Seen) -> str | None:
    """Write ``size`` bytes, those of zeros as a hole; return why they cannot be read, None if they can."""
    try:
        data = memory.read(address, size)
    except MemoryUnavailable as error:
        return error.reason
    if data == _ZEROS[:size]:
        file.seek(size, os.SEEK_CUR)
    else:
        file.write(data)
        seen(address, data)
    return None


_ZEROS = bytes(_CHUNK)


def _views(loads: Sequence[_Load], mapped: Sequence[Mapped]) -> Iterator[_Load]:
    """Yield segments by which a debugger finds what is written at virtual addresses."""
    for view in mapped:
        for load in loads:
            start, end = max(view.pa, load.pa), min(view.pa + view.size, load.pa + load.size)
            if start < end:
                yield _Load(load.offset + start - load.pa, view.va + start - view.pa, start, end - start)
