"""A whole translation table as ranges: decoded a table at a time, merged, in ascending order, streamed.

Memory use does not grow with the table, and a range is handed out as soon as the next one does not continue it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import chain
from operator import attrgetter

from gdbhyp.arch import permissions, stage1, stage2
from gdbhyp.arch.attributes import combine, memory_words, par_shareability, stage2_memory_words
from gdbhyp.arch.fields import Bits, bit
from gdbhyp.arch.granules import CONTIGUOUS_BITS, DESCRIPTOR_BITS, leaf_bits
from gdbhyp.arch.regimes import Regime, Space
from gdbhyp.arch.spaces import Address
from gdbhyp.arch.stage1 import Stage1Params
from gdbhyp.arch.stage2 import Stage2Params
from gdbhyp.engine.machine import Machine
from gdbhyp.engine.mapped import (
    Batch,
    Budget,
    Found,
    MappedRange,
    Problem,
    Shape,
    cut_batches,
    joined_batches,
    moved,
    unfolded,
)
from gdbhyp.engine.tables import Mapper, Read, ShapeOf, Table
from gdbhyp.engine.translate import FAULT_WORDS, stage1_memory
from gdbhyp.engine.walk import Leaf1, Walker, WalkFault, walker
from gdbhyp.errors import MemoryUnavailable, UsageError

__all__ = ["Budget", "MappedRange", "Problem", "Shape", "map_both", "map_stage"]

_TOP = 1 << 64

_S1_IGNORED = Bits(58, 55).in_place | stage1.AMEC.in_place | stage1.NG.in_place | stage1.GP.in_place
_S2_IGNORED = bit(11).in_place | Bits(57, 56).in_place | bit(63).in_place
"""Leaf bits that mean nothing to a translation: for software, or to the TLB and branch protection."""

_OWN_LEVEL = {Regime.EL10: "EL1", Regime.EL3: "EL3"}
"""The privileged level of a regime, EL2 for the others."""

_PROBE = 4096
"""The granule of a granule protection check is no smaller."""


def _stage1_shape(p: Stage1Params, output_space: str) -> ShapeOf:
    own = _OWN_LEVEL.get(p.regime, "EL2")

    def shape(level: int, descriptor: int, tables: int, space: Space) -> Shape:
        out = stage1.leaf_space(p, space, descriptor)
        privileged, user = permissions.stage1_rights(p, descriptor, tables, out)
        attr, sh = stage1_memory(Leaf1(0, out, p, descriptor, level, tables, False))
        return Shape(
            input_space="VA",
            output_space=output_space,
            own=own,
            level=level,
            page_size=1 << leaf_bits(p.tgx, level),
            privileged=privileged.both,
            unprivileged=user.both if p.regime.has_unprivileged else None,
            memory=memory_words(attr),
            attr=attr,
            sh=par_shareability(attr, sh),
            contiguous=(
                not p.pnch and (p.tgx, level) in CONTIGUOUS_BITS and bool(stage1.CONTIGUOUS(descriptor))
            ),
            access_flag=p.ha or bool(stage1.AF(descriptor)),
            space=out.value,
        )

    return shape


def _stage2_shape(p: Stage2Params) -> ShapeOf:
    def shape(level: int, descriptor: int, tables: int, space: Space) -> Shape:
        base = permissions.stage2_base(p, descriptor)
        overlay = permissions.stage2_overlay(p, descriptor)
        privileged, unprivileged = base.privileged, base.unprivileged
        if overlay is not None:
            privileged, unprivileged = privileged & overlay.privileged, unprivileged & overlay.unprivileged
        memattr = stage2.MEM_ATTR(descriptor)
        return Shape(
            input_space="IPA",
            output_space="PA",
            own=_OWN_LEVEL[Regime.EL10],
            level=level,
            page_size=1 << leaf_bits(p.tgx, level),
            privileged=privileged,
            unprivileged=unprivileged,
            memory=stage2_memory_words(memattr, p.fwb),
            attr=memattr,
            sh=p.shareability(descriptor),
            contiguous=(p.tgx, level) in CONTIGUOUS_BITS and bool(stage2.CONTIGUOUS(descriptor)),
            access_flag=p.ha or bool(stage2.AF(descriptor)),
            space=p.space_of(descriptor).value,
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
    on. ``budget`` bounds the tables read; with ``merge`` False no range is joined over the end of a table.

    :raises Unsupported: if a feature is in use that is not modelled.
    :raises UsageError: if the regime has no stage 2.
    """
    low, high = start or 0, _TOP if end is None else end
    # A chain hands out the ranges of a batch without any Python in between.
    return chain.from_iterable(_stage_batches(machine, regime, stage, low, high, budget or Budget(), merge))


