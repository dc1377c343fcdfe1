"""The notes of an ELF core: what a dump says besides memory.

A note is a name, a type and contents (System V ABI, "Note Section"). Those that are read here: NT_PRSTATUS of "CORE",
one a CPU (Linux, include/linux/elfcore.h, ``struct elf_prstatus``, with arm64's ``struct user_pt_regs``); "VMCOREINFO",
lines of KEY=VALUE (Linux, Documentation/admin-guide/kdump/vmcoreinfo.rst); "gdbhyp", a snapshot's (see ``snapshot``).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from gdbhyp.errors import BadInput

NT_PRSTATUS = 1
NT_ARM_SVE = 0x405
_HEADER = struct.Struct("<III")
_BIG_HEADER = struct.Struct(">III")
MOST_NOTES = 1 << 17
_LONGEST_NAME = 32

# elf_prstatus: 112 bytes of signal and process data, x0 to x30, sp, pc, pstate, and pr_fpvalid.
PRSTATUS_REGISTERS = 112
PRSTATUS_SIZE = 392
PRSTATUS_PID = 32
REGISTER_ORDER = (*(f"X{n}" for n in range(31)), "SP", "PC", "CPSR")
_MOST_LINES = 1 << 16


@dataclass(frozen=True)
class Note:
    """One note; ``name`` is without its NUL."""

    name: str
    kind: int
    contents: bytes


def read_notes(data: bytes, *, big: bool = False) -> tuple[tuple[Note, ...], int]:
    """Return the notes at the beginning of ``data``, and where what is no note begins.

    A note has a printable owner, and contents that end inside ``data``.
    """
    header = _BIG_HEADER if big else _HEADER
    found: list[Note] = []
    at = 0
    while at + header.size <= len(data) and len(found) < MOST_NOTES:
        name_size, size, kind = header.unpack_from(data, at)
        name_at = at + header.size
        contents_at = name_at + _aligned(name_size)
        name = data[name_at : name_at + min(name_size, _LONGEST_NAME)]
        if contents_at + size > len(data) or not _is_owner(name):
            break
        found.append(Note(name[:-1].decode(), kind, data[contents_at : contents_at + size]))
        at = contents_at + _aligned(size)
    return tuple(found), at


def _is_owner(name: bytes) -> bool:
    return name[-1:] == b"\0" and name[:-1].isalnum()


def note(name: str, kind: int, contents: bytes) -> bytes:
    """Return the bytes of a note, padded."""
    owner = name.encode() + b"\0"
    return _HEADER.pack(len(owner), len(contents), kind) + _padded(owner) + _padded(contents)


def _aligned(size: int) -> int:
    return size + 3 & ~3


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def cpu_registers(contents: bytes, path: object, *, big: bool = False) -> dict[str, int]:
    """Return X0 to X30, SP, PC and CPSR of an NT_PRSTATUS note.

    :raises BadInput: if the note is too short for an AArch64 CPU's.
    """
    count = len(REGISTER_ORDER)
    if len(contents) < PRSTATUS_REGISTERS + 8 * count:
        raise BadInput(f"{path} is damaged: an NT_PRSTATUS note has {len(contents)} bytes, AArch64's has 392")
    values = struct.unpack_from(f"{'>' if big else '<'}{count}Q", contents, PRSTATUS_REGISTERS)
    return dict(zip(REGISTER_ORDER, values, strict=True))


def prstatus(cpu: int, registers: Mapping[str, int]) -> bytes:
    """Return the NT_PRSTATUS note of a CPU; a register that is not known is 0 in it."""
    contents = bytearray(PRSTATUS_SIZE)
    struct.pack_into("<I", contents, PRSTATUS_PID, cpu + 1)
    values = [registers.get(name, 0) for name in REGISTER_ORDER]
    struct.pack_into(f"<{len(values)}Q", contents, PRSTATUS_REGISTERS, *values)
    return note("CORE", NT_PRSTATUS, bytes(contents))


def vmcoreinfo(contents: bytes) -> dict[str, str]:
    """Return the lines of a VMCOREINFO note by their keys, ``{"SYMBOL(swapper_pg_dir)": "ffff…"}``."""
    lines = contents.rstrip(b"\0").decode("utf-8", "replace").split("\n", _MOST_LINES)
    pairs = (line.partition("=") for line in lines[:_MOST_LINES])
    return {key: value for key, found, value in pairs if found}
