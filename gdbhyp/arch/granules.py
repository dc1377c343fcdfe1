"""The geometry of a walk: granules, levels, table sizes, and where an address sits in a descriptor.

Source: Arm ARM (DDI 0487) D8.2 and D8.3 (VMSAv8-64 translation table formats); Arm's ASL v9.4
``TGxGranuleBits``, ``TranslationSize``, ``AArch64_LeafBase``, ``AArch64_NextTableBase``,
``AArch64_BlockDescSupported``, ``AArch64_S1StartLevel``, ``ContiguousSize``. FEAT_D128 is not modelled.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from gdbhyp.arch.fields import Bits, ones

FINAL_LEVEL = 3
DESCRIPTOR_BITS = 3
"""log2 of the eight bytes of a descriptor."""

TG0_GRANULE: dict[int, int] = {0b00: 12, 0b01: 16, 0b10: 14}
"""Granule in address bits by TCR_ELx.TG0 and VTCR_EL2.TG0; 0b11 is reserved."""

TG1_GRANULE: dict[int, int] = {0b10: 12, 0b11: 16, 0b01: 14}
"""Granule in address bits by TCR_ELx.TG1, whose encoding differs; 0b00 is reserved."""

# Output and table addresses: bits [47:granule] stand in place; where bits [51:48] stand depends on the
# format.
_LOW_ADDRESS_TOP = 47
_LPA_HIGH = Bits(15, 12)  # 64 KiB with FEAT_LPA: descriptor [15:12] is address [51:48]
_DS_IN_PLACE = Bits(49, 48)  # DS: descriptor [49:48] in place...
_DS_HIGH = Bits(9, 8)  # ...and [9:8] is address [51:50]
_ADDRESS_48 = 48
_ADDRESS_50 = 50

CONTIGUOUS_BITS: dict[tuple[int, int], int] = {
    (12, 1): 4,
    (12, 2): 4,
    (12, 3): 4,
    (14, 2): 5,
    (14, 3): 7,
    (16, 2): 5,
    (16, 3): 5,
}
"""log2 of how many entries the contiguous bit joins, by granule and level; levels that are not here ignore
it.
"""


class Format(NamedTuple):
    """Where an address sits in a descriptor: ``descriptor & in_place | (descriptor & high) << high_shift``."""

    in_place: int
    high: int
    high_shift: int

    def address(self, descriptor: int) -> int:
        """The next-level table address of a table descriptor."""
        return descriptor & self.in_place | (descriptor & self.high) << self.high_shift


class Level(NamedTuple):
    """One lookup: ``(address >> shift) & index_mask`` is the byte offset of the descriptor in its table.

    ``block`` says whether a block descriptor is allowed here; ``leaf_mask`` are the descriptor bits that
    stand in place in a leaf's output address, ``offset_mask`` the input bits that it takes over.
    """

    level: int
    shift: int
    index_mask: int
    block: bool
    leaf_mask: int
    offset_mask: int


def address_format(granule: int, ds: bool, lpa: bool) -> Format:
    """The table-address format of a granule; ``lpa`` (FEAT_LPA) matters to 64 KiB only, ``ds`` to the others."""
    in_place = Bits(_LOW_ADDRESS_TOP, granule).in_place
    if granule == 16:
        return (
            Format(in_place, _LPA_HIGH.in_place, _ADDRESS_48 - _LPA_HIGH.lsb)
            if lpa
            else Format(in_place, 0, 0)
        )
    if ds:
        return Format(in_place | _DS_IN_PLACE.in_place, _DS_HIGH.in_place, _ADDRESS_50 - _DS_HIGH.lsb)
    return Format(in_place, 0, 0)


def stride(granule: int) -> int:
    """Address bits that one level of a granule resolves."""
    return granule - DESCRIPTOR_BITS


def leaf_bits(granule: int, level: int) -> int:
    """log2 of the bytes that a block or page of this level maps."""
    return granule + (FINAL_LEVEL - level) * stride(granule)


def stage1_start_level(granule: int, input_bits: int) -> int:
    """The level at which a stage-1 walk of ``input_bits`` of address starts; -1 is possible with 52 bits."""
    return FINAL_LEVEL - (input_bits - 1 - granule) // stride(granule)


def block_allowed(granule: int, level: int, ds: bool, lpa: bool) -> bool:
    """Whether a block descriptor is allowed; the largest block of each granule needs 52-bit addresses."""
    largest = {12: 0, 14: 1, 16: 1}[granule]
    if level == largest:
        return lpa if granule == 16 else ds
    return largest < level < FINAL_LEVEL


@lru_cache(maxsize=1024)
def levels(granule: int, start: int, input_bits: int, ds: bool, lpa: bool) -> tuple[Level, ...]:
    """The lookups of a walk, first to last; the first one's index takes all remaining input bits."""
    form = address_format(granule, ds, lpa)
    result = []
    for level in range(start, FINAL_LEVEL + 1):
        size = leaf_bits(granule, level)
        index_bits = stride(granule) if level > start else input_bits - size
        leaf_mask = form.in_place & ~ones(size)
        result.append(
            Level(
                level,
                size - DESCRIPTOR_BITS,
                ones(index_bits) << DESCRIPTOR_BITS,
                block_allowed(granule, level, ds, lpa),
                leaf_mask,
                ones(size),
            )
        )
    return tuple(result)


_BADDR = Bits(47, 1)
_BADDR_52 = Bits(47, 6)
_BADDR_HIGH = Bits(5, 2)
_MIN_TABLE_BITS_52 = 6


def table_base(ttbr: int, granule: int, start: int, input_bits: int, wide: bool) -> int:
    """The first table's address in TTBR_ELx or VTTBR_EL2, aligned to the size of that table.

    ``wide`` is the 52-bit form, in which bits [5:2] hold address bits [51:48].
    """
    table_bits = input_bits - leaf_bits(granule, start) + DESCRIPTOR_BITS
    if wide:
        table_bits = max(table_bits, _MIN_TABLE_BITS_52)
        base = ttbr & _BADDR_52.in_place | _BADDR_HIGH(ttbr) << _ADDRESS_48
    else:
        base = ttbr & _BADDR.in_place
    return base & ~ones(table_bits)


def max_txsz(granule: int, ttst: bool) -> int:
    """The largest legal TxSZ: the smallest input address."""
    if not ttst:
        return 39
    return 47 if granule == 16 else 48
