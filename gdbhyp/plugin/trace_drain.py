"""Reading a recording while the machine runs: a thread that looks now and then whether there is much to read.

What can wait does, until the machine stops, for reading takes processor time from an emulated machine.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

_INTERVAL = 0.1


class Drain:
    """Calls ``read()`` when ``pressing()`` says that it cannot wait, and by ``now``; never twice at once."""

    def __init__(self, read: Callable[[], None], pressing: Callable[[], bool]) -> None:
        self._read = read
        self._pressing = pressing
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        # Signals are GDB's: a thread inherits what is blocked where it is started.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self._thread.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def now(self) -> None:
        """Read what there is, unless the reading has ended."""
        with self._lock:
            if not self._ended.is_set():
                self._read()

    def end(self) -> None:
        """Read no more."""
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(_INTERVAL):
            if self._pressing():
                self.now()
