"""Raw images of physical memory, each at its address; several make one machine."""

from __future__ import annotations

import mmap
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gdbhyp.errors import BadInput, MemoryUnavailable

PA_LIMIT = 1 << 56
"""Physical addresses have at most 56 bits (FEAT_D128)."""


@dataclass(frozen=True)
class Segment:
    """The bytes of ``data`` stand at physical address ``start``."""

    start: int
    data: bytes | mmap.mmap | memoryview

    @property
    def end(self) -> int:
        """The address behind the last byte."""
        return self.start + len(self.data)


@dataclass(frozen=True)
class Gap:
    """The machine has memory from ``start`` to ``end`` (exclusive) whose contents are not known, and why."""

    start: int
    end: int
    reason: str


_NOWHERE = "it is in none of the given files"


class FlatMemory:
    """A Reader over segments of physical memory that do not overlap.

    ``gaps`` says what is missing between them, and ``nowhere`` why there is nothing at any other address.
    """

    def __init__(
        self, segments: Sequence[Segment], gaps: Sequence[Gap] = (), nowhere: str = _NOWHERE
    ) -> None:
        self._segments = sorted(segments, key=lambda s: s.start)
        self._starts = [s.start for s in self._segments]
        self._gaps = sorted(gaps, key=lambda gap: gap.start)
        self._nowhere = nowhere
        self._gap_starts = [gap.start for gap in self._gaps]
        for left, right in zip(self._segments, self._segments[1:], strict=False):
            if right.start < left.end:
                raise BadInput(
                    f"two images overlap at PA {right.start:#x}: say which one holds, by other addresses or fewer files"
                )

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """The physical ranges [start, end) that have contents, ascending; neighbours are one."""
        return merged((s.start, s.end) for s in self._segments)

    def within(self, ram: Sequence[tuple[int, int]], left_out: str) -> FlatMemory:
        """Return the same where it is known what memory the machine has, and why some of it may have no contents."""
        gaps = [Gap(start, end, left_out) for start, end in ram]
        return FlatMemory(self._segments, gaps, "the machine has no memory there")

    def read(self, address: int, size: int, /) -> bytes:
        """Return ``size`` bytes of physical memory, also across adjacent images.

        :raises MemoryUnavailable: if one of them is in no image.
        """
        position = bisect_right(self._starts, address) - 1
        if position >= 0:
            segment = self._segments[position]
            offset = address - segment.start
            data = bytes(segment.data[offset : offset + size])
            if len(data) == size:
                return data
        return self._read_across(address, size)

    def _read_across(self, address: int, size: int) -> bytes:
        parts = []
        at = address
        while at < address + size:
            position = bisect_right(self._starts, at) - 1
            segment = self._segments[position] if position >= 0 else None
            if segment is None or at >= segment.end:
                raise self._missing(address, size, at)
            offset = at - segment.start
            part = bytes(segment.data[offset : offset + address + size - at])
            parts.append(part)
            at += len(part)
        return b"".join(parts)

    def _missing(self, address: int, size: int, at: int) -> MemoryUnavailable:
        position = bisect_right(self._gap_starts, at) - 1
        if position >= 0 and at < self._gaps[position].end:
            return MemoryUnavailable("PA", address, size, self._gaps[position].reason, at, unsaved=True)
        return MemoryUnavailable("PA", address, size, self._nowhere, at)


def merged(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return [start, end) ranges ascending, with what touches or overlaps made one."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        elif start < end:
            found.append((start, end))
    return tuple(found)


def open_image(text: str) -> Segment:
    """Open ``FILE@ADDRESS``, with the physical address in hexadecimal.

    :raises BadInput: with a sentence, if the file cannot be read or the address is none.
    """
    name, separator, place = text.rpartition("@")
    if not separator or not name:
        raise BadInput(
            f"'{text}' is not FILE@ADDRESS: say at which physical address the file's first byte stands"
        )
    try:
        address = int(place, 16)
    except ValueError:
        raise BadInput(f"'{place}' in '{text}' is not a hexadecimal address") from None
    if not 0 <= address < PA_LIMIT:
        raise BadInput(f"{place} in '{text}' is not a physical address: they have at most 56 bits")
    return Segment(address, map_file(Path(name)))


def map_file(path: Path) -> bytes | mmap.mmap:
    """Return a file's contents without reading them.

    :raises BadInput: if it cannot be opened.
    """
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                return b""
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BadInput(f"cannot read {path}: {reason}") from error
