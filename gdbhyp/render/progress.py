"""How far a long answer is, in one line that is written over and leaves nothing behind."""

from __future__ import annotations

import time
from collections.abc import Callable

# An answer that comes sooner needs no word; more often than this nobody reads.
_PATIENCE = 1.0
_EVERY = 0.25

_ERASE_LINE = "\r\x1b[K"


class Progress:
    """Shows progress on a terminal through ``write``; without one (None), shows nothing.

    ``clock`` returns seconds.
    """

    def __init__(
        self, write: Callable[[str], object] | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write = write
        self._clock = clock
        self._next = clock() + _PATIENCE
        self._shown = False

    def __call__(self, what: str, done: int, total: int | None = None) -> None:
        """Show ``what: done of total``, unless the line is too young."""
        if self._write is None:
            return
        now = self._clock()
        if now >= self._next:
            self._next = now + _EVERY
            self._shown = True
            self._write(f"{_ERASE_LINE}{what}: {done:,}" + (f" of {total:,}" if total is not None else ""))

    def clear(self) -> None:
        """Take the line away, so that something else can stand there."""
        if self._shown and self._write is not None:
            self._shown = False
            self._write(_ERASE_LINE)
