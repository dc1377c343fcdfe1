"""Captured sessions: help's and the README's examples, which tests run again and compare.

A session is text. A line ``Stopped at SITE ...:`` (or ``<!-- stopped at SITE -->``) says where the demo hypervisor's
guest stopped: the EL2 vector for one of its traps, by the trap's symbol. A line ``(gdb) COMMAND`` is typed in GDB, a
line ``$ gdbhyp ...`` in a shell; what follows is its output, up to the next such line, a line of prose that begins
with ``# `` behind an empty one, or the end of a code block.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_STOP = re.compile(r"(?:<!-- s|S)topped at (\w+)")
_ENDS = re.compile(r"(?:<!-- s|S)topped at |\(gdb\) |\$ gdbhyp |```")
_COMMAND = re.compile(r"(\(gdb\) |\$ gdbhyp )(.+)")


@dataclass(frozen=True)
class Exchange:
    """One command and its output; ``stop`` is the site where the guest stopped, "" outside a target."""

    stop: str
    shell: bool
    command: str
    output: str
    empty_lines: int


def exchanges(text: str) -> Iterator[Exchange]:
    """Yield the exchanges of a session."""
    return (part for part in _parts(text) if isinstance(part, Exchange))


def rewritten(text: str, run: Callable[[Exchange], str]) -> str:
    """Return the session with every output replaced by what ``run`` returns."""
    lines: list[str] = []
    for part in _parts(text):
        if isinstance(part, str):
            lines.append(part)
            continue
        lines.append(("$ gdbhyp " if part.shell else "(gdb) ") + part.command)
        lines.extend(run(part).splitlines())
        lines.extend([""] * part.empty_lines)
    return "\n".join(lines) + "\n"


def _parts(text: str) -> Iterator[Exchange | str]:
    """Yield exchanges, and as they are the lines between them."""
    stop = ""
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        typed = _COMMAND.match(line)
        if not typed:
            stopped = _STOP.match(line)
            stop = stopped[1] if stopped else stop
            yield line
            continue
        output = []
        while at < len(lines) and not _ends(lines, at):
            output.append(lines[at])
            at += 1
        shown = "\n".join(output).rstrip()
        empty = len(output) - len(shown.splitlines())
        yield Exchange(stop, typed[1].startswith("$"), typed[2], shown, empty)


def _ends(lines: list[str], at: int) -> bool:
    """Whether an output has ended before line ``at``; prose stands behind an empty line, a table's ``#`` does not."""
    return bool(_ENDS.match(lines[at])) or (lines[at].startswith("# ") and not lines[at - 1])
