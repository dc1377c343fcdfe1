"""Sizes in the units that people use."""

from __future__ import annotations


def size_text(size: int) -> str:
    """Return a size in bytes in the largest binary unit that divides it.

    >>> size_text(2 << 20), size_text(6 << 10), size_text(100)
    ('2 MiB', '6 KiB', '100 bytes')
    """
    for shift, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size and size % (1 << shift) == 0:
            return f"{size >> shift} {unit}"
    return f"{size} bytes"
