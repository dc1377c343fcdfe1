"""ELF cores as tests want them: made here byte by byte, so that no writer of ours vouches for a reader of ours."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

CORE, AARCH64 = 4, 183
PT_LOAD, PT_NOTE = 1, 4


def note(name: bytes, kind: int, contents: bytes) -> bytes:
    """Return a note with its padding."""
    owner = name + b"\0"
    padded = owner + bytes(-len(owner) % 4) + contents + bytes(-len(contents) % 4)
    return struct.pack("<III", len(owner), len(contents), kind) + padded


def prstatus(x0: int, pc: int, sp: int, pstate: int) -> bytes:
    """Return the NT_PRSTATUS note of a CPU: 112 bytes, X0 to X30, SP, PC, PSTATE, and whether there is an FPU."""
    registers = struct.pack("<34Q", x0, *range(1, 31), sp, pc, pstate)
    return note(b"CORE", 1, bytes(112) + registers + bytes(8))


def core(
    path: Path,
    segments: Mapping[int, bytes] | Sequence[tuple[int, bytes, int]],
    notes: bytes = b"",
    machine: int = AARCH64,
) -> str:
    r"""Write an ELF core of (physical address, contents, size in memory) segments.

    file:  | ELF header | PT_NOTE | PT_LOAD ... | notes | contents of each segment |
    """
    if isinstance(segments, Mapping):
        segments = [(start, data, len(data)) for start, data in segments.items()]
    count = 1 + len(segments)
    at = 64 + 56 * count
    headers = [struct.pack("<IIQQQQQQ", PT_NOTE, 0, at, 0, 0, len(notes), 0, 4)]
    at += len(notes)
    for start, data, size in segments:
        headers.append(struct.pack("<IIQQQQQQ", PT_LOAD, 7, at, 0, start, len(data), size, 0))
        at += len(data)
    ident = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        *(CORE, machine, 1, 0, 64, 0, 0, 64, 56, count, 0, 0, 0),
    )
    path.write_bytes(b"".join([ident, *headers, notes, *(data for _, data, _ in segments)]))
    return str(path)
