"""Raw images of physical memory, each at its address; several make one machine."""

from __future__ import annotations

import mmap
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gdbhyp.errors import BadInput, MemoryUnavailable

_PA_LIMIT = 1 << 56


@dataclass(frozen=True)
class Segment:
    """The bytes of ``data`` stand at physical address ``start``."""

    start: int
    data: bytes | mmap.mmap | memoryview

    @property
    def end(self) -> int:
        """The address behind the last byte."""
        return self.start + len(self.data)


class FlatMemory:
    """A Reader over segments of physical memory that do not overlap."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._segments = sorted(segments, key=lambda s: s.start)
        self._starts = [s.start for s in self._segments]
        for left, right in zip(self._segments, self._segments[1:], strict=False):
            if right.start < left.end:
                raise BadInput(
                    f"two images overlap at PA {right.start:#x}: say which one holds, by other addresses or fewer files"
                )

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """The addresses that there is memory at, as (start, end) with the end exclusive, ascending."""
        return tuple((s.start, s.end) for s in self._segments)

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
                raise MemoryUnavailable("PA", address, size, "it is in none of the given files", at)
            offset = at - segment.start
            part = bytes(segment.data[offset : offset + address + size - at])
            parts.append(part)
            at += len(part)
        return b"".join(parts)


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
    if not 0 <= address < _PA_LIMIT:
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
