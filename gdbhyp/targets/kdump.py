"""kdump-compressed dumps: makedumpfile's, and QEMU's ``dump-guest-memory -z``, ``-l`` and ``-s``.

Blocks of ``block_size`` bytes, the size of a page: the header (``struct disk_dump_header``), the sub-header
(``struct kdump_sub_header``), two bitmaps of a bit a page frame (of what exists, and of what is in the dump), a
descriptor for each page in the dump (``struct page_desc``), and the pages, each compressed for itself (makedumpfile,
diskdump_mod.h and IMPLEMENTATION; the numbers below are byte offsets in these structures on a 64-bit machine).
"""

from __future__ import annotations

import struct
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gdbhyp.errors import BadInput, MemoryUnavailable
from gdbhyp.targets.compression import Decompress, decompressor
from gdbhyp.targets.flat import PA_LIMIT, map_file, merged
from gdbhyp.targets.flattened import MAGIC as FLATTENED
from gdbhyp.targets.flattened import Bytes, Flattened, Plain
from gdbhyp.targets.notes import Note, read_notes

MAGIC = b"KDUMP   "
_HEADER = struct.Struct("<8sI390s22s10I")
_SUB_HEADER = struct.Struct("<QIIQQQQQQQQQQQ")
_DESCRIPTOR = struct.Struct("<QIIQ")
_INCOMPLETE = 8
# Of the header's status, and of a page's flags: what compresses the pages.
_COMPRESSIONS = {1: "zlib", 2: "LZO", 4: "snappy", 0x20: "zstd"}
_COMPRESSED = sum(_COMPRESSIONS)
_SMALLEST_BLOCK, _LARGEST_BLOCK = 1 << 10, 1 << 16
_LARGEST_BITMAP = 1 << 30
_LARGEST_NOTES = 1 << 26
# Bits of a bitmap are counted once in pieces of this many bytes, and pages are kept when they have been decompressed.
_PIECE = 4096
_KEPT_BYTES = 1 << 26
_MOST_RANGES = 1 << 20

_LEFT_OUT = "it was left out of the dump when that was made"
_CUT_SHORT = "the dump is incomplete there"
_DAMAGED = "the page is damaged in the dump"


