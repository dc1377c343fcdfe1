"""A live count: what was recorded between two looks at a recording."""

from __future__ import annotations

from collections.abc import Callable

from gdbhyp.trace.statistics import Statistics
from gdbhyp.trace.status import FollowExit, FollowRow

_MOST = 4


class Follower:
    """Makes a row at each look; ``clock()`` are seconds."""

    def __init__(self, statistics: Statistics, clock: Callable[[], float]) -> None:
        self._statistics = statistics
        self._clock = clock
        self._began = self._last = clock()
        self._exceptions = statistics.exceptions
        self._switches = statistics.tracker.switches
        self._exits = statistics.exits()

    def look(self) -> FollowRow:
        """Return what has happened since the look before."""
        statistics = self._statistics
        now = self._clock()
        exits = statistics.exits()
        new = {key: count - self._exits.get(key, 0) for key, count in exits.items()}
        # What a row is called may have changed, when a log shows late that the host is EL2.
        most = sorted(((key, n) for key, n in new.items() if n > 0), key=lambda item: -item[1])[:_MOST]
        exceptions = statistics.exceptions - self._exceptions
        row = FollowRow(
            seconds=round(now - self._began, 3),
            exceptions=exceptions,
            per_second=round(exceptions / max(now - self._last, 1e-9), 1),
            switches=statistics.tracker.switches - self._switches,
            total=statistics.exceptions,
            dropped=statistics.dropped,
            exits=tuple(FollowExit(*party, ec, name, n) for (party, ec, name), n in most),
        )
        self._last, self._exits = now, exits
        self._exceptions, self._switches = statistics.exceptions, statistics.tracker.switches
        return row
