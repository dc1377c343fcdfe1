"""kdump-compressed, flattened and LiME files as tests want them, made byte by byte."""

from __future__ import annotations

import importlib
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from support import tools

BLOCK = 1024
ZLIB, LZO, SNAPPY, ZSTD = 1, 2, 4, 0x20


def compressor(flag: int) -> Callable[[bytes], bytes]:
    """Return what compresses a page for a flag of the format."""
    if flag == LZO:
        lzo = _package("lzallright").LZOCompressor()
        return lambda page: bytes(lzo.compress(page))
    if flag in (SNAPPY, ZSTD):
        cramjam = _package("cramjam")
        compress = cramjam.snappy.compress_raw if flag == SNAPPY else cramjam.zstd.compress
        return lambda page: bytes(compress(page))
    return zlib.compress


def _package(name: str) -> Any:
    """Import a package of the extra 'kdump'; without it a test is skipped, or fails in CI."""
    try:
        return importlib.import_module(name)
    except ImportError:
        tools.missing(f"{name} (the extra 'kdump')")
        raise


def kdump(
    path: Path,
    segments: Mapping[int, bytes],
    *,
    flag: int = ZLIB,
    notes: bytes = b"",
    left_out: frozenset[int] = frozenset(),
    split: tuple[int, int] | None = None,
    status: int | None = None,
) -> str:
    """Write a dump of segments that are whole blocks; ``left_out`` are page frames that exist and are filtered.

    ``split`` is the range of page frames that this file of several has.
    """
    pages = {
        (start + at) // BLOCK: data[at : at + BLOCK]
        for start, data in segments.items()
        for at in range(0, len(data), BLOCK)
    }
    frames = max(pages, default=0) + 1
    bitmap_blocks = frames // (8 * BLOCK) + 1
    exists, dumped = bytearray(bitmap_blocks * BLOCK), bytearray(bitmap_blocks * BLOCK)
    for frame in pages:
        exists[frame // 8] |= 1 << frame % 8
        if frame not in left_out:
            dumped[frame // 8] |= 1 << frame % 8
    first, last = split or (0, 0)
    written = [f for f in sorted(pages) if f not in left_out and (split is None or first <= f < last)]
    descriptors_at = (2 + 2 * bitmap_blocks) * BLOCK
    notes_at = descriptors_at + 24 * len(written)
    at = notes_at + len(notes)
    descriptors, contents = b"", b""
    for frame in written:
        packed = compressor(flag)(pages[frame])
        used = flag if len(packed) < BLOCK else 0
        packed = packed if used else pages[frame]
        descriptors += struct.pack("<QIIQ", at + len(contents), len(packed), used, 0)
        contents += packed
    header = struct.pack("<8sI390s22s", b"KDUMP   ", 6, b"Linux", b"")
    header += struct.pack(
        "<10I", flag if status is None else status, BLOCK, 1, 2 * bitmap_blocks, 0, 0, 0, 0, 0, 1
    )
    sub_header = struct.pack("<QII4Q", 0, 0, split is not None, 0, 0, 0, 0)
    sub_header += struct.pack("<7Q", notes_at, len(notes), 0, 0, first, last, frames)
    blocks = (header.ljust(BLOCK, b"\0"), sub_header.ljust(BLOCK, b"\0"), bytes(exists), bytes(dumped))
    path.write_bytes(b"".join([*blocks, descriptors, notes, contents]))
    return str(path)


def flatten(path: Path, pieces: list[tuple[int, bytes]], *, end: bool = True) -> str:
    """Write pieces (offset, bytes) as a flattened file."""
    header = struct.pack(">16sqq", b"makedumpfile", 1, 1).ljust(4096, b"\0")
    body = b"".join(struct.pack(">qq", offset, len(data)) + data for offset, data in pieces)
    path.write_bytes(header + body + (struct.pack(">qq", -1, -1) if end else b""))
    return str(path)


def lime(path: Path, segments: Mapping[int, bytes]) -> str:
    """Write a LiME file."""
    headers = ((struct.pack("<4sIQQ8x", b"EMiL", 1, s, s + len(d) - 1), d) for s, d in segments.items())
    path.write_bytes(b"".join(header + data for header, data in headers))
    return str(path)
