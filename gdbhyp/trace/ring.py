"""A recording in bounded memory: the newest events, and counts of all."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from gdbhyp.trace.events import Event, Lost, Returned, Taken
from gdbhyp.trace.statistics import Statistics
from gdbhyp.trace.worlds import Party, WorldTracker

CAPACITY = 100_000
"""How many events are kept unless asked otherwise; one takes about 0.7 KiB."""


class Recording:
    """What a source has recorded: the last ``capacity`` events with whom they interrupted, and statistics of all."""

    def __init__(self, source: str, capacity: int = CAPACITY, *, vhe: bool = False) -> None:
        self.source = source
        self.vhe = vhe
        self.statistics = Statistics(source, WorldTracker(vhe=vhe))
        self.kept: deque[tuple[Event, Party | None]] = deque(maxlen=capacity)
        self.overwritten = 0
        self.host_calls: dict[int, str] = {}
        """What the host asks of EL2, by x0, as far as that was found out."""

    def add(self, event: Event) -> None:
        """Record one event; the oldest gives way if there is no room."""
        if len(self.kept) == self.kept.maxlen:
            self.overwritten += type(self.kept[0][0]) in (Taken, Returned)
        self.kept.append((event, self.statistics.add(event)))

    @property
    def missing_before(self) -> int:
        """How many events are in no way among those kept: overwritten, or lost where the gap itself was overwritten."""
        kept_gaps = sum(event.missing for event, _ in self.kept if type(event) is Lost)
        return self.overwritten + self.statistics.dropped - kept_gaps

    def exceptions(self) -> Iterator[tuple[Taken, Party]]:
        """Yield the exceptions that are kept and whom they interrupted, oldest first."""
        settle = self.statistics.tracker.settle
        for event, party in self.kept:
            if type(event) is Taken and party is not None:
                yield event, settle(party)

    def newest(self, count: int) -> list[tuple[Taken, Party]]:
        """Return the last ``count`` exceptions, oldest first, without a look at all that are kept."""
        settle = self.statistics.tracker.settle
        found: list[tuple[Taken, Party]] = []
        for event, party in reversed(self.kept):
            if len(found) == count:
                break
            if type(event) is Taken and party is not None:
                found.append((event, settle(party)))
        return found[::-1]

    def judged(self) -> Iterator[Event]:
        """Yield the events that are kept, oldest first; exceptions say whom they interrupted."""
        settle = self.statistics.tracker.settle
        for event, party in self.kept:
            if type(event) is Taken and party is not None:
                yield event._replace(world=settle(party).world, vmid=party.vmid)
            else:
                yield event