def _stage_batches(
    machine: Machine, regime: Regime, stage: int, low: int, high: int, budget: Budget, merge: bool
) -> Iterator[Batch]:
    found: Iterator[Batch]
    if stage == 2:
        if regime is not Regime.EL10:
            raise UsageError(f"the {regime.value} regime has no stage 2")
        found = _SecondStage(walker(machine, regime, force_stage2=True), budget).batches(low, high)
    else:
        walk = walker(machine, regime)
        two = regime is Regime.EL10 and walk.controls.el2_enabled
        found = _stage1_batches(walk, "IPA" if two else "PA", low, high, budget)
    yield from cut_batches(joined_batches(found) if merge else found, low, high)


def _stage1_batches(walk: Walker, output_space: str, low: int, high: int, budget: Budget) -> Iterator[Batch]:
    shapes: dict[Shape, Shape] = {}
    halves = (False, True) if walk.regime.has_unprivileged else (False,)
    for upper in halves:
        p = walk.first(stage1.VA_RANGE.in_place if upper else 0)
        if not p.enabled:
            if not upper:
                yield from _flat(p, output_space, low, high)
            continue
        if p.epd:
            continue
        if p.txsz_faults:
            start = _TOP >> 1 if upper else 0
            yield _registers_problem(start, "TCR_ELx.TxSZ is out of range for this processor")
            continue
        first = p.va_base
        if p.base & p.beyond:
            yield _registers_problem(first, "TTBRn_ELx points beyond the output address size")
            continue
        mapper = Mapper(
            stage=1,
            params=p,
            read=_ThroughStage2(walk).read if walk.second is not None else _plain(walk),
            shape=_stage1_shape(p, output_space),
            ignored=_stage1_ignored(p),
            table_space="IPA" if walk.second is not None else "PA",
            interned=shapes,
            budget=budget,
        )
        table = Table(0, p.base, first, 0, p.space)
        yield from mapper.batches(table, max(low, first), min(high, first + (1 << p.input_bits)))


def _stage1_ignored(p: Stage1Params) -> int:
    ignored = _S1_IGNORED | (stage1.AF.in_place if p.ha else 0)
    # In EL3's regime nG is NSE, a part of the output address's space.
    return ignored & ~stage1.NSE.in_place if p.space is Space.ROOT else ignored


_REMEMBERED = 1 << 16
"""So many ranges of stage 2 are remembered while the map of both stages comes back to them."""


