"""A whole translation table as ranges: decoded a table at a time, merged, in ascending order, streamed.

Memory use does not grow with the table: one table a level is held, and a range is handed out as soon as the
next one does not continue it. The walk's depth is bounded by the levels, so tables that point to themselves
end; how much such tables can unfold is bounded by the budget.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple

from gdbhyp.arch import permissions, stage1, stage2
from gdbhyp.arch.attributes import combine, memory_words, shareability_words, stage2_memory_words
from gdbhyp.arch.fields import Bits, bit
from gdbhyp.arch.granules import CONTIGUOUS_BITS, DESCRIPTOR_BITS, FINAL_LEVEL, Level, leaf_bits
from gdbhyp.arch.regimes import Regime, Space
from gdbhyp.arch.spaces import Address, Word
from gdbhyp.arch.stage1 import Stage1Params
from gdbhyp.arch.stage2 import Stage2Params
from gdbhyp.engine.machine import Machine
from gdbhyp.engine.translate import FAULT_WORDS, stage1_memory
from gdbhyp.engine.walk import Leaf1, Walker, WalkFault, walker
from gdbhyp.errors import MemoryUnavailable, UsageError

_TYPE = 0b11
_TABLE = 0b11
_BLOCK = 0b01
_TOP = 1 << 64

_S1_IGNORED = Bits(58, 55).in_place | stage1.AMEC.in_place | stage1.NG.in_place | stage1.GP.in_place
_S2_IGNORED = bit(11).in_place | Bits(57, 56).in_place | bit(63).in_place
"""Leaf bits that mean nothing to a translation: for software, or to the TLB and branch protection."""

_HIERARCHICAL = Bits(63, 59).in_place
_SHAPE_LIMIT = 4096
_PROBE = 4096
"""Memory comes and goes in pages: a page that cannot be read at either end is not tried in between."""


class MappedRange(NamedTuple):
    """``start`` to ``end`` (exclusive) is mapped from ``output`` on, all of it with the same attributes.

    ``read``, ``write`` and ``execute`` are privileged rights, the ``el0_`` ones those of EL0 (None in a
    regime without it); ``exec`` says in words who may execute. With ``access_flag`` False an access faults
    all the same. ``level`` is None and ``page_size`` 0 when translation is off. ``constant`` says that every
    page of the range maps to the same ``output`` page. ``attr`` is the MAIR attribute byte, or MemAttr[3:0]
    of stage 2 alone. A tuple, because a fragmented table has hundreds of thousands of them.
    """

    start: Address
    end: Address
    output: Address
    constant: bool
    input_space: str
    output_space: str
    level: int | None
    page_size: int
    read: bool
    write: bool
    execute: bool
    el0_read: bool | None
    el0_write: bool | None
    el0_execute: bool | None
    exec: str
    memory: str
    shareability: str
    contiguous: bool
    access_flag: bool
    space: str
    attr: int


@dataclass(frozen=True, slots=True)
class Problem:
    """``start`` to ``end`` (exclusive) of the input could not be followed, and why.

    ``kind`` is "unreadable" (a table), "reserved" (a descriptor), "address_size" (a descriptor that points
    beyond the output size), "registers" (they allow no walk) or "budget" (the rest was not looked at).
    ``address`` is that of the table or descriptor, in ``address_space``; ``descriptor`` its value if there is
    one.
    """

    kind: str
    start: Address
    end: Address
    level: int | None
    address: Address | None
    address_space: str
    descriptor: Word | None
    text: str


class _Shape(NamedTuple):
    """Everything about a range but where it is; equal shapes merge."""

    level: int | None
    page_size: int
    privileged: int
    unprivileged: int | None
    memory: str
    attr: int
    sh: int
    contiguous: bool
    access_flag: bool
    space: str


class _Run(NamedTuple):
    start: int
    end: int
    output: int
    shape: _Shape
    constant: bool = False


_Found = _Run | Problem


class Budget:
    """How many tables may still be read; None for as many as there are."""

    def __init__(self, tables: int | None = None) -> None:
        self.left = tables

    def spend(self) -> bool:
        """Take one table from the budget; False when there is none left."""
        if self.left is None:
            return True
        self.left -= 1
        return self.left >= 0


class _Table(NamedTuple):
    """A table to decode: where it is, where its input starts, and what the tables above it say."""

    depth: int
    address: int
    base: int
    tables: int
    space: Space


class _Mapper:
    """Decodes the tables of one stage and one VA range."""

    def __init__(
        self,
        stage: int,
        params: Stage1Params | Stage2Params,
        read: Callable[[int, int, Space], bytes],
        shape: Callable[[int, int, int, Space], _Shape],
        ignored: int,
        table_space: str,
        start: int,
        end: int,
        budget: Budget,
    ) -> None:
        self.stage = stage
        self.levels = params.levels
        self.beyond = params.beyond
        self.in_place, self.high, self.high_shift = params.format
        self.order = ">" if params.ee else "<"
        self.read = read
        self.shape = shape
        self.shapes: dict[tuple[int, int, int, Space], _Shape] = {}
        self.interned: dict[_Shape, _Shape] = {}
        self.key_mask = ~(ignored | self.in_place | self.high)
        self.table_space = table_space
        self.start = start
        self.end = end
        self.budget = budget

    def runs(self, table: _Table) -> Iterator[_Found]:
        """Decode a table and those below it."""
        open_tables = [self._items(table)]
        while open_tables:
            for item in open_tables[-1]:
                if isinstance(item, _Table):
                    open_tables.append(self._items(item))
                    break
                yield item
            else:
                open_tables.pop()

    def _items(self, table: _Table) -> Iterator[_Found | _Table]:
        """Decode one table; those below it come as they are."""
        level = self.levels[table.depth]
        bits = level.shift + DESCRIPTOR_BITS
        span = 1 << bits
        count = (level.index_mask >> DESCRIPTOR_BITS) + 1
        first = max(0, self.start - table.base >> bits)
        last = min(count, (self.end - table.base + span - 1) >> bits)
        if first >= last:
            return
        base = table.base + first * span
        if not self.budget.spend():
            yield self._problem(
                "budget", base, table.base + last * span, level, table, "the budget is used up"
            )
            return
        address = table.address + first * 8
        for at, data in self._pieces(address, (last - first) * 8, table.space):
            start = base + (at - address) // 8 * span
            if isinstance(data, MemoryUnavailable):
                end = start + data.size // 8 * span
                text = f"table not readable: {data.reason}"
                yield self._problem("unreadable", start, end, level, table, text, at)
            elif level.level == FINAL_LEVEL:
                yield from self._pages(table, level, start, at, data)
            else:
                yield from self._mixed(table, level, start, at, data)

    def _entries(self, data: bytes) -> tuple[int, ...]:
        return struct.unpack(f"{self.order}{len(data) // 8}Q", data)

    def _pages(self, table: _Table, level: Level, base: int, address: int, data: bytes) -> Iterator[_Found]:
        """Decode final-level descriptors: a run of pages costs one comparison a descriptor."""
        step = level.offset_mask + 1
        expected = -1
        run_start = run_output = 0
        run_shape: _Shape | None = None
        leaf_mask, high, high_shift = level.leaf_mask, self.high, self.high_shift
        key_mask, beyond = self.key_mask, self.beyond
        last_key = -1
        last_shape: _Shape | None = None
        at = base
        entries = self._entries(data)
        if entries[0] & _TYPE == _TABLE and len(entries) > 1 and entries.count(entries[0]) == len(entries):
            # One page, mapped all over: only the first is decoded, then stands for all.
            for only in self._pages(table, level, base, address, data[:8]):
                end = base + step * len(entries)
                if isinstance(only, _Run):
                    yield only._replace(end=end, constant=True)
                else:
                    yield replace(only, end=Address(end))
            return
        for descriptor in entries:
            if descriptor == expected:
                expected += step
                at += step
                continue
            if run_shape is not None:
                yield _Run(run_start, at, run_output, run_shape)
                run_shape = None
            expected = -1
            if descriptor & _TYPE == _TABLE:
                output = descriptor & leaf_mask | (descriptor & high) << high_shift
                if output & beyond:
                    yield self._beyond(table, level, at, address + (at - base) // step * 8, descriptor)
                else:
                    if descriptor & key_mask != last_key or last_shape is None:
                        last_key = descriptor & key_mask
                        last_shape = self._shape_of(table, level, descriptor)
                    run_start, run_output, run_shape = at, output, last_shape
                    expected = self._successor(descriptor, step, len(entries))
            elif descriptor & 1:
                yield self._reserved(table, level, at, address + (at - base) // step * 8, descriptor)
            at += step
        if run_shape is not None:
            yield _Run(run_start, at, run_output, run_shape)

    def _successor(self, descriptor: int, step: int, count: int) -> int:
        """The descriptor of the next page of a run: -1 if adding could carry out of the address or out of
        range.
        """
        low = descriptor & self.in_place
        if (low + step * count) & ~(self.in_place | step - 1):
            return -1
        if (low + step * count) & self.beyond:
            return -1
        return descriptor + step

    def _mixed(
        self, table: _Table, level: Level, base: int, address: int, data: bytes
    ) -> Iterator[_Found | _Table]:
        """Decode descriptors of a level that has tables below it."""
        step = level.offset_mask + 1
        if data == bytes(len(data)):
            return
        entries = self._entries(data)
        uniform = len(entries) > 1 and entries.count(entries[0]) == len(entries)
        at = base - step
        for index, descriptor in enumerate(entries):
            at += step
            if not descriptor & 1:
                continue
            where = address + index * 8
            if descriptor & _TYPE == _TABLE:
                below = descriptor & self.in_place | (descriptor & self.high) << self.high_shift
                if below & self.beyond:
                    yield self._beyond(table, level, at, where, descriptor)
                    continue
                space = table.space
                if space is Space.SECURE and descriptor & stage1.NS_TABLE.in_place and self.stage == 1:
                    space = Space.NON_SECURE
                tables = table.tables | descriptor & _HIERARCHICAL
                child = _Table(table.depth + 1, below, at, tables, space)
                if uniform and index == 0:
                    found = list(_first_two(self.runs(child)))
                    only = found[0] if len(found) == 1 else None
                    if isinstance(only, _Run) and only.constant and (only.start, only.end) == (at, at + step):
                        yield only._replace(end=at + step * len(entries))
                        return
                yield child
            elif level.block:
                output = descriptor & level.leaf_mask | (descriptor & self.high) << self.high_shift
                if output & self.beyond:
                    yield self._beyond(table, level, at, where, descriptor)
                else:
                    yield _Run(at, at + step, output, self._shape_of(table, level, descriptor))
            else:
                yield self._reserved(table, level, at, where, descriptor)

    def _shape_of(self, table: _Table, level: Level, descriptor: int) -> _Shape:
        key = (level.level, descriptor & self.key_mask, table.tables, table.space)
        found = self.shapes.get(key)
        if found is None:
            if len(self.shapes) >= _SHAPE_LIMIT:
                self.shapes.clear()
            made = self.shape(level.level, descriptor, table.tables, table.space)
            found = self.shapes[key] = self.interned.setdefault(made, made)
        return found

    def _pieces(
        self, address: int, size: int, space: Space
    ) -> Iterator[tuple[int, bytes | MemoryUnavailable]]:
        """Read a part of a table; what cannot be read comes as the error, with its address and size."""
        try:
            yield address, self.read(address, size, space)
            return
        except MemoryUnavailable as error:
            whole = MemoryUnavailable(error.space, address, size, error.reason)
        if size <= 8 or (size <= _PROBE and not self._ends_readable(address, size, space)):
            yield address, whole
            return
        half = size // 16 * 8
        yield from self._pieces(address, half, space)
        yield from self._pieces(address + half, size - half, space)

    def _ends_readable(self, address: int, size: int, space: Space) -> bool:
        for at in (address, address + size - 8):
            try:
                self.read(at, 8, space)
            except MemoryUnavailable:
                continue
            return True
        return False

    def _problem(
        self,
        kind: str,
        start: int,
        end: int,
        level: Level,
        table: _Table,
        text: str,
        address: int | None = None,
        descriptor: int | None = None,
    ) -> Problem:
        return Problem(
            kind,
            Address(start),
            Address(end),
            level.level,
            Address(table.address if address is None else address),
            self.table_space,
            None if descriptor is None else Word(descriptor),
            text,
        )

    def _beyond(self, table: _Table, level: Level, at: int, address: int, descriptor: int) -> Problem:
        text = "the address in the descriptor is beyond the output address size"
        return self._problem(
            "address_size", at, at + level.offset_mask + 1, level, table, text, address, descriptor
        )

    def _reserved(self, table: _Table, level: Level, at: int, address: int, descriptor: int) -> Problem:
        text = f"reserved descriptor encoding at level {level.level}"
        return self._problem(
            "reserved", at, at + level.offset_mask + 1, level, table, text, address, descriptor
        )


def _first_two(items: Iterator[_Found]) -> Iterator[_Found]:
    """The first items of a table below, merged, as far as it takes to see whether there is only one."""
    return islice(_merged(items), 2)


def _continues(run: _Run, new: _Run) -> _Run | None:
    """Return both as one range if they are one."""
    if new.start != run.end or new.shape is not run.shape:
        return None
    size = run.end - run.start
    if not run.constant and not new.constant and new.output == run.output + size:
        return run._replace(end=new.end)
    page = run.shape.page_size
    same = page and new.output == run.output
    if same and (run.constant or size == page) and (new.constant or new.end - new.start == page):
        return run._replace(end=new.end, constant=True)
    return None


def _merged(items: Iterator[_Found]) -> Iterator[_Found]:
    """Join neighbouring runs that continue each other, and neighbouring problems of the same kind."""
    last: _Found | None = None
    for item in items:
        if last is None:
            last = item
            continue
        joined: _Found | None = None
        if isinstance(last, _Run):
            if isinstance(item, _Run):
                joined = _continues(last, item)
        elif isinstance(item, Problem) and (item.kind, item.level, item.start) == (
            last.kind,
            last.level,
            last.end,
        ):
            joined = replace(last, end=item.end)
        if joined is None:
            yield last
            last = item
        else:
            last = joined
    if last is not None:
        yield last


def _exec_words(shape: _Shape, regime: Regime) -> str:
    own = "EL1" if regime is Regime.EL10 else "EL3" if regime is Regime.EL3 else "EL2"
    who = [own] if shape.privileged & permissions.EXECUTE else []
    if shape.unprivileged is not None and shape.unprivileged & permissions.EXECUTE:
        who.append("EL0")
    return "+".join(who) or "never"


def _ranges(
    items: Iterator[_Found], regime: Regime, input_space: str, output_space: str, low: int, high: int
) -> Iterator[MappedRange | Problem]:
    """Cut items to what was asked for and put them in words, each shape once."""
    words: dict[_Shape, tuple[object, ...]] = {}
    last: _Shape | None = None
    tail: tuple[object, ...] = ()
    for item in items:
        cut = item if item.start >= low and item.end <= high else _cut(item, low, high)
        if isinstance(cut, Problem):
            # What is wrong with the registers of one VA range says nothing about the other.
            if cut.start < cut.end:
                yield cut
            continue
        start, end, output, shape, constant = cut
        if shape is not last:
            found = words.get(shape)
            if found is None:
                found = words[shape] = _shape_words(shape, regime, input_space, output_space)
            tail = found
            last = shape
        yield MappedRange._make((start, end, output, constant, *tail))


def _shape_words(shape: _Shape, regime: Regime, input_space: str, output_space: str) -> tuple[object, ...]:
    """The fields of ``MappedRange`` that follow ``constant``."""
    el0 = shape.unprivileged
    return (
        input_space,
        output_space,
        shape.level,
        shape.page_size,
        bool(shape.privileged & permissions.READ),
        bool(shape.privileged & permissions.WRITE),
        bool(shape.privileged & permissions.EXECUTE),
        None if el0 is None else bool(el0 & permissions.READ),
        None if el0 is None else bool(el0 & permissions.WRITE),
        None if el0 is None else bool(el0 & permissions.EXECUTE),
        _exec_words(shape, regime),
        shape.memory,
        shareability_words(shape.sh),
        shape.contiguous,
        shape.access_flag,
        shape.space,
        shape.attr,
    )


def _stage1_shape(p: Stage1Params) -> Callable[[int, int, int, Space], _Shape]:
    def shape(level: int, descriptor: int, tables: int, space: Space) -> _Shape:
        out = stage1.leaf_space(p, space, descriptor)
        own, user = permissions.stage1_rights(p, descriptor, tables, out)
        attr, sh = stage1_memory(Leaf1(0, out, p, descriptor, level, tables, False))
        return _Shape(
            level,
            1 << leaf_bits(p.tgx, level),
            own.both,
            user.both if p.regime.has_unprivileged else None,
            memory_words(attr),
            attr,
            sh,
            not p.pnch and (p.tgx, level) in CONTIGUOUS_BITS and bool(stage1.CONTIGUOUS(descriptor)),
            p.ha or bool(stage1.AF(descriptor)),
            out.value,
        )

    return shape


def _stage2_shape(p: Stage2Params) -> Callable[[int, int, int, Space], _Shape]:
    def shape(level: int, descriptor: int, tables: int, space: Space) -> _Shape:
        base = permissions.stage2_base(p, descriptor)
        overlay = permissions.stage2_overlay(p, descriptor)
        privileged, unprivileged = base.privileged, base.unprivileged
        if overlay is not None:
            privileged, unprivileged = privileged & overlay.privileged, unprivileged & overlay.unprivileged
        memattr = stage2.MEM_ATTR(descriptor)
        return _Shape(
            level,
            1 << leaf_bits(p.tgx, level),
            privileged,
            unprivileged,
            stage2_memory_words(memattr, p.fwb),
            memattr,
            p.shareability(descriptor),
            (p.tgx, level) in CONTIGUOUS_BITS and bool(stage2.CONTIGUOUS(descriptor)),
            p.ha or bool(stage2.AF(descriptor)),
            p.space_of(descriptor).value,
        )

    return shape


class _ThroughStage2:
    """Reads stage-1 tables, which lie in IPA space, through stage 2."""

    def __init__(self, walk: Walker) -> None:
        self._walk = walk
        self._physical = _plain(walk)

    def read(self, address: int, size: int, space: Space) -> bytes:
        parts = []
        at, end = address, address + size
        while at < end:
            found = self._walk.locate(self._walk.second_of(space), at, space, None, None)
            if isinstance(found, WalkFault):
                reason = f"stage 2 has a {FAULT_WORDS[found.kind]} at level {found.level}"
                raise MemoryUnavailable("IPA", address, size, reason, at)
            page = 1 << leaf_bits(found.params.tgx, found.level)
            count = min(end - at, page - at % page)
            parts.append(self._physical(found.output, count, found.space))
            at += count
        return b"".join(parts)


def map_stage(
    machine: Machine,
    regime: Regime,
    stage: int,
    *,
    start: int | None = None,
    end: int | None = None,
    budget: Budget | None = None,
    merge: bool = True,
) -> Iterator[MappedRange | Problem]:
    """Yield what one stage maps, in ascending order of 64-bit input addresses, with what could not be
    followed.

    ``start`` and ``end`` (exclusive) prune: only tables that cover a part of them are read; ranges are cut to
    them. Stage 2 is walked also while HCR_EL2.VM = 0. Stage 1 of EL1&0 is read through stage 2 when that is
    on. ``budget`` bounds the tables read; ``merge`` False gives a range a descriptor (or run of pages in one
    table).

    :raises Unsupported: if a feature is in use that is not modelled.
    :raises UsageError: if the regime has no stage 2.
    """
    low, high = start or 0, _TOP if end is None else end
    limit = budget or Budget()
    if stage == 2:
        if regime is not Regime.EL10:
            raise UsageError(f"the {regime.value} regime has no stage 2")
        walk = walker(machine, regime, force_stage2=True)
        found = _stage2_runs(walk, low, high, limit)
        spaces = ("IPA", "PA")
    else:
        walk = walker(machine, regime)
        found = _stage1_runs(walk, low, high, limit)
        two = regime is Regime.EL10 and walk.controls.el2_enabled
        spaces = ("VA", "IPA" if two else "PA")
    yield from _ranges(_merged(found) if merge else found, regime, *spaces, low, high)


def _cut(item: _Found, low: int, high: int) -> _Found:
    """Cut an item to the addresses asked for."""
    start, end = max(item.start, low), min(item.end, high)
    if isinstance(item, Problem):
        return replace(item, start=Address(start), end=Address(end))
    output = item.output
    if item.constant:
        # Whole pages, or the output would not be that of every page.
        page = item.shape.page_size
        start, end = start // page * page, -(-end // page) * page
    else:
        output += start - item.start
    return item._replace(start=start, end=end, output=output)


def _stage1_runs(walk: Walker, low: int, high: int, budget: Budget) -> Iterator[_Found]:
    halves = (False, True) if walk.regime.has_unprivileged else (False,)
    for upper in halves:
        p = walk.first(stage1.VA_RANGE.in_place if upper else 0)
        if not p.enabled:
            if not upper:
                yield from _flat(p, low, high)
            continue
        if p.epd:
            continue
        if p.txsz_faults:
            start = _TOP >> 1 if upper else 0
            yield _registers_problem(start, "TCR_ELx.TxSZ is out of range for this processor")
            continue
        first = p.va_base
        reader: Callable[[int, int, Space], bytes]
        reader = _ThroughStage2(walk).read if walk.second is not None else _plain(walk)
        mapper = _Mapper(
            1,
            p,
            reader,
            _stage1_shape(p),
            _S1_IGNORED | (stage1.AF.in_place if p.ha else 0),
            "IPA" if walk.second is not None else "PA",
            max(low, first),
            min(high, first + (1 << p.input_bits)),
            budget,
        )
        if p.base & p.beyond:
            yield _registers_problem(first, "TTBRn_ELx points beyond the output address size")
            continue
        yield from mapper.runs(_Table(0, p.base, first, 0, p.space))


def _stage2_runs(walk: Walker, low: int, high: int, budget: Budget) -> Iterator[_Found]:
    p = walk.second
    if p is None:
        yield _registers_problem(0, "EL2 is not enabled in this Security state, so there is no stage 2")
        return
    if p.misprogrammed:
        yield _registers_problem(0, "VTCR_EL2.T0SZ and SL0 do not go together, or are out of range")
        return
    if p.base & p.beyond:
        yield _registers_problem(0, "VTTBR_EL2 points beyond the output address size")
        return
    mapper = _Mapper(
        2,
        p,
        _plain(walk),
        _stage2_shape(p),
        _S2_IGNORED | (stage2.AF.in_place if p.ha else 0),
        "PA",
        low,
        min(high, 1 << p.input_bits),
        budget,
    )
    yield from mapper.runs(_Table(0, p.base, 0, 0, p.table_space))


def _plain(walk: Walker) -> Callable[[int, int, Space], bytes]:
    """Read tables from physical memory, as far as the granule protection check lets the walk do so."""
    read, gpt = walk.read, walk.gpt
    if gpt is None:
        return lambda address, size, space: read(address, size)

    def checked(address: int, size: int, space: Space) -> bytes:
        for at in range(address & -_PROBE, address + size, _PROBE):
            violation = gpt.check(at, space)
            if violation is not None:
                reason = f"granule protection ({violation.kind} at level {violation.level})"
                raise MemoryUnavailable("PA", address, size, reason, max(at, address))
        return read(address, size)

    return checked


def _registers_problem(start: int, text: str) -> Problem:
    end = _TOP if start else _TOP >> 1
    return Problem("registers", Address(start), Address(end), None, None, "", None, text)


def _flat(p: Stage1Params, low: int, high: int) -> Iterator[_Found]:
    """The one range of a stage that is off: addresses are what they are, up to the physical address size."""
    start, end = low, min(high, 1 << p.pamax)
    if start >= end:
        return
    attr, sh = stage1_memory(Leaf1(0, p.space, p, None, None, 0, False))
    rights = permissions.RWX
    user = rights if p.regime.has_unprivileged else None
    yield _Run(
        start,
        end,
        start,
        _Shape(None, 0, rights, user, memory_words(attr), attr, sh, False, True, p.space.value),
    )


def map_both(
    machine: Machine,
    *,
    start: int | None = None,
    end: int | None = None,
    budget: Budget | None = None,
) -> Iterator[MappedRange | Problem]:
    """Yield what both stages of EL1&0 map together, VA to PA; parts whose IPA stage 2 does not map are left
    out.

    Stage 2 is used also while HCR_EL2.VM = 0. Arguments and errors are those of ``map_stage``.
    """
    limit = budget or Budget()
    walk = walker(machine, Regime.EL10, force_stage2=True)
    if walk.second is None:
        yield from map_stage(machine, Regime.EL10, 1, start=start, end=end, budget=limit)
        return
    low, high = start or 0, _TOP if end is None else end
    yield from _ranges(_merged(_both_runs(walk, low, high, limit)), Regime.EL10, "VA", "PA", low, high)


def _both_runs(walk: Walker, low: int, high: int, budget: Budget) -> Iterator[_Found]:
    shapes: dict[_Shape, _Shape] = {}
    for first in _merged(_stage1_runs(walk, low, high, budget)):
        if isinstance(first, Problem):
            yield first
            continue
        first = _cut_run(first, low, high)
        size = first.shape.page_size if first.constant else first.end - first.start
        copies = range(first.start, first.end, size) if first.constant else (first.start,)
        for base in copies:
            offset = base - first.output
            for second in _stage2_runs(walk, first.output, first.output + size, budget):
                piece = _cut(second, first.output, first.output + size)
                moved_start, moved_end = piece.start + offset, piece.end + offset
                if isinstance(piece, Problem):
                    yield replace(piece, start=Address(moved_start), end=Address(moved_end))
                    continue
                shape = _both_shape(walk, first.shape, piece.shape)
                yield _Run(moved_start, moved_end, piece.output, shapes.setdefault(shape, shape))


def _cut_run(run: _Run, low: int, high: int) -> _Run:
    if run.start >= low and run.end <= high:
        return run
    cut = _cut(run, low, high)
    assert isinstance(cut, _Run)
    return cut


def _both_shape(walk: Walker, first: _Shape, second: _Shape) -> _Shape:
    assert walk.second is not None
    attr, sh = combine(first.attr, first.sh, second.attr, second.sh, walk.second.memory)
    user = None if first.unprivileged is None else first.unprivileged & (second.unprivileged or 0)
    sizes = [size for size in (first.page_size, second.page_size) if size]
    return _Shape(
        second.level,
        min(sizes),
        first.privileged & second.privileged,
        user,
        memory_words(attr),
        attr,
        sh,
        first.contiguous and second.contiguous,
        first.access_flag and second.access_flag,
        second.space,
    )
