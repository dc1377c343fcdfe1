"""The tables of a tree themselves: where each is, and which kinds of descriptors they hold.

A map says what is reached, and merges; this says by what. Descriptors that differ in nothing but their output address
are of one kind, and of each kind the first is kept with its address. A table that is pointed to from several places
is looked at once.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from gdbhyp.arch.fields import Bits, ones
from gdbhyp.arch.granules import DESCRIPTOR_BITS, FINAL_LEVEL, Level
from gdbhyp.arch.regimes import Regime
from gdbhyp.arch.spaces import Address, Word
from gdbhyp.arch.stage1 import Stage1Params
from gdbhyp.arch.stage2 import Stage2Params
from gdbhyp.engine.machine import Machine, Reader
from gdbhyp.engine.translate import Stage2Reader
from gdbhyp.engine.walk import walker
from gdbhyp.errors import MemoryUnavailable

_TYPE, _TABLE, _VALID = 0b11, 0b11, 0b01
_HIERARCHICAL = Bits(63, 59).in_place
_WORD = ones(64)
_CHUNK = 4096
_MOST_KINDS = 1 << 14


@dataclass(frozen=True, slots=True)
class Table:
    """One table: ``size`` bytes at ``address``, for inputs from ``start`` on.

    ``pieces`` are the physical ranges it lies in, more than one only where a stage 2 scatters it. The descriptor that
    points to it is None for the first table, which a register points to.
    """

    level: int
    address: Address
    size: int
    start: Address
    pieces: tuple[tuple[int, int], ...]
    descriptor_address: Address | None
    descriptor: Word | None


@dataclass(slots=True)
class Kind:
    """Leaf descriptors that are equal but for the output address: how many, and the first of them.

    ``tables`` is the OR of the attributes of the table descriptors above; ``reserved`` says that the descriptor is
    valid and its type is not one of this level.
    """

    level: int
    tables: int
    reserved: bool
    count: int
    start: Address
    address: Address
    descriptor: Word


@dataclass(frozen=True)
class Census:
    """The tables and the kinds of leaves; ``unreadable`` are tables that could not be read, and why.

    ``space`` is that of all addresses of tables and descriptors, "PA", or "IPA" behind a stage 2; ``complete`` is
    False where there were more tables than the budget, or absurdly many kinds.
    """

    space: str
    tables: tuple[Table, ...]
    kinds: tuple[Kind, ...]
    unreadable: tuple[tuple[Table, str], ...]
    complete: bool


class _Below(NamedTuple):
    depth: int
    address: int
    start: int
    tables: int
    descriptor_address: int | None
    descriptor: int | None


def census(machine: Machine, regime: Regime, stages: str, *, upper: bool, most_tables: int) -> Census:
    """Look at every table of a tree once; ``stages`` is "1", "2", or "both" for a stage 1 behind a stage 2.

    :raises Unsupported: if a feature is in use that is not modelled.
    """
    params: Stage1Params | Stage2Params
    if stages == "2":
        second = walker(machine, regime, force_stage2=True).second
        if second is None or second.misprogrammed:
            return _NOTHING
        params = second
        start = 0
    else:
        first = walker(machine, regime).first(1 << 55 if upper else 0)
        if not first.enabled or first.epd or first.txsz_faults:
            return _NOTHING
        params = first
        start = first.va_base
    if params.base & params.beyond:
        return _NOTHING
    if stages == "both":
        return _Counter(params, Stage2Reader(machine), most_tables).run(start, "IPA")
    return _Counter(params, machine.memory, most_tables).run(start, "PA")


_NOTHING = Census("PA", (), (), (), True)


class _Counter:
    def __init__(self, params: Stage1Params | Stage2Params, memory: Reader, most: int) -> None:
        self._memory = memory
        self._levels = params.levels
        self._base = params.base
        self._beyond = params.beyond
        self._in_place, self._high, self._high_shift = params.format
        self._rest = _WORD & ~(self._in_place | self._high)
        self._order = ">" if params.ee else "<"
        self._most = most
        self._tables: list[Table] = []
        self._unreadable: list[tuple[Table, str]] = []
        self._kinds: dict[tuple[int, int, int], Kind] = {}
        self._all_kinds = True

    def run(self, start: int, space: str) -> Census:
        open_tables = [_Below(0, self._base, start, 0, None, None)]
        seen = set()
        while open_tables and len(self._tables) < self._most:
            at = open_tables.pop()
            if (at.depth, at.address, at.tables) in seen:
                continue
            seen.add((at.depth, at.address, at.tables))
            open_tables.extend(reversed(list(self._table(at))))
        return Census(
            space,
            tuple(self._tables),
            tuple(self._kinds.values()),
            tuple(self._unreadable),
            complete=self._all_kinds and not open_tables,
        )

    def _table(self, at: _Below) -> Iterator[_Below]:
        """Record one table and count its leaves; yield the tables below it."""
        level = self._levels[at.depth]
        size = ((level.index_mask >> DESCRIPTOR_BITS) + 1) * 8
        table = Table(
            level.level,
            Address(at.address),
            size,
            Address(at.start),
            self._pieces(at.address, size),
            None if at.descriptor_address is None else Address(at.descriptor_address),
            None if at.descriptor is None else Word(at.descriptor),
        )
        self._tables.append(table)
        try:
            data = self._memory.read(at.address, size)
        except MemoryUnavailable as error:
            self._unreadable.append((table, error.reason))
            return
        entries = struct.unpack(f"{self._order}{size // 8}Q", data)
        self._count(at, level, entries)
        if level.level == FINAL_LEVEL:
            return
        for index, descriptor in enumerate(entries):
            if descriptor & _TYPE == _TABLE:
                below = descriptor & self._in_place | (descriptor & self._high) << self._high_shift
                if not below & self._beyond:
                    start = at.start + index * (level.offset_mask + 1)
                    tables = at.tables | descriptor & _HIERARCHICAL
                    yield _Below(at.depth + 1, below, start, tables, at.address + 8 * index, descriptor)

    def _count(self, at: _Below, level: Level, entries: tuple[int, ...]) -> None:
        rest = self._rest
        for bits, count in Counter(map(rest.__and__, entries)).items():
            form = bits & _TYPE
            if not form & _VALID or (form == _TABLE and level.level != FINAL_LEVEL):
                continue
            key = level.level, bits, at.tables
            kind = self._kinds.get(key)
            if kind is not None:
                kind.count += count
                continue
            if len(self._kinds) >= _MOST_KINDS:
                self._all_kinds = False
                return
            index = next(i for i, entry in enumerate(entries) if entry & rest == bits)
            self._kinds[key] = Kind(
                level.level,
                at.tables,
                form != _TABLE if level.level == FINAL_LEVEL else not level.block,
                count,
                Address(at.start + index * (level.offset_mask + 1)),
                Address(at.address + 8 * index),
                Word(entries[index]),
            )

    def _pieces(self, address: int, size: int) -> tuple[tuple[int, int], ...]:
        if not isinstance(self._memory, Stage2Reader):
            return ((address, address + size),)
        found = []
        for at in range(address, address + size, _CHUNK):
            physical = self._memory.physical(at)
            if physical is not None:
                found.append((physical, physical + min(_CHUNK, address + size - at)))
        return tuple(found)
