"""Runs inside GDB: executes a command that a signal hits, or many times the same one until it does."""

import contextlib
import os
import subprocess
import time

import gdb


def interrupted(
    command: str, delays: "list[float]", times: int = 1, victim: "int | None" = None
) -> "str | None":
    """Execute ``command`` up to ``times`` times while GDB is sent SIGINT after each of ``delays`` (seconds, one after
    the other), or the process ``victim`` SIGKILL.

    Return how it ended: None by itself, "Quit", "late" if a signal came afterwards, or GDB's message. All signals
    have arrived when this returns.
    """
    shot = f"kill -INT {os.getpid()}" if victim is None else f"kill -KILL {victim}"
    script = "; ".join(f"sleep {delay:.6f}; {shot}" for delay in delays)
    shooter = subprocess.Popen(["sh", "-c", script])
    ended: str | None = None
    try:
        for _ in range(times):
            gdb.execute(command)
    except KeyboardInterrupt:
        ended = "Quit"
    except gdb.error as failure:
        ended = str(failure)
    while _is_hit_while_waiting(shooter):
        ended = ended or "late"
    # GDB may still hold a Ctrl-C that Python has answered already.
    with contextlib.suppress(KeyboardInterrupt, gdb.error):
        gdb.execute("info frame", to_string=True)
    gdb.flush()
    return ended


def _is_hit_while_waiting(shooter: "subprocess.Popen[bytes]") -> bool:
    try:
        while shooter.poll() is None:
            time.sleep(0.002)
    except KeyboardInterrupt:
        return True
    return False
