"""makedumpfile's flattened format: a file as a list of pieces, for writing where seeking is not possible.

A header of 4096 bytes, ``signature[16] = "makedumpfile"``, then ``type = 1`` and ``version = 1`` as big-endian 64-bit
numbers; then pieces, each ``offset`` and ``size`` as big-endian 64-bit numbers and the bytes; a piece with offset and
size -1 ends the list (makedumpfile, makedumpfile.h, ``struct makedumpfile_header``). A later piece overwrites an
earlier one. QEMU writes its kdump-compressed files this way.
"""

from __future__ import annotations

import heapq
import mmap
import struct
from array import array
from bisect import bisect_right
from pathlib import Path
from typing import Protocol

from gdbhyp.errors import BadInput

MAGIC = b"makedumpfile\0\0\0\0"
_HEADER_SIZE = 4096
_PIECE = struct.Struct(">qq")
_KIND = struct.Struct(">qq")
_END = (-1, -1)
_MOST_PIECES = 1 << 24


class Bytes(Protocol):
    """The bytes of a file, wherever they are."""

    @property
    def size(self) -> int:
        """The size of the file."""
        ...

    def at(self, offset: int, size: int) -> bytes:
        """Return ``size`` bytes at ``offset``, fewer where the file ends before."""
        ...


class Plain:
    """A file as it is."""

    def __init__(self, contents: bytes | mmap.mmap) -> None:
        self._contents = contents
        self.size = len(contents)

    def at(self, offset: int, size: int) -> bytes:
        return bytes(self._contents[offset : offset + size])


class Flattened:
    """The file that the pieces of a flattened one make; between pieces are zeros."""

    def __init__(self, contents: bytes | mmap.mmap, path: Path) -> None:
        self._contents = contents
        if contents[len(MAGIC) : len(MAGIC) + _KIND.size] != _KIND.pack(1, 1):
            raise BadInput(f"{path} is damaged, or flattened in a way that is not known")
        offsets, sizes, places, self.complete = _pieces(contents, path)
        self._offsets, self._sizes, self._places = _without_overlaps(offsets, sizes, places)
        self.size = self._offsets[-1] + self._sizes[-1] if self._offsets else 0

    def at(self, offset: int, size: int) -> bytes:
        parts = []
        end = min(offset + size, self.size)
        index = bisect_right(self._offsets, offset) - 1
        while offset < end:
            within = offset - self._offsets[index] if index >= 0 else 0
            if index >= 0 and within < self._sizes[index]:
                length = min(end - offset, self._sizes[index] - within)
                place = self._places[index] + within
                parts.append(bytes(self._contents[place : place + length]))
            else:
                index += 1
                length = min(end, self._offsets[index]) - offset
                parts.append(bytes(length))
            offset += length
        return b"".join(parts)


def _pieces(contents: bytes | mmap.mmap, path: Path) -> tuple[array[int], array[int], array[int], bool]:
    """Return offset, size and place of each piece in the order of the file, and whether the list has its end."""
    offsets, sizes, places = array("Q"), array("Q"), array("Q")
    at = _HEADER_SIZE
    while at + _PIECE.size <= len(contents):
        offset, size = _PIECE.unpack_from(contents, at)
        if (offset, size) == _END:
            return offsets, sizes, places, True
        at += _PIECE.size
        if offset < 0 or size <= 0 or len(offsets) >= _MOST_PIECES:
            raise BadInput(f"{path} is damaged: a piece of {size} bytes for offset {offset} at byte {at}")
        offsets.append(offset)
        sizes.append(min(size, len(contents) - at))
        places.append(at)
        at += size
    return offsets, sizes, places, False


def _without_overlaps(
    offsets: array[int], sizes: array[int], places: array[int]
) -> tuple[array[int], array[int], array[int]]:
    """Sort pieces by offset and cut from each what a later one overwrites."""
    waiting = [(offset, -order, sizes[order], places[order]) for order, offset in enumerate(offsets)]
    heapq.heapify(waiting)
    found: list[tuple[int, int, int, int]] = []
    while waiting:
        piece = heapq.heappop(waiting)
        offset, order, size, place = piece
        if found and found[-1][0] + found[-1][2] > offset:
            last_offset, last_order, last_size, last_place = found[-1]
            if last_order < order:
                # The piece before was written later: what it covers of this one is gone.
                cut = last_offset + last_size - offset
                if cut < size:
                    heapq.heappush(waiting, (offset + cut, order, size - cut, place + cut))
                continue
            rest = last_offset + last_size - (offset + size)
            found[-1] = (last_offset, last_order, offset - last_offset, last_place)
            if rest > 0:
                skipped = last_size - rest
                heapq.heappush(waiting, (last_offset + skipped, last_order, rest, last_place + skipped))
            if found[-1][2] == 0:
                found.pop()
        found.append(piece)
    return (
        array("Q", (piece[0] for piece in found)),
        array("Q", (piece[2] for piece in found)),
        array("Q", (piece[3] for piece in found)),
    )
