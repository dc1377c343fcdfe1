"""A bit field as the Arm ARM prints it: ``[msb:lsb]``, declared once and then called on a value."""

from __future__ import annotations


class Bits:
    """The field ``[msb:lsb]``; calling it on a register value gives the field, right-aligned.

    >>> T0SZ = Bits(5, 0)
    >>> T0SZ(0x80803519)
    25
    """

    __slots__ = ("lsb", "mask", "msb")

    def __init__(self, msb: int, lsb: int) -> None:
        self.msb = msb
        self.lsb = lsb
        self.mask = (1 << (msb - lsb + 1)) - 1

    def __call__(self, value: int) -> int:
        return value >> self.lsb & self.mask

    def put(self, field: int) -> int:
        """Return a register value that holds ``field`` here and 0 elsewhere."""
        return (field & self.mask) << self.lsb

    @property
    def in_place(self) -> int:
        """The mask of the field where it stands in the register."""
        return self.mask << self.lsb


def bit(position: int) -> Bits:
    """The one-bit field ``[position]``."""
    return Bits(position, position)


def ones(count: int) -> int:
    """``count`` ones: the mask of an address of that many bits."""
    return (1 << count) - 1
