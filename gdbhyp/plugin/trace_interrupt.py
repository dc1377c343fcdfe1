"""Ctrl-C while breakpoints stop the machine hundreds of times a second.

GDB passes a Ctrl-C on to the stub, and QEMU's stub ignores it while the machine is stopped, which during a recording
it is most of the time; and a Ctrl-C that interrupts GDB between a packet and its answer loses the stub's place. So
while exceptions are being recorded SIGINT is held back, a thread waits for it, and the next recorded exception stops
for the person. If there is none for a while, the machine runs, and is interrupted as GDB would.
"""

from __future__ import annotations

import signal
import threading

import gdb

_PATIENCE = 0.25


class CtrlC:
    """Holds Ctrl-C back between ``hold`` and ``release``; ``pressed`` says that it was pressed."""

    def __init__(self) -> None:
        self.pressed = False
        self._held: threading.Event | None = None
        self._mask: set[int | signal.Signals] = set()

    def hold(self) -> None:
        """Begin to wait for Ctrl-C, unless that is being done."""
        if self._held is not None:
            return
        self._mask = set(signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,)))
        self.pressed = False
        self._held = threading.Event()
        threading.Thread(target=self._wait, args=(self._held,), daemon=True).start()

    def release(self) -> None:
        """Give Ctrl-C back to GDB."""
        self.pressed = False
        held, self._held = self._held, None
        if held is not None:
            held.set()
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _wait(self, released: threading.Event) -> None:
        while not released.is_set():
            if self.pressed:
                # No exception has come to stop at.
                gdb.post_event(lambda: _interrupt(released))
            if signal.sigtimedwait((signal.SIGINT,), _PATIENCE) is not None:
                self.pressed = True
                released.wait(_PATIENCE)


def _interrupt(released: threading.Event) -> None:
    thread = gdb.selected_thread()
    if not released.is_set() and thread is not None and thread.is_running():
        gdb.execute("interrupt", to_string=True)
