"""The granule protection check of FEAT_RME: which physical address space a granule belongs to.

Source: Arm ARM (DDI 0487) D9 and the descriptions of GPCCR_EL3 and GPTBR_EL3; Arm's ASL v9.4
``GranuleProtectionCheck``, ``GPTWalk``, ``DecodeGPTTable``, ``DecodeGPTContiguous``, ``DecodeGPTGranules``.
The extensions of GPCCR_EL3 that came after v9.4 (FEAT_RME_GPC2 and later) are not modelled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from gdbhyp.arch.features import PA_SIZES, features
from gdbhyp.arch.fields import Bits, bit, ones
from gdbhyp.arch.regimes import Space
from gdbhyp.errors import MemoryUnavailable

# GPCCR_EL3
PPS = Bits(2, 0)
IRGN = Bits(9, 8)
ORGN = Bits(11, 10)
SH = Bits(13, 12)
PGS = Bits(15, 14)
GPC = bit(16)
L0GPTSZ = Bits(23, 20)
# GPTBR_EL3: address bits [51:12]
BADDR = Bits(39, 0)
_BADDR_LSB = 12

_GRANULE = {0b00: 12, 0b01: 16, 0b10: 14}
"""log2 of the protection granule by PGS."""

_L0_BITS = {0b0000: 30, 0b0100: 34, 0b0110: 36, 0b1001: 39}
"""log2 of what a level-0 entry covers, by L0GPTSZ."""

# GPT entries.
_TYPE = Bits(3, 0)
_GPI = Bits(7, 4)
_CONTIG = Bits(9, 8)
_BLOCK, _TABLE, _CONTIGUOUS = 0b0001, 0b0011, 0b0001
_BLOCK_RES0 = Bits(63, 8)
_CONTIGUOUS_RES0 = Bits(63, 10)
_TABLE_RES0_HIGH = Bits(63, 52)
_TABLE_RES0_LOW = Bits(11, 4)
_TABLE_ADDRESS_TOP = 55
_GPIS_PER_ENTRY_BITS = 4

NO_ACCESS, SECURE, NON_SECURE, ROOT, REALM, ANY = 0b0000, 0b1000, 0b1001, 0b1010, 0b1011, 0b1111
_OWNER = {SECURE: Space.SECURE, NON_SECURE: Space.NON_SECURE, ROOT: Space.ROOT, REALM: Space.REALM}


class Violation(NamedTuple):
    """Why a granule may not be accessed: ``kind`` is "walk", "address_size", "external_abort" or "fail" (the
    granule belongs to another space); ``level`` is the level of the granule protection table."""

    kind: str
    level: int


class GranuleTable:
    """The granule protection tables of a machine, with the check switched on."""

    __slots__ = ("base", "consistent", "granule", "l0_bits", "pps", "read", "sel2")

    def __init__(
        self, gpccr: int, gptbr: int, pamax: int, sel2: bool, read: Callable[[int, int], bytes]
    ) -> None:
        pps = PPS(gpccr)
        self.pps = PA_SIZES[pps]
        self.granule = _GRANULE.get(PGS(gpccr), 12)
        self.l0_bits = _L0_BITS.get(L0GPTSZ(gpccr), 30)
        self.consistent = (
            pps != 0b111
            and self.pps <= pamax
            and PGS(gpccr) in _GRANULE
            and SH(gpccr) != 0b01
            and (bool(ORGN(gpccr) or IRGN(gpccr)) or SH(gpccr) == 0b10)
        )
        self.base = BADDR(gptbr) << _BADDR_LSB
        self.sel2 = sel2
        self.read = read

    def check(self, address: int, space: Space) -> Violation | None:
        """Return why an access of ``space`` to a physical address is refused, None when it is not."""
        if not self.consistent:
            return Violation("walk", 0)
        if address >> self.pps:
            return None if space is Space.NON_SECURE else Violation("fail", 0)
        if self.base >> self.pps:
            return Violation("address_size", 0)
        found = self._walk(address)
        if isinstance(found, Violation):
            return found
        gpi, level = found
        return None if gpi == ANY or _OWNER.get(gpi) is space else Violation("fail", level)

    def _entry(self, address: int, level: int) -> int | Violation:
        try:
            return int.from_bytes(self.read(address, 8), "little")
        except MemoryUnavailable as error:
            if error.unsaved:
                raise
            return Violation("external_abort", level)

    def _walk(self, address: int) -> tuple[int, int] | Violation:
        """Return the GPI of a granule and the level that gave it."""
        table_bits = max(self.pps - self.l0_bits + 3, _BADDR_LSB)
        base = self.base & ~ones(table_bits)
        entry = self._entry(base + (address >> self.l0_bits) * 8, 0)
        if isinstance(entry, Violation):
            return entry
        if _TYPE(entry) == _BLOCK:
            if _BLOCK_RES0(entry) or not self._valid(_GPI(entry)):
                return Violation("walk", 0)
            return _GPI(entry), 0
        entry_bits = self.granule + _GPIS_PER_ENTRY_BITS
        level1_bits = self.l0_bits - entry_bits + 3
        if (
            _TYPE(entry) != _TABLE
            or _TABLE_RES0_HIGH(entry)
            or _TABLE_RES0_LOW(entry)
            or entry & ones(level1_bits) & ~ones(_BADDR_LSB)
        ):
            return Violation("walk", 0)
        table = entry & Bits(_TABLE_ADDRESS_TOP, level1_bits).in_place
        if table >> self.pps:
            return Violation("address_size", 0)
        index = (address & ones(self.l0_bits)) >> entry_bits
        entry = self._entry(table + index * 8, 1)
        if isinstance(entry, Violation):
            return entry
        return self._level1(entry, address >> self.granule & ones(_GPIS_PER_ENTRY_BITS))

    def _level1(self, entry: int, index: int) -> tuple[int, int] | Violation:
        if _TYPE(entry) == _CONTIGUOUS:
            if _CONTIGUOUS_RES0(entry) or not self._valid(_GPI(entry)) or not _CONTIG(entry):
                return Violation("walk", 1)
            return _GPI(entry), 1
        gpis = [entry >> 4 * i & 0xF for i in range(1 << _GPIS_PER_ENTRY_BITS)]
        if not all(map(self._valid, gpis)):
            return Violation("walk", 1)
        return gpis[index], 1

    def _valid(self, gpi: int) -> bool:
        if gpi == SECURE:
            return self.sel2
        return gpi in (NO_ACCESS, NON_SECURE, ROOT, REALM, ANY)


def granule_table(get: Callable[[str], int | None], read: Callable[[int, int], bytes]) -> GranuleTable | None:
    """Return the tables that GPCCR_EL3 and GPTBR_EL3 describe, None when no check is made.

    ``get`` gives a register by name or None, ``read`` physical memory.
    """
    gpccr = get("GPCCR_EL3")
    if not gpccr or not GPC(gpccr):
        return None
    have = features(get)
    if not have.rme:
        return None
    return GranuleTable(gpccr, get("GPTBR_EL3") or 0, have.pamax, have.sel2, read)
