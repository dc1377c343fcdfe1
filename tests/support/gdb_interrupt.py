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
    _let_go()
    gdb.flush()
    return ended


def bounded(command: str, seconds: float) -> "tuple[str | None, float]":
    """Execute ``command``, with Ctrl-C if it takes longer than ``seconds``; return how it ended, and after how long.

    How is None (by itself), "Quit", or GDB's message.
    """
    shooter = subprocess.Popen(
        ["sh", "-c", f"sleep {seconds}; kill -INT {os.getpid()}"], start_new_session=True
    )
    began = time.monotonic()
    ended: str | None = None
    try:
        gdb.execute(command, to_string=True)
    except KeyboardInterrupt:
        ended = "Quit"
    except gdb.error as failure:
        ended = str(failure)
    took = time.monotonic() - began
    with contextlib.suppress(KeyboardInterrupt):
        os.killpg(shooter.pid, 9)
        shooter.wait()
    _let_go()
    return ended, took


def _let_go() -> None:
    """Make GDB use up a Ctrl-C that it may still hold though Python has answered it already."""
    with contextlib.suppress(KeyboardInterrupt, gdb.error):
        gdb.execute("info frame", to_string=True)


def _is_hit_while_waiting(shooter: "subprocess.Popen[bytes]") -> bool:
    try:
        while shooter.poll() is None:
            time.sleep(0.002)
    except KeyboardInterrupt:
        return True
    return False
