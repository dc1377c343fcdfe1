"""Who ran on each CPU, from when to when."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from gdbhyp.trace.events import Event, Lost, Taken
from gdbhyp.trace.worlds import HYPERVISOR, Party, WorldTracker


class Span(NamedTuple):
    """``party`` ran on ``cpu`` from ``begin`` to ``end``, in nanoseconds."""

    cpu: int
    party: Party
    begin: int
    end: int


class Spans:
    """Turns events into spans; those of one CPU never overlap.

    A world runs until its exception, from where EL2 was left. Where a source does not tell that, it begins at the
    exception before, EL2's own work included. What is before the first exception, or around a loss, is not known.
    Without a clock an event takes a microsecond.
    """

    def __init__(self, tracker: WorldTracker) -> None:
        self.tracker = tracker
        self._before: dict[int, int] = {}

    def take(self, event: Event) -> tuple[Party | None, list[Span]]:
        """Return whom an exception interrupted, as the tracker says it, and the spans that end with it."""
        party = self.tracker.take(event)
        if type(event) is Lost:
            self._forget(event.cpu)
        if type(event) is not Taken or party is None:
            return party, []
        return party, list(self._spans(event, party))

    def _spans(self, event: Taken, party: Party) -> Iterator[Span]:
        now, cpu = moment(event.time, event.seq), event.cpu
        begin = self._before.get(cpu)
        self._before[cpu] = now
        if begin is None or begin > now:
            return
        left = self.tracker.return_before(event)
        entered = None if left is None else moment(left.time, left.seq)
        if entered is not None and begin <= entered <= now:
            yield Span(cpu, HYPERVISOR, begin, entered)
            begin = entered
        yield Span(cpu, party, begin, now)

    def _forget(self, cpu: int | None) -> None:
        if cpu is None:
            self._before.clear()
        else:
            self._before.pop(cpu, None)


def moment(time: int | None, seq: int) -> int:
    """Return the time in nanoseconds."""
    return 1000 * max(seq, 0) if time is None else time
