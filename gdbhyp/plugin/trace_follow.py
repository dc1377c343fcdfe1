"""Letting the machine run while a recording is counted, until Ctrl-C, a breakpoint, or the end of a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import gdb

from gdbhyp.plugin.trace_drain import interrupt, no_interrupt, start

if TYPE_CHECKING:
    from gdbhyp.trace.ring import Recording
    from gdbhyp.trace.status import FollowReport, FollowRow


_LEAST = 0.05


def follow(
    recording: Callable[[], Recording],
    interval: float,
    seconds: float | None,
    show: Callable[[FollowRow], None] | None,
) -> FollowReport:
    """Continue, look at ``recording()`` every ``interval`` seconds, and return when the machine stands.

    ``show`` is called with each row while the machine runs; without it GDB's own words about the stop are swallowed.
    """
    from gdbhyp.trace.follow import Follower
    from gdbhyp.trace.status import FollowReport

    follower = Follower(recording().statistics, time.monotonic)
    rows: list[FollowRow] = []

    def look() -> None:
        with no_interrupt():
            recording()
            rows.append(follower.look())
        if show is not None:
            show(rows[-1])

    ticker = _Ticker(look, interval, seconds)
    try:
        gdb.execute("continue", to_string=show is None)
        stopped = "the machine stopped"
    except gdb.error as error:
        stopped = str(error)
    except KeyboardInterrupt:
        stopped = "interrupted"
    finally:
        ticker.ended.set()
    look()
    return FollowReport(tuple(rows), stopped)


class _Ticker:
    """Has GDB's own thread look, again and again, and stop the machine when its time is over."""

    def __init__(self, look: Callable[[], None], interval: float, seconds: float | None) -> None:
        self.ended = threading.Event()
        self._look = look
        self._interval = interval
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._asked = False
        start(threading.Thread(target=self._tick, daemon=True))

    def _tick(self) -> None:
        while not self.ended.wait(self._pause()):
            # A GDB that is busy is not asked twice.
            if not self._asked:
                self._asked = True
                gdb.post_event(self._answer)

    def _pause(self) -> float:
        if self._deadline is None:
            return self._interval
        return min(self._interval, max(self._deadline - time.monotonic(), _LEAST))

    def _answer(self) -> None:
        self._asked = False
        if self.ended.is_set():
            return
        try:
            if self._deadline is None or time.monotonic() < self._deadline:
                self._look()
            else:
                interrupt()
        except KeyboardInterrupt:
            # Ctrl-C was meant for the machine.
            interrupt()
