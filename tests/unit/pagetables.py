"""Builds translation tables for given mappings, any granule and descriptor format, for tests.

Nothing here uses gdbhyp's own tables: addresses are taken apart and put into descriptors as the Arm ARM's
figures show them (DDI 0487, D8.3), so that a mistake in one place is not made in the other too.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from gdbhyp.errors import MemoryUnavailable

VALID, TABLE_OR_PAGE = 0b01, 0b11
AF = 1 << 10
CONTIGUOUS = 1 << 52

# ID_AA64MMFR0_EL1: PARange, and every granule with 52-bit addresses at both stages.
PARANGE = {32: 0, 36: 1, 40: 2, 42: 3, 44: 4, 48: 5, 52: 6}
TG0 = {12: 0b00, 14: 0b10, 16: 0b01}
TG1 = {12: 0b10, 14: 0b01, 16: 0b11}

EVERYTHING = {
    "ID_AA64MMFR0_EL1": 6 | 2 << 20 | 0 << 24 | 1 << 28 | 3 << 32 | 2 << 36 | 3 << 40,
    "ID_AA64MMFR1_EL1": 2 | 2 << 4 | 1 << 8 | 1 << 12 | 3 << 20 | 1 << 28 | 1 << 40,
    "ID_AA64MMFR2_EL1": 1 << 16 | 2 << 24 | 1 << 28 | 1 << 40 | 1 << 60,
    "ID_AA64MMFR3_EL1": 1 | 1 << 4 | 1 << 8 | 1 << 12 | 1 << 16 | 1 << 20 | 1 << 24,
    "ID_AA64PFR0_EL1": 1 << 8 | 1 << 12 | 1 << 36,
    "ID_AA64PFR1_EL1": 2 << 8,
    "ID_AA64ISAR1_EL1": 1 << 4,
}
"""A processor with all that the tests ask for, but not FEAT_XS, FEAT_RME, FEAT_THE or FEAT_MTE_PERM."""

MAIR = 0x44_04_FF_00_0C_08_BB_FF
"""Attribute bytes by index: 0 Write-Back, 1 Write-Through, 2 nGRE, 3 GRE, 4 nGnRnE, 5 Write-Back, 6 nGnRE, 7
NC.
"""


class SparseMemory:
    """Memory in 4 KiB pages that exist once something was written to them; other addresses cannot be read."""

    def __init__(self) -> None:
        self.pages: dict[int, bytearray] = {}
        self.reads = 0

    def read(self, address: int, size: int, /) -> bytes:
        self.reads += 1
        parts = []
        at, end = address, address + size
        while at < end:
            page = self.pages.get(at >> 12)
            if page is None:
                raise MemoryUnavailable("PA", address, size, "nothing is there", at)
            offset = at & 0xFFF
            count = min(end - at, 0x1000 - offset)
            parts.append(bytes(page[offset : offset + count]))
            at += count
        return b"".join(parts)

    def write(self, address: int, data: bytes) -> None:
        for index, byte in enumerate(data):
            at = address + index
            self.pages.setdefault(at >> 12, bytearray(0x1000))[at & 0xFFF] = byte

    def write_word(self, address: int, word: int, *, big_endian: bool = False) -> None:
        page = self.pages.setdefault(address >> 12, bytearray(0x1000))
        struct.pack_into(">Q" if big_endian else "<Q", page, address & 0xFFF, word)

    def word(self, address: int) -> int:
        return int.from_bytes(self.read(address, 8), "little")


@dataclass
class Format:
    """A descriptor format: ``granule`` 12, 14 or 16 address bits; ``ds`` for 52-bit addresses with 4 or 16
    KiB; ``lpa`` for those with 64 KiB."""

    granule: int
    ds: bool = False
    lpa: bool = False

    @property
    def stride(self) -> int:
        return self.granule - 3

    @property
    def output_bits(self) -> int:
        return 52 if self.ds or self.lpa else 48

    def size_bits(self, level: int) -> int:
        """log2 of what a leaf of this level maps."""
        return self.granule + (3 - level) * self.stride

    def leaf_levels(self) -> list[int]:
        """The levels at which a block or page may stand."""
        if self.granule == 16:
            return [1, 2, 3] if self.lpa else [2, 3]
        if self.granule == 14:
            return [1, 2, 3] if self.ds else [2, 3]
        return [0, 1, 2, 3] if self.ds else [1, 2, 3]

    def encode(self, address: int) -> int:
        """Put an output or table address into a descriptor."""
        low = address & ((1 << 48) - 1)
        if self.lpa and self.granule == 16:
            return low | (address >> 48) << 12
        if self.ds:
            return low | ((address >> 48) & 3) << 48 | ((address >> 50) & 3) << 8
        return low

    def start_level(self, input_bits: int, concatenated: bool = False) -> int:
        """The level of the first lookup; a stage-2 walk may start a level later, with up to 16 tables."""
        level = 3
        while self.granule + (4 - level) * self.stride < input_bits:
            level -= 1
        extra = input_bits - self.size_bits(level)
        return level + 1 if concatenated and level < 3 and extra <= 4 else level


@dataclass
class Tables:
    """A tree of tables; ``next_free`` is where the next one goes."""

    memory: SparseMemory
    form: Format
    input_bits: int
    start: int
    next_free: int = 0x10_0000
    big_endian: bool = False
    root: int = 0
    tables: dict[tuple[int, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        entries = 1 << (self.input_bits - self.form.size_bits(self.start))
        size = max(entries * 8, 64)
        if not self.root:
            self.next_free = -(-self.next_free // size) * size
            self.root = self.allocate(size)
        else:
            self.clear(self.root, size)

    def allocate(self, size: int) -> int:
        where = -(-self.next_free // size) * size
        self.next_free = where + size
        self.clear(where, size)
        return where

    def clear(self, where: int, size: int) -> None:
        for page in range(where >> 12, (where + size - 1 >> 12) + 1):
            self.memory.pages.setdefault(page, bytearray(0x1000))

    def index(self, address: int, level: int) -> int:
        shift = self.form.size_bits(level)
        bits = self.input_bits if level == self.start else shift + self.form.stride
        return (address & ((1 << bits) - 1)) >> shift

    def slot(self, address: int, level: int) -> int:
        """The address of the descriptor that a walk of ``address`` reads at ``level``; tables are made as
        needed.
        """
        table = self.root
        for at in range(self.start, level):
            here = table + 8 * self.index(address, at)
            below = self.tables.get((here, at))
            if below is None:
                below = self.allocate(1 << self.form.granule)
                self.tables[here, at] = below
                self.put(here, self.form.encode(below) | TABLE_OR_PAGE)
            table = below
        return table + 8 * self.index(address, level)

    def put(self, slot: int, descriptor: int) -> None:
        self.memory.write_word(slot, descriptor, big_endian=self.big_endian)

    def map(self, address: int, output: int, level: int = 3, attributes: int = AF) -> int:
        """Map the block or page that holds ``address``; returns the address of its descriptor."""
        slot = self.slot(address, level)
        kind = TABLE_OR_PAGE if level == 3 else VALID
        self.put(slot, self.form.encode(output) | attributes | kind)
        return slot

    def or_table(self, address: int, level: int, bits: int) -> None:
        """Add bits to the table descriptor of ``level`` on the path of ``address``."""
        self.slot(address, level + 1)
        slot = self.slot(address, level)
        word = int.from_bytes(self.memory.read(slot, 8), "big" if self.big_endian else "little")
        self.put(slot, word | bits)

    def ttbr(self) -> int:
        """The root as TTBRn_ELx or VTTBR_EL2 holds it."""
        return self.root & ((1 << 48) - 1) | (self.root >> 48) << 2


def stage1_tcr(form: Format, input_bits: int, *, ps: int | None = None, upper: bool = False) -> int:
    """TCR_EL1 (or TCR_EL2 with E2H = 1) with one range in use; the other one has EPD set."""
    txsz = 64 - input_bits
    size = PARANGE[ps or form.output_bits] << 32 | form.ds << 59
    if upper:
        return size | txsz << 16 | TG1[form.granule] << 30 | 1 << 7 | 16 | 3 << 28
    return size | txsz | TG0[form.granule] << 14 | 1 << 23 | 16 << 16 | TG1[form.granule] << 30 | 3 << 12


def single_tcr(form: Format, input_bits: int, *, ps: int | None = None) -> int:
    """TCR_EL2 with E2H = 0, or TCR_EL3."""
    size = PARANGE[ps or form.output_bits] << 16 | form.ds << 32
    return size | 64 - input_bits | TG0[form.granule] << 14 | 3 << 12


def stage2_vtcr(form: Format, input_bits: int, start: int, *, ps: int | None = None) -> int:
    """VTCR_EL2 for a start level."""
    sl = {2: 0, 1: 1, 0: 2, 3: 3, -1: 4}[start] if form.granule == 12 else 3 - start
    size = PARANGE[ps or form.output_bits] << 16 | form.ds << 32
    return size | 64 - input_bits | TG0[form.granule] << 14 | (sl & 3) << 6 | (sl >> 2) << 33 | 3 << 12
