"""Reading a recording while the machine runs: a thread that looks now and then whether there is much to read.

What can wait does, until the machine stops, for reading takes processor time from an emulated machine.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import gdb

_INTERVAL = 0.1


@contextlib.contextmanager
def no_interrupt() -> Iterator[None]:
    """Hold Ctrl-C back, which would tear what is being done and lose part of it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def running() -> bool:
    """Return whether the machine runs."""
    thread = gdb.selected_thread()
    return thread is not None and thread.is_running()


def interrupt() -> None:
    """Stop the machine if it runs; to be called in GDB's own thread."""
    if running():
        gdb.execute("interrupt", to_string=True)


def start(thread: threading.Thread) -> None:
    """Start a thread that takes no signals: they are GDB's, and a thread inherits what is blocked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Drain:
    """Calls ``read()`` when ``pressing()`` says that it cannot wait, and by ``now``; never twice at once."""

    def __init__(self, read: Callable[[], None], pressing: Callable[[], bool]) -> None:
        self._read = read
        self._pressing = pressing
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        start(self._thread)

    def now(self) -> None:
        """Read what there is, unless the reading has ended; a Ctrl-C is held back until it is done."""
        with no_interrupt(), self._lock:
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
