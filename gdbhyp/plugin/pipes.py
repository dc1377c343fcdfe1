"""Whether GDB's ``pipe`` command is at work, which GDB does not say."""

from __future__ import annotations

import contextlib
import os

_CLOSE_ON_EXEC = 0o2000000
_WRITE_ONLY = 0o1


def _child_pipes() -> set[str]:
    """Return the pipes into which this process writes and which it lets its children have.

    GDB's ``pipe`` command makes such a one (popen) for as long as its command runs, and does not say so to anybody.
    GDB's own pipes, and Python's, are closed on exec.
    """
    found = set()
    with contextlib.suppress(OSError):
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                link = os.readlink(f"/proc/self/fd/{number}")
                if int(number) > 2 and link.startswith("pipe:") and _is_lent(number):
                    found.add(link)
    return found


def _is_lent(number: str) -> bool:
    with open(f"/proc/self/fdinfo/{number}", encoding="ascii") as file:
        flags = next(int(line.split()[1], 8) for line in file if line.startswith("flags:"))
    return not flags & _CLOSE_ON_EXEC and flags & 3 == _WRITE_ONLY


_inherited: set[str] = set()


def remember_inherited() -> None:
    """Note what GDB was started with, which is no pipe command's."""
    _inherited.update(_child_pipes())


def in_pipe_command() -> bool:
    """Return whether what is printed now goes to the shell command of a ``pipe``."""
    return bool(_child_pipes() - _inherited)
