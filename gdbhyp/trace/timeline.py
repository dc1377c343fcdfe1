"""Who ran when, a lane for each CPU, in as many columns as there is room for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import ClassVar

from gdbhyp.arch.worlds import World
from gdbhyp.trace.events import Event, Taken
from gdbhyp.trace.listing import Filter, Symbol
from gdbhyp.trace.spans import Span, Spans, moment
from gdbhyp.trace.worlds import Party, WorldTracker

MOST_SPANS = 200_000


@dataclass(frozen=True)
class LaneSpan:
    """A world ran on the lane's CPU from ``begin_ns`` to ``end_ns`` of the source's clock."""

    world: World
    vmid: int | None
    begin_ns: int
    end_ns: int


@dataclass(frozen=True)
class Lane:
    """One CPU: who ran, in order and without overlaps, and when exceptions were taken."""

    cpu: int
    spans: tuple[LaneSpan, ...]
    exceptions_ns: tuple[int, ...]


@dataclass(frozen=True)
class TimelineReport:
    """The lanes of all CPUs between ``begin_ns`` and ``end_ns``; ``clock`` is False where events count as time."""

    kind: ClassVar[str] = "trace_timeline"

    begin_ns: int
    end_ns: int
    clock: bool
    lanes: tuple[Lane, ...]
    notes: tuple[str, ...] = ()
    columns: int = field(default=0, metadata={"json": False})


def timeline(
    events: Iterable[Event],
    tracker: WorldTracker,
    wanted: Filter,
    last: int,
    symbol: Symbol,
    columns: int = 0,
) -> TimelineReport:
    """Return the lanes over the last ``last`` wanted exceptions."""
    spans = Spans(tracker)
    ran: dict[int, list[Span]] = defaultdict(list)
    taken: list[tuple[int, int]] = []
    clock = True
    began: int | None = None
    for event in events:
        party, ended = spans.take(event)
        for span in ended:
            ran[span.cpu].append(span)
            if len(ran[span.cpu]) > MOST_SPANS:
                del ran[span.cpu][: MOST_SPANS // 2]
        if type(event) is not Taken or party is None:
            continue
        began = event.time if began is None else began
        if wanted.wants(event, party, began, symbol):
            clock = clock and event.time is not None
            taken.append((moment(event.time, event.seq), event.cpu))
            if len(taken) > 2 * last:
                del taken[:-last]
    return replace(_report(ran, taken[-last:], clock, tracker), columns=columns)


def _report(
    ran: dict[int, list[Span]],
    taken: list[tuple[int, int]],
    clock: bool,
    tracker: WorldTracker,
) -> TimelineReport:
    begin = min((time for time, _ in taken), default=0)
    end = max((time for time, _ in taken), default=0)
    lanes = [
        Lane(
            cpu,
            tuple(
                _cut(span, begin, end, tracker) for span in ran[cpu] if span.end > begin and span.begin < end
            ),
            tuple(sorted(time for time, number in taken if number == cpu)),
        )
        for cpu in sorted({cpu for _, cpu in taken})
    ]
    return TimelineReport(begin, end, clock, tuple(lanes))


def _cut(span: Span, begin: int, end: int, tracker: WorldTracker) -> LaneSpan:
    party: Party = tracker.settle(span.party)
    return LaneSpan(party.world, party.vmid, max(span.begin, begin), min(span.end, end))
