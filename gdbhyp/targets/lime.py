"""LiME: ranges of physical memory one behind the other, each with a header.

The header, little-endian: ``magic = 0x4C694D45``, ``version = 1``, the first and the last physical address, and eight
reserved bytes (LiME, doc/README.md, "LiME Memory Range Header").
"""

from __future__ import annotations

import struct
from pathlib import Path

from gdbhyp.errors import BadInput
from gdbhyp.targets.flat import PA_LIMIT, FlatMemory, Gap, Segment, map_file

MAGIC = b"EMiL"
_HEADER = struct.Struct("<4sIQQ8s")
_MOST_RANGES = 1 << 20


def open_lime(path: Path) -> tuple[FlatMemory, tuple[str, ...]]:
    """Open a LiME file; return its memory, and sentences about what is missing.

    :raises BadInput: with a sentence, if a header is damaged.
    """
    view = memoryview(map_file(path))
    segments: list[Segment] = []
    gaps: list[Gap] = []
    missing = at = 0
    while at < len(view):
        header = view[at : at + _HEADER.size]
        if len(header) < _HEADER.size:
            raise BadInput(f"{path} is damaged: it is cut off inside a range's header")
        magic, version, first, last, _ = _HEADER.unpack(header)
        if magic != MAGIC or version != 1 or not first <= last < PA_LIMIT or len(segments) >= _MOST_RANGES:
            raise BadInput(f"{path} is damaged: what is at byte {at} is no header of a LiME range")
        data = view[at + _HEADER.size : at + _HEADER.size + last + 1 - first]
        segments.append(Segment(first, data))
        at += _HEADER.size + last + 1 - first
        if at > len(view):
            missing = at - len(view)
            gaps.append(Gap(first + len(data), last + 1, "the file is cut short there"))
    problems = (
        (f"{path} is cut short: {missing} bytes of memory that it claims are missing",) if missing else ()
    )
    return FlatMemory(segments, gaps), problems
