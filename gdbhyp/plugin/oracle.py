"""QEMU's own translation, by its monitor."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import gdb

from gdbhyp.errors import NoTarget
from gdbhyp.plugin.capture import captured
from gdbhyp.plugin.remote import LOST, interruptible, is_connected, leave_monitor

NAME = "QEMU's gva2gpa"

_SELECTED = re.compile(r"^\* CPU #(\d+)", re.MULTILINE)


def _monitor(line: str) -> str:
    """Return what QEMU's monitor answers.

    :raises NoTarget: if there is none, or the connection is lost.
    """
    try:
        return captured(f"monitor {line}")
    except gdb.error as error:
        if not is_connected():
            raise NoTarget(LOST) from error
        raise NoTarget(f"the stub has no monitor to compare with, which QEMU has: {error}") from error


@contextlib.contextmanager
def monitor_on(cpu: int) -> Iterator[None]:
    """Let QEMU's monitor speak of ``cpu``, and then of the CPU again that it spoke of before."""
    machine = str(getattr(gdb.selected_inferior().connection, "details", ""))
    selected = _SELECTED.search(_monitor("info cpus"))
    if selected is None:
        raise NoTarget("the stub's monitor does not list CPUs as QEMU's does, so it cannot be compared with")
    try:
        _monitor(f"cpu {cpu}")
        yield
    finally:
        if is_connected():
            interruptible(lambda: _monitor(f"cpu {selected[1]}"))
        else:
            leave_monitor(machine, selected[1])


def gva2gpa(va: int) -> int | None:
    """Return the PA that QEMU finds for a VA as the monitor's CPU would read it, None if it finds none."""
    answer = _monitor(f"gva2gpa {va:#x}").strip()
    if answer == "Unmapped":
        return None
    found = re.fullmatch(r"gpa: (0|0x[0-9a-f]+)", answer)
    if found is None:
        raise NoTarget(f"the stub's monitor does not know 'gva2gpa' as QEMU's does; it says: {answer[:80]}")
    return int(found[1], 16)
