"""World switches from our TCG plugin inside QEMU: all of them, with registers and time, at the machine's own speed.

The plugin keeps its records in a ring of memory that it shares by an open file, which is found among the files of the
QEMU process behind the connection. There it is switched on and off, too; nothing of it goes through the stub.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
import time
from collections.abc import Iterator

from gdbhyp.errors import BadInput, NoTarget
from gdbhyp.plugin.trace_drain import Drain
from gdbhyp.plugin.trace_process import peer_process
from gdbhyp.trace.ring import Recording
from gdbhyp.trace.tcg_ring import MAGIC, NO_EL2, ONE_THREAD, Choice, Ring

_UNFIT = {
    NO_EL2: "the emulated CPU has no EL2: start QEMU with -M virt,virtualization=on",
    ONE_THREAD: (
        "QEMU runs all CPUs in one thread (thread=single or -icount), where plugins cannot tell them apart: use "
        "--source log, or one CPU"
    ),
}
_HALF = 0.5
_PATIENCE = 0.1


class PluginSource:
    """The recording by the TCG plugin.

    :raises NoTarget: if QEMU runs elsewhere, was started without the plugin, or is recorded by another GDB.
    """

    name = "plugin"
    failure: str | None = None

    def __init__(self, recording: Recording, choice: Choice) -> None:
        self.recording = recording
        self.notes: list[str] = []
        self.ring = find_ring()
        self._paused = 0
        self._stopped_at: int | None = time.monotonic_ns()
        owner = self.ring.owner
        if self.ring.enabled and owner not in (0, os.getpid()) and os.path.exists(f"/proc/{owner}"):
            raise NoTarget(
                f"process {owner} records with QEMU's TCG plugin already: stop that recording first"
            )
        self.ring.switch_on(choice, os.getpid())
        self._passed = self.ring.passed
        self._drain = Drain(self._read, lambda: self.ring.filling > _HALF)

    def catch_up(self) -> None:
        """Record what the plugin has written by now."""
        self._drain.now()

    def at_stop(self) -> None:
        """Read while the machine stands; its clock stands, too."""
        self.catch_up()
        if self._stopped_at is None:
            self._stopped_at = time.monotonic_ns()

    def at_resume(self) -> None:
        """Take the time for which the machine stood out of what follows."""
        stopped, self._stopped_at = self._stopped_at, None
        if stopped is not None:
            self._drain.now()
            self._paused += time.monotonic_ns() - stopped

    def at_prompt(self) -> None:
        """Nothing is held."""

    def close(self) -> None:
        """Switch the plugin off, and read the end."""
        self.ring.switch_off()
        deadline = time.monotonic() + _PATIENCE
        self._drain.now()
        while self.ring.filling and time.monotonic() < deadline:
            time.sleep(0.001)
            self._drain.now()
        self._drain.end()
        self._read(final=True)
        passed = self.ring.passed - self._passed
        if passed:
            self.notes.append(f"the filter left out {passed} exceptions and returns")

    def _read(self, *, final: bool = False) -> None:
        add = self.recording.add
        for batch in self.ring.read(final=final, pause=self._paused):
            for event in batch:
                add(event)


def find_ring() -> Ring:
    """Return the ring of the QEMU behind the connection.

    :raises NoTarget: if there is none, or it cannot be used.
    """
    process = peer_process()
    if process is None:
        raise NoTarget("the TCG plugin can be used only with a QEMU that runs on this machine")
    try:
        memory = next(_rings(process), None)
    except PermissionError:
        raise NoTarget(
            f"QEMU's process {process} is not yours, so its TCG plugin cannot be reached: run GDB as the same user"
        ) from None
    if memory is None:
        raise NoTarget(
            "QEMU was started without gdbhyp's TCG plugin: 'gdbhyp trace plugin --build' makes it (for QEMU 9.1 or "
            "later) and says how to load it"
        )
    try:
        ring = Ring(memory, f"the ring of process {process}")
    except BadInput as error:
        raise NoTarget(str(error)) from None
    if ring.ready in _UNFIT:
        raise NoTarget(_UNFIT[ring.ready])
    return ring


def _rings(process: int) -> Iterator[mmap.mmap]:
    """Yield the open files of a process that are rings, mapped."""
    folder = f"/proc/{process}/fd"
    for name in sorted(os.listdir(folder), key=int):
        path = f"{folder}/{name}"
        with contextlib.suppress(OSError):
            if stat.S_ISREG(os.stat(path).st_mode) and _is_ring(path):
                with open(path, "r+b") as file:
                    yield mmap.mmap(file.fileno(), 0)


def _is_ring(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC
