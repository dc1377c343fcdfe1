"""Random structured translation worlds for the AT oracle.

A case gets registers, a VA, and the descriptors of its own walks, planted in a pool of memory that all cases of
a batch share. Most of what is planted is valid, so walks get deep; then at most a few things are spoilt: a
descriptor, a register field, the address. This file knows how tables are written, and deliberately shares no code
with the engine that reads them: where both agree with QEMU they agree by the architecture (DDI 0487, chapter D8).

Everything follows from the ``random.Random`` that is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from .machine import ALWAYS, OPTIONAL, POOL, RAM_SIZE, SECURE_STAGE2, Case

GRANULES = (12, 14, 16)
OUTPUT_SIZES = (32, 36, 40, 42, 44, 48, 52, 56)
LAST_LEVEL = 3

VTCR_OWN = 1 << 33 | 0xC0FF
"""SL2, TG0, SL0, T0SZ: what each IPA space of Secure state has for itself."""

TG0 = {12: 0, 16: 1, 14: 2}
TG1 = {14: 1, 12: 2, 16: 3}
SL0 = {12: {2: 0, 1: 1, 0: 2, 3: 3, -1: 0}, 14: {3: 0, 2: 1, 1: 2, 0: 3}, 16: {3: 0, 2: 1, 1: 2}}

VALID, TABLE, NS, AF, NSTABLE = 1 << 0, 1 << 1, 1 << 5, 1 << 10, 1 << 63
CONTIGUOUS, DBM, GUARDED, NT = 1 << 52, 1 << 51, 1 << 50, 1 << 16

HCR_VM, HCR_PTW, HCR_DC, HCR_TGE, HCR_RW, HCR_CD, HCR_ID, HCR_E2H = (
    1 << b for b in (0, 2, 12, 27, 31, 32, 33, 34)
)
HCR_NV, HCR_NV1, HCR_FWB, HCR_DCT = (1 << b for b in (42, 43, 46, 57))
SCR_NS, SCR_RW, SCR_EEL2 = 1 << 0, 1 << 10, 1 << 18
SCTLR_M, SCTLR_C, SCTLR_I, SCTLR_WXN, SCTLR_EE, SCTLR_EPAN = (1 << b for b in (0, 2, 12, 19, 25, 57))

HCR_SHARES = ((HCR_PTW, 0.02), (HCR_CD, 0.05), (HCR_ID, 0.1), (HCR_FWB, 0.35), (HCR_DCT, 0.05))
SCTLR_SHARES = ((SCTLR_C, 0.97), (SCTLR_I, 0.5), (SCTLR_WXN, 0.2), (SCTLR_EE, 0.1), (SCTLR_EPAN, 0.4))
TCR_SHARES = (
    *((22, 0.5), (36, 0.5), (37, 0.3), (38, 0.3)),  # A1, AS, TBI0, TBI1
    *((39, 0.35), (40, 0.6), (41, 0.3), (42, 0.3)),  # HA, HD, HPD0, HPD1
    *((7, 0.04), (23, 0.04), (55, 0.04), (56, 0.04)),  # EPD0, EPD1, E0PD0, E0PD1
)
"""How often a case has these bits; rarer where QEMU is known to differ, so that this stays a small share."""

SPOILT = (
    *("TCR_EL1", "TCR_EL2", "VTCR_EL2", "HCR_EL2"),
    *("TTBR0_EL1", "TTBR1_EL1", "TTBR0_EL2", "TTBR1_EL2", "VTTBR_EL2"),
)
"""The registers of which a bit may be flipped."""

_NORMAL = [n for n in range(1, 16) if n & 3 or n in (4, 8, 12)]
USUAL_MAIR = (0xFF, 0xFF, 0x44, 0x00, 0x04, 0x08, 0x0C) * 4 + tuple(
    high << 4 | low for high in _NORMAL for low in _NORMAL
)[::5]
MAIR_TAGGED = (0xF0,) * 3
MAIR_XS = (0x40, 0xA0, 0x01, 0x05, 0x09, 0x0D) * 5


def bits(value: int, msb: int, lsb: int) -> int:
    return value >> lsb & ((1 << msb - lsb + 1) - 1)


class Features:
    """What the CPU implements, as far as the generator must know it to reach it."""

    def __init__(self, ids: Mapping[str, int]) -> None:
        mmfr0, mmfr1, mmfr2 = (ids[f"ID_AA64MMFR{n}_EL1"] for n in range(3))
        pfr0 = ids["ID_AA64PFR0_EL1"]
        self.pa_code = min(bits(mmfr0, 3, 0), 7)
        self.pa_bits = OUTPUT_SIZES[self.pa_code]
        tgran4, tgran16, tgran64 = bits(mmfr0, 31, 28), bits(mmfr0, 23, 20), bits(mmfr0, 27, 24)
        self.stage1 = {12: tgran4 != 15, 14: tgran16 != 0, 16: tgran64 != 15}
        self.stage1_lpa2 = {12: tgran4 == 1, 14: tgran16 == 2, 16: False}
        second = {12: bits(mmfr0, 43, 40), 14: bits(mmfr0, 35, 32), 16: bits(mmfr0, 39, 36)}
        self.stage2 = {g: self.stage1[g] if v == 0 else v >= 2 for g, v in second.items()}
        self.stage2_lpa2 = {g: self.stage1_lpa2[g] if v == 0 else v == 3 for g, v in second.items()}
        self.lpa = self.pa_bits >= 52
        self.lva = bits(mmfr2, 19, 16) >= 1
        self.small_tables = bits(mmfr2, 31, 28) >= 1
        self.vhe = bits(mmfr1, 11, 8) >= 1
        self.pan = bits(mmfr1, 23, 20)
        self.secure_el2 = bits(pfr0, 39, 36) >= 1
        self.nested = bits(mmfr2, 27, 24) >= 1
        self.tags = bits(ids["ID_AA64PFR1_EL1"], 11, 8) >= 2
        self.xs = bits(ids["ID_AA64ISAR1_EL1"], 59, 56) >= 1


class Format(NamedTuple):
    """How one stage of one case is laid out."""

    granule: int  # log2 of the page size
    size: int  # bits of the input address
    start: int  # first level
    ds: bool  # LPA2 descriptors
    high64: bool  # 64 KiB descriptors with address bits [51:48] in [15:12]

    @property
    def stride(self) -> int:
        return self.granule - 3

    def shift(self, level: int) -> int:
        return self.granule + (LAST_LEVEL - level) * self.stride

    def slot(self, level: int, address: int) -> int:
        """Return the offset in its table of the descriptor of ``address``."""
        top = self.size if level == self.start else self.shift(level - 1)
        return (address % (1 << top)) >> self.shift(level) << 3

    def root_bits(self) -> int:
        """Return log2 of the size of the first table, concatenated tables together."""
        return max(self.size - self.shift(self.start), 0) + 3

    def root_alignment(self, wide: bool) -> int:
        """Return log2 of the alignment of the first table; ``wide``: its register has address bits [51:48]."""
        return max(self.root_bits(), 6 if wide else 4)

    def leaf_levels(self) -> list[int]:
        """Return the levels that may hold a block or page."""
        top = {12: 0 if self.ds else 1, 14: 1 if self.ds else 2, 16: 1 if self.high64 else 2}[self.granule]
        return list(range(max(self.start, top), LAST_LEVEL + 1))

    def descriptor_address(self, address: int) -> int:
        """Return ``address`` as a descriptor holds it."""
        word = address & 0xFFFF_FFFF_F000
        if self.granule == 16 and self.high64:
            return word & ~0xF000 | bits(address, 51, 48) << 12
        if self.ds:
            return word | bits(address, 49, 48) << 48 | bits(address, 51, 50) << 8
        return word

    def base_register(self, address: int, wide: bool) -> int:
        """Return ``address`` as a TTBR holds it; ``wide``: with address bits [51:48] in [5:2]."""
        word = address & 0xFFFF_FFFF_FFFE
        return word & ~0x3F | bits(address, 51, 48) << 2 if wide else word


class Planted(NamedTuple):
    """A descriptor that was written: where, and what."""

    address: int
    descriptor: int
    big_endian: bool


@dataclass
class Pool:
    """The shared memory, and what the case at hand has written into it."""

    memory: bytearray
    rng: Random
    planted: list[Planted] = field(default_factory=list)

    def table(self, granule: int) -> int:
        """Return the address of a random table in the pool; tables of different cases may overlap."""
        return self.rng.randrange(POOL, RAM_SIZE) >> granule << granule

    def root(self, size_bits: int) -> int:
        return self.rng.randrange(POOL, RAM_SIZE) >> size_bits << size_bits

    def write(self, item: Planted) -> None:
        if POOL <= item.address <= RAM_SIZE - 8:
            self.memory[item.address : item.address + 8] = item.descriptor.to_bytes(
                8, "big" if item.big_endian else "little"
            )
        self.planted.append(item)


class Tree:
    """The tables of one stage of one case, grown a walk at a time.

    ``place(address, nonsecure)`` turns the address of a descriptor, in this stage's output space, into a physical
    one, or None if it cannot be reached; ``new_table()`` returns the address of another table, ``table_bits()`` the
    attributes of a table descriptor. Below a table descriptor with NSTable the walk of a Secure stage 1 is
    Non-secure.
    """

    def __init__(
        self,
        pool: Pool,
        form: Format,
        root: int,
        big_endian: bool,
        place: Callable[[int, bool], int | None],
        new_table: Callable[[], int],
        table_bits: Callable[[], int],
    ) -> None:
        self.pool = pool
        self.form = form
        self.root = root
        self.big_endian = big_endian
        self.place = place
        self.new_table = new_table
        self.table_bits = table_bits
        self.nonsecure = False  # whether NSTable was met on the way to the last leaf
        self.tables: dict[int, tuple[int, bool]] = {}
        self.leaves: dict[int, tuple[int, int]] = {}

    def plant(self, address: int, level: int, output: Callable[[int], int], attributes: int) -> int | None:
        """Map ``address`` by a leaf at ``level``, unless an earlier one covers it; return what it maps to.

        ``output(shift)`` gives the leaf's output address, aligned to ``1 << shift``.
        """
        form, base, nonsecure = self.form, self.root, False
        address %= 1 << form.size
        for current in range(form.start, level):
            slot = base + form.slot(current, address)
            if slot in self.leaves:
                return self._through(slot, address)
            if slot not in self.tables:
                table, bits_of_table = self.new_table(), self.table_bits()
                self.tables[slot] = table, nonsecure or bool(bits_of_table & NSTABLE)
                word = form.descriptor_address(table) | bits_of_table | VALID | TABLE
                self._write(slot, nonsecure, word)
            base, nonsecure = self.tables[slot]
        slot = base + form.slot(level, address)
        if slot in self.tables:
            return None
        if slot not in self.leaves:
            shift = form.shift(level)
            target = output(shift)
            self.leaves[slot] = (target, shift)
            kind = VALID | TABLE if level == LAST_LEVEL else VALID
            word = form.descriptor_address(target) | attributes | kind
            self._write(slot, nonsecure, word)
            self.nonsecure = nonsecure
        return self._through(slot, address)

    def _through(self, slot: int, address: int) -> int:
        target, shift = self.leaves[slot]
        return target | address & ((1 << shift) - 1)

    def _write(self, slot: int, nonsecure: bool, word: int) -> None:
        where = self.place(slot, nonsecure)
        if where is not None:
            self.pool.write(Planted(where, word, self.big_endian))


class Generator:
    """Cases for one CPU over one memory image."""

    def __init__(self, features: Features, memory: bytearray, rng: Random) -> None:
        self.cpu = features
        self.rng = rng
        self.pool = Pool(memory, rng)
        self.regs: dict[str, int] = {}
        self.stage2_trees: dict[bool, Tree] = {}
        self.secure = False

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def case(self) -> Case:
        """Return a new case; its tables are in the memory image."""
        rng = self.rng
        self.pool.planted = []
        self.stage2_trees = {}
        self._background_registers()
        self.secure = self.chance(0.12)
        self.regs["SCR_EL3"] = SCR_RW | (0 if self.secure else SCR_NS)
        secure_el2 = self.secure and self.cpu.secure_el2 and self.chance(0.8)
        if self.chance(0.5) if not self.secure else secure_el2:
            self.regs["SCR_EL3"] |= SCR_EEL2 if self.cpu.secure_el2 else 0
        el2 = not self.secure or secure_el2
        regime = rng.choices(("EL10", "EL10+2", "EL2", "EL20"), (25, 50, 10, 15))[0]
        if not el2 or (regime == "EL20" and not self.cpu.vhe):
            regime = "EL10"
            if not el2 and self.chance(0.2):
                self.regs["HCR_EL2"] |= HCR_VM  # without effect
        va, op = getattr(self, f"_{regime.replace('+', '_').lower()}")()
        if self.chance(0.42):
            self._spoil_descriptor()
        if self.chance(0.12):
            self._spoil_register()
        if self.chance(0.03):
            va ^= 1 << rng.randrange(64)
        registers = {name: hex(value) for name, value in self.regs.items()}
        pan = int(self.cpu.pan >= 1 and self.chance(0.5))
        return {"op": op, "va": hex(va), "regs": registers, "pstate": {"PAN": pan}}

    # Registers -----------------------------------------------------------------------------------------

    def _background_registers(self) -> None:
        """Fill every register with something plausible; a case then sets what matters to it."""
        rng = self.rng
        regs = dict.fromkeys((*ALWAYS, *OPTIONAL, *SECURE_STAGE2), 0)
        regs["HCR_EL2"] = HCR_RW
        for bit, share in HCR_SHARES:
            regs["HCR_EL2"] |= bit if self.chance(share) else 0
        if self.cpu.nested and self.chance(0.1):
            regs["HCR_EL2"] |= HCR_NV | (HCR_NV1 if self.chance(0.7) else 0)
        for name in ("SCTLR_EL1", "SCTLR_EL2"):
            regs[name] = SCTLR_M if self.chance(0.95) else 0
            for bit, share in SCTLR_SHARES:
                regs[name] |= bit if self.chance(share) else 0
        attributes = USUAL_MAIR + (MAIR_TAGGED if self.cpu.tags else ())
        if self.cpu.xs and self.chance(0.06):
            attributes += MAIR_XS
        for name in ("MAIR_EL1", "MAIR_EL2"):
            regs[name] = int.from_bytes(bytes(rng.choice(attributes) for _ in range(8)), "little")
        self.regs = regs
        regs["TCR_EL1"] = self._tcr_el1(self._stage1_format(), False)
        regs["TCR_EL2"] = self._tcr_el2(self._stage1_format())
        regs["VTCR_EL2"] = self._vtcr(self._stage2_format()[0])
        for name in ("TTBR0_EL1", "TTBR1_EL1", "TTBR0_EL2", "TTBR1_EL2", "VTTBR_EL2"):
            regs[name] = self.pool.table(12)

    def _ds_bit(self, form: Format) -> int:
        """Return DS: also where it counts for nothing, with 64 KiB granules or without FEAT_LPA2."""
        idle = form.granule == 16 or not any(self.cpu.stage1_lpa2.values())
        return int(form.ds or (idle and self.chance(0.1)))

    def _size_code(self) -> int:
        if self.chance(0.6):
            return self.cpu.pa_code
        return self.rng.randrange(8 if self.chance(0.1) else self.cpu.pa_code + 1)

    def _stage1_format(self) -> Format:
        cpu, rng = self.cpu, self.rng
        granule = rng.choice([g for g in GRANULES if cpu.stage1[g]])
        ds = cpu.stage1_lpa2[granule] and self.chance(0.6)
        low = 12 if ds or (granule == 16 and cpu.lva) else 16
        high = (47 if granule == 16 else 48) if cpu.small_tables else 39
        size = 64 - (rng.randrange(low, high + 1) if self.chance(0.85) else rng.choice((low, high)))
        start = LAST_LEVEL - (size - 1 - granule) // (granule - 3)
        return Format(granule, size, start, ds, granule == 16 and cpu.lpa)

    def _stage2_format(self) -> tuple[Format, int]:
        """Return a stage-2 format and VTCR_EL2.PS."""
        cpu, rng = self.cpu, self.rng
        granule = rng.choice([g for g in GRANULES if cpu.stage2[g]])
        ds = cpu.stage2_lpa2[granule] and self.chance(0.6)
        widest = min(cpu.pa_bits, 52 if ds or granule == 16 else 48)
        narrowest = (17 if granule == 16 else 16) if cpu.small_tables else 25
        levels = [level for level in SL0[granule] if self._start_allowed(granule, level, ds)]
        start = rng.choice(levels)
        shift = granule + (LAST_LEVEL - start) * (granule - 3)
        smallest, largest = max(shift + 1, narrowest), min(shift + granule - 3 + 4, widest)
        size = rng.randint(smallest, largest) if smallest <= largest else smallest
        code = self._size_code()
        if OUTPUT_SIZES[code] < max(size, 44) and self.chance(0.8):  # as software does: no IPA wider than PS
            code = cpu.pa_code
        return Format(granule, size, start, ds, granule == 16 and cpu.lpa), code

    def _start_allowed(self, granule: int, level: int, ds: bool) -> bool:
        pa_bits, small = self.cpu.pa_bits, self.cpu.small_tables
        if granule == 12:
            return {3: small, 0: pa_bits >= 44, -1: ds}.get(level, True)
        if granule == 14:
            return {0: ds, 1: pa_bits >= 42}.get(level, True)
        return level != 1 or pa_bits >= 44

    def _half(self, form: Format, upper: bool) -> int:
        """Return the fields of TCR_EL1 that belong to one half, laid out as the lower half; without DS."""
        tg = (TG1 if upper else TG0)[form.granule]
        return 64 - form.size | self.rng.randrange(64) << 8 | tg << 14

    def _tcr_el1(self, form: Format, upper: bool) -> int:
        rng = self.rng
        halves = [
            self._half(form, half) if half == upper else self._half(self._stage1_format(), half)
            for half in (False, True)
        ]
        tcr = halves[0] | halves[1] << 16 | self._size_code() << 32 | self._ds_bit(form) << 59
        for bit, share in TCR_SHARES:
            tcr |= int(self.chance(share)) << bit
        return tcr | rng.randrange(256) << 43 | rng.randrange(16) << 51

    def _tcr_el2(self, form: Format) -> int:
        """Return TCR_EL2 as it is when E2H is 0."""
        tcr = 64 - form.size | self.rng.randrange(64) << 8 | TG0[form.granule] << 14 | self._size_code() << 16
        for bit, share in ((20, 0.3), (21, 0.35), (22, 0.6), (24, 0.3), (29, 0.5)):  # TBI, HA, HD, HPD, TBID
            tcr |= int(self.chance(share)) << bit
        return tcr | 1 << 31 | 1 << 23 | self._ds_bit(form) << 32

    def _vtcr(self, form: Format, secure: bool = False) -> int:
        tcr = 64 - form.size | SL0[form.granule][form.start] << 6 | TG0[form.granule] << 14 | 1 << 31
        tcr |= int(form.granule == 12 and form.start == -1) << 33
        if secure:
            return tcr
        tcr |= self.rng.randrange(64) << 8 | self._ds_bit(form) << 32
        for bit, share in ((21, 0.35), (22, 0.6)):  # HA, HD
            tcr |= int(self.chance(share)) << bit
        return tcr

    # Attributes ----------------------------------------------------------------------------------------

    def _stage1_table_bits(self, ds: bool) -> int:
        """Return the hierarchical attributes and ignored bits of a stage-1 table descriptor."""
        rng = self.rng
        word = rng.choices((0, 1, 2, 3), (70, 10, 10, 10))[0] << 61 | rng.randrange(4) << 59
        word |= NSTABLE if self.secure and self.chance(0.15) else 0
        if self.chance(0.3):
            word |= rng.randrange(256) << 51 | rng.randrange(256 if ds else 1024) << 2 & ~0x300
        return word

    def _stage1_leaf_bits(self, form: Format, level: int) -> int:
        rng = self.rng
        word = rng.randrange(16) << 2 | rng.choices((0, 1, 2, 3), (20, 45, 10, 25))[0] << 6
        word |= 0 if form.ds else rng.randrange(4) << 8
        word |= (0 if self.chance(0.04) else AF) | rng.randrange(2) << 11 | rng.randrange(4) << 53
        word |= (DBM if self.chance(0.4) else 0) | (CONTIGUOUS if self.chance(0.06) else 0)
        word |= GUARDED if self.chance(0.2) else 0
        return word | self._spare_bits(form, level)

    def _stage2_leaf_bits(self, form: Format, level: int, for_table: bool) -> int:
        rng = self.rng
        access = rng.choices((0, 1, 2, 3), (2, 20, 2, 76) if for_table else (8, 25, 12, 55))[0]
        if self.chance(0.02):
            attributes = rng.randrange(16)
        elif self.regs["HCR_EL2"] & HCR_FWB:
            attributes = rng.choice((5, 6, 7) if for_table and self.chance(0.9) else (0, 1, 2, 3, 5, 6, 7))
        else:
            attributes = rng.choice((5, 6, 7, 9, 10, 11, 13, 14, 15))
            if self.chance(0.1 if for_table else 0.3):
                attributes = rng.randrange(4)
        word = attributes << 2 | access << 6 | (0 if self.chance(0.02 if for_table else 0.05) else AF)
        word |= 0 if form.ds else rng.randrange(4) << 8
        word |= rng.randrange(4) << 53 | int(self.chance(0.03)) << 11
        word |= (DBM if self.chance(0.3) else 0) | (CONTIGUOUS if self.chance(0.04) else 0)
        return word | self._spare_bits(form, level)

    def _spare_bits(self, form: Format, level: int) -> int:
        """Return bits that a leaf ignores: software's own, PBHA, and RES0 below a block's address."""
        rng = self.rng
        word = rng.randrange(16) << 55 if self.chance(0.3) else 0
        word |= rng.randrange(16) << 59 if self.chance(0.2) else 0
        low = 17 if form.granule == 16 else form.granule
        if level < LAST_LEVEL and self.chance(0.04) and form.shift(level) > low:
            word |= rng.randrange(1 << form.shift(level) - low) << low & ~NT
        return word | (NT if level < LAST_LEVEL and self.chance(0.01) else 0)

    # Stages --------------------------------------------------------------------------------------------

    def _output(self, size: int) -> Callable[[int], int]:
        """Return a chooser of output addresses of about ``size`` bits, sometimes too wide."""
        limit = size if not self.chance(0.03) else self.rng.choice((48, 52))
        return lambda shift: self.rng.randrange(1 << limit) >> shift << shift

    def _oa_size(self, form: Format, code: int) -> int:
        size = min(OUTPUT_SIZES[code], self.cpu.pa_bits)
        return size if form.ds or form.high64 else min(size, 48)

    def _wide(self, form: Format, code: int) -> bool:
        """Whether the table base register holds address bits [51:48]."""
        return form.ds or (form.high64 and code == 6)

    def _stray(self, address: int, size: int) -> int:
        """Return ``address``, or rarely one at which there is no memory."""
        if self.chance(0.012):
            return self.rng.randrange(RAM_SIZE, 1 << size) >> 16 << 16 if size > 26 else address
        return address | (1 << self.rng.randrange(size, 52) if self.chance(0.006) and size < 52 else 0)

    def _leaf_level(self, form: Format) -> int:
        levels = form.leaf_levels()
        if not levels or self.chance(0.02):
            return self.rng.randint(form.start, LAST_LEVEL)
        return self.rng.choice(levels) if self.chance(0.6) else LAST_LEVEL

    def _root(self, form: Format, wide: bool) -> int:
        return self.pool.root(form.root_alignment(wide))

    def _stage2(self, ns_space: bool) -> Tree:
        """Return the stage-2 tree of an IPA space, making it and its registers on first use.

        In Secure state there are two: the Secure IPA space has its own registers for all but PS, DS, HA and HD.
        """
        if ns_space in self.stage2_trees:
            return self.stage2_trees[ns_space]
        form, code = self._stage2_format()
        private = self.secure and not ns_space
        other = self.stage2_trees.get(not ns_space)
        if other is not None:
            code = bits(self.regs["VTCR_EL2"], 18, 16)
            while form.ds != other.form.ds and form.granule != 16:
                form, _ = self._stage2_format()
        wide = self._wide(form, code)
        root = self._stray(self._root(form, wide), self._oa_size(form, code))
        base = form.base_register(root, wide) | (int(self.chance(0.2)))
        if private:
            self.regs["VSTTBR_EL2"] = base
            self.regs["VSTCR_EL2"] = self._vtcr(form, secure=True) | self._walk_spaces()
        if not private or other is None:
            vtcr = self._vtcr(form) | code << 16
            if self.secure:
                vtcr |= self._walk_spaces()
            own = VTCR_OWN if other is not None else -1
            self.regs["VTCR_EL2"] = vtcr & own | self.regs["VTCR_EL2"] & ~own
        if not private:
            self.regs["VTTBR_EL2"] = base | self.rng.randrange(1 << 16) << 48
        size = self._oa_size(form, code)
        tree = Tree(
            self.pool,
            form,
            root,
            bool(self.regs["SCTLR_EL2"] & SCTLR_EE),
            lambda slot, _: slot,
            lambda: self._stray(self.pool.table(form.granule), size),
            self._stage2_table_bits,
        )
        self.stage2_trees[ns_space] = tree
        return tree

    def _walk_spaces(self) -> int:
        """Return VSTCR_EL2.{SA,SW}, VTCR_EL2.{NSA,NSW}."""
        return int(self.chance(0.2)) << 30 | int(self.chance(0.2)) << 29

    def _stage2_table_bits(self) -> int:
        rng = self.rng
        if not self.chance(0.3):
            return 0
        return rng.randrange(256) << 51 | rng.randrange(32) << 59 | rng.randrange(1024) << 2 & ~0x300

    def _map_for_walk(self, ipa: int, ns_space: bool) -> int | None:
        """Map the IPA of a stage-1 descriptor to a place in the pool and return that place."""
        tree = self._stage2(ns_space)
        if ipa >> tree.form.size:
            return None
        level = self._leaf_level(tree.form)

        def output(shift: int) -> int:
            if shift >= 25:  # the pool is at the same offset in every block: see _ipa_of_table
                return (ipa % RAM_SIZE) >> shift << shift
            return self.rng.randrange(POOL, RAM_SIZE) >> shift << shift

        return tree.plant(ipa, level, output, self._stage2_leaf_bits(tree.form, level, for_table=True))

    def _map_output(self, ipa: int, ns_space: bool) -> None:
        tree = self._stage2(ns_space)
        if ipa >> tree.form.size:
            return
        level = self._leaf_level(tree.form)
        size = self._oa_size(tree.form, bits(self.regs["VTCR_EL2"], 18, 16))
        tree.plant(ipa, level, self._output(size), self._stage2_leaf_bits(tree.form, level, for_table=False))

    def _ipa_of_table(self, granule: int, size: int) -> int:
        """Return a random IPA whose low bits are those of a place in the pool, so that large blocks map it."""
        if size <= RAM_SIZE.bit_length():
            return self.rng.randrange(1 << size) >> granule << granule
        return self.pool.table(granule) + self.rng.randrange(1 << size) // RAM_SIZE * RAM_SIZE

    def _stage1(self, form: Format, code: int, big_endian: bool, two_stages: bool) -> tuple[int, int]:
        """Plant a stage-1 walk of a random address; return the address, without upper bits, and the root."""
        size = limit = self._oa_size(form, code)
        wide = self._wide(form, code)
        ns_space = not self.secure
        if two_stages:
            limit = min(size, self._stage2(ns_space).form.size)
            alignment = form.root_alignment(wide)
            root = self._ipa_of_table(12, limit) >> alignment << alignment
        else:
            root = self._stray(self._root(form, wide), size)

        def place(slot: int, nonsecure: bool) -> int | None:
            return self._map_for_walk(slot, ns_space or nonsecure) if two_stages else slot

        def new_table() -> int:
            table = self._ipa_of_table(form.granule, limit) if two_stages else self.pool.table(form.granule)
            return self._stray(table, size)

        tree = Tree(
            self.pool, form, root, big_endian, place, new_table, lambda: self._stage1_table_bits(form.ds)
        )
        address = self.rng.randrange(1 << form.size)
        level = self._leaf_level(form)
        attributes = self._stage1_leaf_bits(form, level)
        ipa = tree.plant(address, level, self._output(limit), attributes)
        if two_stages and ipa is not None:
            self._map_output(ipa, ns_space or tree.nonsecure or bool(attributes & NS))
        return address, root

    def _va(self, address: int, size: int, upper: bool, tbi: bool) -> int:
        va = address | ((1 << 64) - (1 << size) if upper else 0)
        if tbi and self.chance(0.6):
            va = va & ~(0xFF << 56) | self.rng.randrange(256) << 56
        return va

    # Regimes -------------------------------------------------------------------------------------------

    def _operation(self, stages: tuple[str, ...]) -> str:
        stage = self.rng.choice(stages)
        if stage == "S1" and self.cpu.pan >= 2 and self.chance(0.3):
            return self.rng.choice(("S1E1RP", "S1E1WP"))
        return stage + self.rng.choice(("E1R", "E1W", "E0R", "E0W"))

    def _el1_world(self, two_stages: bool) -> int:
        upper = self.chance(0.5)
        form = self._stage1_format()
        self.regs["TCR_EL1"] = tcr = self._tcr_el1(form, upper)
        endian = bool(self.regs["SCTLR_EL1"] & SCTLR_EE)
        code = bits(tcr, 34, 32)
        address, root = self._stage1(form, code, endian, two_stages)
        base = form.base_register(root, self._wide(form, code)) | int(self.chance(0.2))
        base |= self.rng.randrange(256) << 48
        self.regs["TTBR1_EL1" if upper else "TTBR0_EL1"] = base
        return self._va(address, form.size, upper, bool(bits(tcr, 38, 38) if upper else bits(tcr, 37, 37)))

    def _el10(self) -> tuple[int, str]:
        """EL1&0 without stage 2, or with a stage 2 that only HCR_EL2.DC switches on."""
        if self.chance(0.02):
            self.regs["HCR_EL2"] |= HCR_TGE
        return self._el1_world(two_stages=False), self._operation(("S1", "S1", "S12"))

    def _el10_2(self) -> tuple[int, str]:
        self.regs["HCR_EL2"] |= HCR_VM | (HCR_PTW if self.chance(0.25) else 0)
        if self.cpu.vhe and self.chance(0.2):
            self.regs["HCR_EL2"] |= HCR_E2H
        self._stage2(not self.secure)
        if self.chance(0.12):  # stage 1 off: the VA is the IPA
            if self.chance(0.5):
                self.regs["HCR_EL2"] |= HCR_DC
                self.regs["HCR_EL2"] &= ~(0 if self.chance(0.5) else HCR_VM)
            else:
                self.regs["SCTLR_EL1"] &= ~SCTLR_M
            size = self._stage2(not self.secure).form.size
            ipa = self.rng.randrange(1 << (size if self.chance(0.95) else 52))
            self._map_output(ipa, not self.secure)
            return ipa, self._operation(("S1", "S12", "S12", "S12"))
        return self._el1_world(two_stages=True), self._operation(("S1", "S12"))

    def _el2(self) -> tuple[int, str]:
        form = self._stage1_format()
        self.regs["TCR_EL2"] = tcr = self._tcr_el2(form)
        code = bits(tcr, 18, 16)
        address, root = self._stage1(form, code, bool(self.regs["SCTLR_EL2"] & SCTLR_EE), False)
        self.regs["TTBR0_EL2"] = form.base_register(root, self._wide(form, code)) | int(self.chance(0.2))
        va = self._va(address, form.size, False, bool(bits(tcr, 20, 20)))
        return va, self.rng.choice(("S1E2R", "S1E2W"))

    def _el20(self) -> tuple[int, str]:
        tge = self.chance(0.6)
        self.regs["HCR_EL2"] |= HCR_E2H | (HCR_TGE if tge else 0) | (HCR_VM if self.chance(0.3) else 0)
        upper = self.chance(0.5)
        form = self._stage1_format()
        self.regs["TCR_EL2"] = tcr = self._tcr_el1(form, upper)
        code = bits(tcr, 34, 32)
        address, root = self._stage1(form, code, bool(self.regs["SCTLR_EL2"] & SCTLR_EE), False)
        base = form.base_register(root, self._wide(form, code)) | int(self.chance(0.2))
        self.regs["TTBR1_EL2" if upper else "TTBR0_EL2"] = base
        va = self._va(address, form.size, upper, bool(bits(tcr, 38, 38) if upper else bits(tcr, 37, 37)))
        host = self._operation(("S1",)) if self.chance(0.98) else self._operation(("S12",))
        return va, host if tge and self.chance(0.7) else self.rng.choice(("S1E2R", "S1E2W"))

    # Spoiling ------------------------------------------------------------------------------------------

    def _spoil_descriptor(self) -> None:
        planted = self.pool.planted
        if not planted:
            return
        rng = self.rng
        item = rng.choice(planted)
        word = rng.choice(
            (
                lambda d: d & ~VALID,
                lambda d: d & ~AF,
                lambda d: d ^ TABLE,
                lambda d: d ^ 1 << rng.randrange(64),
                lambda d: d ^ 1 << rng.randrange(12, 52),
                lambda d: d & ~(3 << 6) | rng.randrange(4) << 6,
                lambda d: d & ~(15 << 2) | rng.randrange(16) << 2,
                lambda d: d | 1 << rng.randrange(26, 48),
                lambda d: d | rng.randrange(16) << 12,
                lambda d: rng.getrandbits(64) | VALID,
            )
        )(item.descriptor)
        self.pool.write(item._replace(descriptor=word))

    def _spoil_register(self) -> None:
        rng = self.rng
        name = rng.choice(SPOILT)
        if name == "HCR_EL2":
            self.regs[name] ^= rng.choice((HCR_VM, HCR_PTW, HCR_DC, HCR_TGE, HCR_E2H, HCR_CD, HCR_FWB))
        elif name.startswith(("VT", "TTBR")):
            self.regs[name] ^= 1 << rng.randrange(48)
        else:
            self.regs[name] ^= 1 << rng.randrange(60)