class _SecondStage:
    """The stage-2 tables of a walk; asked several times, it remembers what their descriptors mean."""

    def __init__(self, walk: Walker, budget: Budget) -> None:
        self._p = p = walk.second
        self._mapper = None
        self._known: dict[int, list[Found]] = {}
        self._room = _REMEMBERED
        if p is not None:
            self._mapper = Mapper(
                stage=2,
                params=p,
                read=_plain(walk),
                shape=_stage2_shape(p),
                ignored=_S2_IGNORED | (stage2.AF.in_place if p.ha else 0),
                table_space="PA",
                interned={},
                budget=budget,
            )

    def batches(self, low: int, high: int) -> Iterator[Batch]:
        p = self._p
        if p is None or self._mapper is None:
            yield _registers_problem(0, "EL2 is not enabled in this Security state, so there is no stage 2")
        elif p.misprogrammed:
            yield _registers_problem(0, "VTCR_EL2.T0SZ and SL0 do not go together, or are out of range")
        elif p.base & p.beyond:
            yield _registers_problem(0, "VTTBR_EL2 points beyond the output address size")
        else:
            table = Table(0, p.base, 0, 0, p.table_space)
            yield from self._mapper.batches(table, low, min(high, 1 << p.input_bits))

    def part(self, low: int, high: int) -> Iterator[Batch]:
        """Yield the same, joined and cut to what is asked for.

        Of less than a table of the final level maps, all that one maps is remembered: the next part is likely there.
        """
        if self._p is None or not self._p.levels or high - low >= (span := _final_span(self._p)):
            yield from self._joined(low, high)
            return
        for start in range(low // span * span, high, span):
            known = self._known.get(start)
            if known is None:
                known = self._remember(start, list(chain.from_iterable(self._joined(start, start + span))))
            first = bisect_right(known, low, key=_end)
            last = bisect_left(known, high, first, key=_start)
            if first < last:
                yield from cut_batches((known[first:last],), low, high)

    def _joined(self, low: int, high: int) -> Iterator[Batch]:
        return cut_batches(joined_batches(self.batches(low, high)), low, high)

    def _remember(self, start: int, found: list[Found]) -> list[Found]:
        self._room -= len(found) + 1
        if self._room < 0:
            self._known.clear()
            self._room = _REMEMBERED
        self._known[start] = found
        return found


def _final_span(p: Stage2Params) -> int:
    """How much a table of the final level maps."""
    level = p.levels[-1]
    return (level.index_mask >> DESCRIPTOR_BITS) + 1 << level.shift + DESCRIPTOR_BITS


_start, _end = attrgetter("start"), attrgetter("end")


def _plain(walk: Walker) -> Read:
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


def _registers_problem(start: int, text: str) -> Batch:
    end = _TOP if start else _TOP >> 1
    return (Problem("registers", Address(start), Address(end), None, None, "", None, text),)


def _flat(p: Stage1Params, output_space: str, low: int, high: int) -> Iterator[Batch]:
    """The one range of a stage that is off: addresses are what they are, up to the physical address size."""
    start, end = low, min(high, 1 << p.pamax)
    if start >= end:
        return
    attr, sh = stage1_memory(Leaf1(0, p.space, p, None, None, 0, False))
    rights = permissions.RWX
    shape = Shape(
        input_space="VA",
        output_space=output_space,
        own=_OWN_LEVEL.get(p.regime, "EL2"),
        level=None,
        page_size=0,
        privileged=rights,
        unprivileged=rights if p.regime.has_unprivileged else None,
        memory=memory_words(attr),
        attr=attr,
        sh=par_shareability(attr, sh),
        contiguous=False,
        access_flag=True,
        space=p.space.value,
    )
    yield (MappedRange(Address(start), Address(end), Address(start), False, shape),)


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
    low, high = start or 0, _TOP if end is None else end
    return chain.from_iterable(_both_batches(machine, low, high, budget or Budget()))


def _both_batches(machine: Machine, low: int, high: int, budget: Budget) -> Iterator[Batch]:
    walk = walker(machine, Regime.EL10, force_stage2=True)
    if walk.second is None:
        yield from _stage_batches(machine, Regime.EL10, 1, low, high, budget, True)
        return
    first = cut_batches(joined_batches(_stage1_batches(walk, "IPA", low, high, budget)), low, high)
    both = _Combined(walk, budget).batches(chain.from_iterable(first))
    yield from cut_batches(joined_batches(both), low, high)


class _Combined:
    """Puts stage 2 behind the ranges of stage 1."""

    def __init__(self, walk: Walker, budget: Budget) -> None:
        self._second = _SecondStage(walk, budget)
        self._walk = walk
        self._shapes: dict[tuple[Shape, Shape], Shape] = {}
        self._interned: dict[Shape, Shape] = {}

    def batches(self, found: Iterator[MappedRange | Problem]) -> Iterator[Batch]:
        """Yield what the ranges of stage 1 map to after stage 2."""
        for first in found:
            if isinstance(first, Problem):
                yield (first,)
                continue
            size = first.shape.page_size if first.constant else first.end - first.start
            for start in range(first.start, first.end, size):
                yield from self._behind(first, start, size)

    def _behind(self, first: MappedRange, start: int, size: int) -> Iterator[Batch]:
        """Yield what stage 2 makes of ``size`` bytes of IPAs from ``first.output`` on, mapped at VA ``start``."""
        low, high = first.output, first.output + size
        distance = start - low
        # Where stage 1 has the smaller page, its size is the size of both together.
        page = first.shape.page_size or _TOP
        for batch in self._second.part(low, high):
            yield [
                MappedRange(
                    Address(item.start + distance),
                    Address(item.end + distance),
                    item.output,
                    item.constant,
                    self._shape(first.shape, item.shape),
                )
                if isinstance(item, MappedRange)
                else moved((item,), distance)[0]
                for item in unfolded(batch, page)
            ]

    def _shape(self, first: Shape, second: Shape) -> Shape:
        found = self._shapes.get((first, second))
        if found is None:
            made = _both_shape(self._walk, first, second)
            found = self._shapes[first, second] = self._interned.setdefault(made, made)
        return found


def _both_shape(walk: Walker, first: Shape, second: Shape) -> Shape:
    assert walk.second is not None
    attr, sh = combine(first.attr, first.sh, second.attr, second.sh, walk.second.memory)
    user = None if first.unprivileged is None else first.unprivileged & (second.unprivileged or 0)
    sizes = [size for size in (first.page_size, second.page_size) if size]
    return Shape(
        input_space="VA",
        output_space="PA",
        own=first.own,
        level=second.level,
        page_size=min(sizes),
        privileged=first.privileged & second.privileged,
        unprivileged=user,
        memory=memory_words(attr),
        attr=attr,
        sh=sh,
        contiguous=first.contiguous and second.contiguous,
        access_flag=first.access_flag and second.access_flag,
        space=second.space,
    )