@dataclass(frozen=True)
class Kdump:
    """What a kdump-compressed file says; ``ranges`` exist in the machine, be their pages in the dump or not."""

    memory: KdumpMemory
    notes: tuple[Note, ...]
    vmcoreinfo: bytes
    form: str
    ranges: tuple[tuple[int, int], ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class _Layout:
    """Where the parts of the file are, in bytes, and which page frames it is about: ``first`` up to ``last``."""

    block: int
    exists: int
    dumped: int
    bitmap: int
    descriptors: int
    frames: int
    first: int
    last: int


def open_kdump(path: Path) -> Kdump:
    """Open a kdump-compressed dump, flattened or not.

    :raises BadInput: with a sentence, if it is damaged, or needs a package to decompress that is not installed.
    """
    contents = map_file(path)
    flattened = contents[: len(FLATTENED)] == FLATTENED
    source: Bytes = Flattened(contents, path) if flattened else Plain(contents)
    if source.at(0, len(MAGIC)) != MAGIC:
        raise BadInput(
            f"{path} is flattened, and not of a kdump-compressed dump: rearrange it with 'makedumpfile -R'"
        )
    try:
        header = _HEADER.unpack(source.at(0, _HEADER.size))
        version, (status, block, sub_blocks, bitmap_blocks, frames) = header[1], header[4:9]
        sub = _SUB_HEADER.unpack(source.at(block, _SUB_HEADER.size))
    except struct.error as error:
        raise BadInput(f"{path} is damaged: it is cut off inside its headers") from error
    layout = _layout(path, source, version, block, sub_blocks, bitmap_blocks, frames, sub)
    names = [name for flag, name in _COMPRESSIONS.items() if status & flag]
    memory = KdumpMemory(source, layout, {name: decompressor(name) for name in {*names, "zlib"}})
    incomplete = (isinstance(source, Flattened) and not source.complete) or bool(status & _INCOMPLETE)
    words = [*(names or ["not compressed"]), *(["flattened"] if flattened else [])]
    form = f"kdump-compressed ({', '.join(words)})"
    problems = (
        (f"{path} is incomplete: writing it was cut short, and some pages are missing",) if incomplete else ()
    )
    notes = source.at(sub[7], sub[8]) if version >= 4 and sub[8] <= _LARGEST_NOTES else b""
    info = source.at(sub[5], sub[6]) if version >= 3 and sub[6] <= _LARGEST_NOTES else b""
    return Kdump(memory, read_notes(notes)[0], info, form, memory.ranges(), problems)


def _layout(
    path: Path,
    source: Bytes,
    version: int,
    block: int,
    sub_blocks: int,
    bitmap_blocks: int,
    frames: int,
    sub: tuple[int, ...],
) -> _Layout:
    """Return where everything is, after a check of each number against the file."""
    if not _SMALLEST_BLOCK <= block <= _LARGEST_BLOCK or block & block - 1:
        raise BadInput(f"{path} is damaged: its blocks have {block} bytes, no size of a page")
    if version >= 6:
        frames = sub[13]
    bitmap = bitmap_blocks * block // 2
    exists = (1 + sub_blocks) * block
    descriptors = exists + 2 * bitmap
    if bitmap > _LARGEST_BITMAP or descriptors > source.size or not frames:
        raise BadInput(
            f"{path} is damaged, or cut off: it has no room for the {bitmap_blocks} blocks of its bitmaps"
        )
    # With dumps in several files, each is about a part of the page frames, and has the whole bitmaps.
    split = sub[2] if version >= 2 else 0
    first, last = ((sub[11], sub[12]) if version >= 6 else (sub[3], sub[4])) if split else (0, frames)
    frames = min(frames, 8 * bitmap, PA_LIMIT // block)
    return _Layout(block, exists, exists + bitmap, bitmap, descriptors, frames, first, min(last, frames))


class KdumpMemory:
    """A Reader over the pages of a kdump-compressed dump; pages that were decompressed are kept up to 64 MiB."""

    def __init__(self, source: Bytes, layout: _Layout, decompress: dict[str, Decompress]) -> None:
        self._source = source
        self._layout = layout
        self._decompress = decompress
        self._ranks: array[int] | None = None
        self._pages: OrderedDict[int, bytes] = OrderedDict()

    def read(self, address: int, size: int, /) -> bytes:
        """Return ``size`` bytes of physical memory.

        :raises MemoryUnavailable: if a page of them is not in the dump.
        """
        block = self._layout.block
        parts = []
        at, end = address, address + size
        while at < end:
            page = self._page(at // block)
            if isinstance(page, str):
                nowhere = page == _NOWHERE
                raise MemoryUnavailable("PA", address, size, page, at, unsaved=not nowhere)
            part = page[at % block : at % block + end - at]
            parts.append(part)
            at += len(part)
        return b"".join(parts)

    def ranges(self) -> tuple[tuple[int, int], ...]:
        """Return the physical ranges [start, end) that exist; () if they are absurdly many."""
        block = self._layout.block
        found: list[tuple[int, int]] = []
        for start, end in self._runs(self._layout.exists):
            found.append((start * block, end * block))
            if len(found) > _MOST_RANGES:
                return ()
        return merged(found)

    def held(self) -> int:
        """Return how many bytes of memory this file holds; those of pages that were left out are not among them."""
        return (self._rank(self._layout.last) - self._rank(self._layout.first)) * self._layout.block

    def _runs(self, bitmap: int) -> Iterator[tuple[int, int]]:
        """Yield the runs [first, last) of page frames whose bit is set; one at a piece's edge comes in two."""
        for at in range(0, (self._layout.frames + 7) // 8, _PIECE):
            bits = int.from_bytes(self._source.at(bitmap + at, _PIECE), "little")
            base = 8 * at
            while bits:
                skip = (bits & -bits).bit_length() - 1
                bits >>= skip
                length = (~bits & bits + 1).bit_length() - 1
                first = base + skip
                yield first, min(first + length, self._layout.frames)
                bits >>= length
                base = first + length

    def _bit(self, bitmap: int, frame: int) -> bool:
        byte = self._source.at(bitmap + frame // 8, 1)
        return bool(byte and byte[0] >> frame % 8 & 1)

    def _page(self, frame: int) -> bytes | str:
        """Return a page, or why there is none."""
        page = self._pages.get(frame)
        if page is not None:
            self._pages.move_to_end(frame)
            return page
        layout = self._layout
        if frame >= layout.frames or not self._bit(layout.exists, frame):
            return _NOWHERE
        if not layout.first <= frame < layout.last:
            return "it is in another file of this dump"
        if not self._bit(layout.dumped, frame):
            return _LEFT_OUT
        found = self._decompressed(frame)
        if isinstance(found, bytes):
            self._pages[frame] = found
            if len(self._pages) * layout.block > _KEPT_BYTES:
                self._pages.popitem(last=False)
        return found

    def _decompressed(self, frame: int) -> bytes | str:
        block = self._layout.block
        number = self._rank(frame) - self._rank(self._layout.first)
        place = self._layout.descriptors + _DESCRIPTOR.size * number
        descriptor = self._source.at(place, _DESCRIPTOR.size)
        if len(descriptor) < _DESCRIPTOR.size:
            return _CUT_SHORT
        offset, size, flags, _ = _DESCRIPTOR.unpack(descriptor)
        if not offset or offset + size > self._source.size:
            return _CUT_SHORT
        if size > 2 * block:
            return _DAMAGED
        data = self._source.at(offset, size)
        if flags & _COMPRESSED:
            name = _COMPRESSIONS.get(flags & _COMPRESSED, "")
            if name not in self._decompress:
                return f"the page is compressed in a way that the dump's header does not say ({flags:#x})"
            try:
                data = self._decompress[name](data, block)
            except ValueError:
                return _DAMAGED
        return data if len(data) == block else _DAMAGED

    def _rank(self, frame: int) -> int:
        """Return how many page frames before this one are in the dump."""
        if self._ranks is None:
            self._ranks = self._count()
        piece = frame // 8 // _PIECE
        rest = self._source.at(self._layout.dumped + piece * _PIECE, frame // 8 - piece * _PIECE + 1)
        bits = int.from_bytes(rest, "little") & (1 << frame - 8 * _PIECE * piece) - 1
        return self._ranks[piece] + bits.bit_count()

    def _count(self) -> array[int]:
        """Return how many bits of the bitmap of dumped pages are set before each of its pieces."""
        ranks = array("Q", [0])
        for at in range(0, self._layout.bitmap, _PIECE):
            bits = int.from_bytes(self._source.at(self._layout.dumped + at, _PIECE), "little")
            ranks.append(ranks[-1] + bits.bit_count())
        return ranks


_NOWHERE = "the machine has no memory there"
