"""What one input may take: a second of the processor, and so much memory; more is a failure, not a slow pass."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable
from types import FrameType

SECONDS = 1.0
"""Processor time of one input, so that what else the machine does fails nothing."""
MEMORY = 512 << 20
"""Bytes of data of the whole process, of which gdbhyp and its inputs take a tenth; beyond it there is a MemoryError."""


TRACED = 64 << 20
"""Bytes that Python may allocate for one input: what the tests measure, where a whole process has no limit."""


class TooSlow(BaseException):
    """An input took longer than ``SECONDS``; no handler of ours catches it by accident."""


def bound_memory() -> None:
    """Let this process have no more memory than ``MEMORY``."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))


def bound_time(run: Callable[[bytes], None], seconds: float = SECONDS) -> Callable[[bytes], None]:
    """Return ``run`` with a limit: an input that passes it twice raises ``TooSlow`` where it is then.

    Twice, because the first input of a kind also pays for imports and tables that are made once.
    """
    signal.signal(signal.SIGPROF, _stop)

    def bounded(data: bytes) -> None:
        try:
            _timed(run, data, seconds)
        except TooSlow:
            _timed(run, data, seconds)

    return bounded


def _timed(run: Callable[[bytes], None], data: bytes, seconds: float) -> None:
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        run(data)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise TooSlow("an input takes more processor time than it may")
