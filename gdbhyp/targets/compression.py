"""Decompression of one page, which can never become more than a page."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from gdbhyp.errors import BadInput

Decompress = Callable[[bytes, int], bytes]
"""Return at most ``size`` + 1 bytes of what the data holds; ValueError if it is damaged."""


def _zlib(data: bytes, size: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, size + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error


def _lzo() -> Decompress:
    from lzallright import LZOCompressor, LZOError

    def decompress(data: bytes, size: int) -> bytes:
        try:
            # The hint is no limit: a page of a hundred bytes may say that it is longer than a page.
            return bytes(LZOCompressor.decompress(data, output_size_hint=size))[: size + 1]
        except LZOError as error:
            raise ValueError(str(error)) from error

    return decompress


def _snappy() -> Decompress:
    from cramjam import snappy

    return _into(snappy.decompress_raw_into)


def _zstd() -> Decompress:
    from cramjam import zstd

    return _into(zstd.decompress_into)


def _into(fill: Callable[[bytes, bytearray], int]) -> Decompress:
    """Return what decompresses into a page with one of cramjam's functions."""
    from cramjam import DecompressionError

    def decompress(data: bytes, size: int) -> bytes:
        page = bytearray(size)
        try:
            return bytes(page[: fill(data, page)])
        except DecompressionError as error:
            raise ValueError(str(error)) from error

    return decompress


_EXTRA = {"LZO": _lzo, "snappy": _snappy, "zstd": _zstd}


def decompressor(name: str) -> Decompress:
    """Return what decompresses pages of "zlib", "LZO", "snappy" or "zstd".

    :raises BadInput: if it needs a package that is not installed.
    """
    if name == "zlib":
        return _zlib
    try:
        return _EXTRA[name]()
    except ImportError as error:
        raise BadInput(f"pages are compressed with {name}: install 'gdbhyp[kdump]' to read them") from error
