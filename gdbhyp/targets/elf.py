"""ELF core dumps as physical memory: QEMU's ``dump-guest-memory``, /proc/vmcore, ``virsh dump --memory-only``.

A PT_LOAD segment says by p_paddr where its bytes stand in physical memory (System V ABI, "Program Header").
"""

from __future__ import annotations

import mmap
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from gdbhyp.errors import BadInput
from gdbhyp.targets.flat import FlatMemory, Segment, map_file

MAGIC = b"\x7fELF"
_AARCH64 = "EM_AARCH64"


def open_elf(path: Path) -> FlatMemory:
    """Open an ELF core; bytes that a segment claims and the file does not have are absent from memory.

    :raises BadInput: with a sentence, if it is no AArch64 ELF file with segments at physical addresses.
    """
    contents = map_file(path)
    try:
        with path.open("rb") as file:
            elf = ELFFile(file)
            if elf["e_machine"] != _AARCH64:
                raise BadInput(f"{path} is an ELF file of {elf['e_machine']}, not of AArch64")
            headers = [s.header for s in elf.iter_segments() if s.header.p_type == "PT_LOAD"]
    except (ELFError, OSError, ValueError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is a damaged ELF file: {error or type(error).__name__}") from error
    segments = [_segment(contents, h.p_paddr, h.p_offset, h.p_filesz) for h in headers]
    present = [s for s in segments if len(s.data)]
    if not present:
        raise BadInput(f"{path} has no memory in it: no PT_LOAD segment with contents")
    return FlatMemory(present)


def _segment(contents: bytes | mmap.mmap, address: int, offset: int, size: int) -> Segment:
    return Segment(address, memoryview(contents)[offset : offset + size])
