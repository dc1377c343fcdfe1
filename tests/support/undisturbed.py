"""Types every command of the registry at a target, lets it end in every way, and compares what a ``Witness`` sees.

With GDBHYP_LONG set, everything that can be typed is, and all is compared after each line. Else some lines of each
command are typed, each bounded in time by Ctrl-C, and memory and registers are compared after each command.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from gdbhyp.commands.declaration import Command
from support import tools
from support.command_lines import IN_GDB, examples, is_line_of, lines, mistakes, names
from support.gdb_session import CommandError
from support.witness import State, Witness, changes

LONG = bool(os.environ.get("GDBHYP_LONG"))

_INTERRUPT = tools.ROOT / "tests" / "support" / "gdb_interrupt.py"

_FILES = {"files", "GDB's files", "QEMU's files"}
ADDS: dict[str, set[str]] = {
    "hyp-catch": {"breakpoints", "counters"},
    "hyp-trace start": {"breakpoints", "counters", "Python", *_FILES},
    "hyp-symbols": {"symbol files", "counters", *_FILES},
}
"""What is there to be added, until it is taken away again: breakpoints, a recording, symbol files.

Afterwards GDB's own counters have moved, and an empty folder for symbol files waits for the end of GDB.
"""

MOVES = ("hyp-trace follow", "hyp-trace check")
"""What is there to let the machine run."""


def seeded() -> random.Random:
    """Return chance that can be had again by GDBHYP_SEED, which is printed."""
    seed = int(os.environ.get("GDBHYP_SEED") or random.randrange(1 << 32))
    print(f"GDBHYP_SEED={seed}")
    return random.Random(seed)


T = TypeVar("T")


def some(of: Sequence[T], count: int) -> list[T]:
    """Return ``count`` entries of a list, two from its head and the others as far apart as can be; all if LONG."""
    if LONG or len(of) <= count:
        return list(of)
    head, rest = list(of[: min(count, 2)]), of[2:]
    return [*head, *(rest[n * len(rest) // (count - 2)] for n in range(count - 2))]


@dataclass
class Trial:
    """Lines typed at one target. ``answered`` are the commands and subcommands that had an answer, or were about to.

    ``limit`` is the number of seconds after which Ctrl-C ends a line.
    """

    witness: Witness
    work: Path
    limit: float = 2.0
    before: State = field(init=False)
    answered: set[str] = field(default_factory=set)
    took: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        session = self.witness.session
        session.run(f"source {_INTERRUPT}")
        session.run(f"cd {self.work}")
        # What is loaded, opened and noted once is no trace of a line.
        for line in (
            "hyp-status",
            "hyp-symbols",
            "hyp-symbols --remove",
            "hyp-map --save 0",
            "hyp-trace start",
            "hyp-trace stop",
        ):
            self._attempt(line)
        self.before = self.witness.everything()
        self._breakpoints = self._numbers()

    def lines(self, command: Command, asked: int, wrong: int) -> Iterator[str]:
        """Yield a command's examples, and ``asked`` lines and ``wrong`` mistakes of each of its parts.

        What would let the machine run is left out.
        """
        yield from (e for e in examples(command, self.work) if not any(is_line_of(m, e) for m in MOVES))
        for name, each in lines(command, self.work).items():
            yield from some(each, asked) if name not in MOVES else ()
        for each in mistakes(command).values():
            yield from some(each, wrong)

    def every_command(self, asked: int, wrong: int) -> None:
        """Type so many lines and mistakes of each command of the registry, or of each of its subcommands."""
        for command in IN_GDB:
            few = 2 if command.subcommands else asked
            for line in self.lines(command, few, wrong):
                self.type(line)
            self.compare(command.name, memory=LONG)
        self.compare("any of all commands")

    def type(self, line: str) -> None:
        """Type a line to its end."""
        self.submit(line)
        self._look(line)

    def submit(self, line: str) -> None:
        """Type a line without looking what it did."""
        ended, took = self.witness.session.python(f"bounded({line!r}, {self.limit})")
        assert "\n" not in (ended or ""), f"{line}: {ended}"
        self.took[line] = took
        if ended is None or took >= self.limit:
            self._note_answer(line)

    def interrupt(self, line: str, delay: float) -> None:
        """Press Ctrl-C so many seconds after a line was typed."""
        ended = self.witness.session.python(f"interrupted({line!r}, [{delay}])")
        assert "\n" not in (ended or ""), f"{line}: {ended}"
        self._look(f"{line} and Ctrl-C after {delay} s ({ended})")
        self.compare(f"{line} and Ctrl-C after {delay} s ({ended})", memory=LONG)

    def interrupted_at_random(self, count: int, chance: random.Random) -> None:
        """Press Ctrl-C ``count`` times within the time that the lines took before."""
        for _ in range(count):
            line = chance.choice(sorted(self.took))
            self.interrupt(line, chance.uniform(0, min(1.2 * self.took[line] + 0.002, self.limit)))
        self.compare("any of all Ctrl-C")

    def compare(self, what: str, *, memory: bool = True, allowed: Iterable[str] = ()) -> None:
        """Take away what was added, and find everything as it was; memory costs most, and can be left out."""
        allowed = {*allowed} | {"counters"} & {key for name in ADDS if _is(name, what) for key in ADDS[name]}
        self.undo()
        self._same(self.witness.everything(memory=memory), allowed, what)
        self.before |= {"counters": self.witness.debugger()["counters"]}

    def undo(self) -> None:
        """Take away what lines have added."""
        for number in sorted(set(self._numbers()) - set(self._breakpoints)):
            self.witness.session.run(f"delete {number}")
        for line in ("hyp-symbols --remove", "hyp-trace stop"):
            self._attempt(line)

    def _look(self, line: str) -> None:
        allowed = {key for name in ADDS if _is(name, line) for key in ADDS[name]}
        if LONG:
            self._same(self.witness.everything(), allowed, line)
            if allowed:
                self.compare(line)
        else:
            self._same(self.witness.quick(), set(), line)

    def _same(self, after: State, allowed: set[str], what: str) -> None:
        changed = changes(self.before, after, allowed)
        if changed:
            raise AssertionError(f"{what} changed {json.dumps(changed, indent=1)}")

    def _numbers(self) -> list[int]:
        numbers: list[int] = self.witness.session.python(
            "[b.number for b in gdb.breakpoints() if b.number > 0]"
        )
        return numbers

    def _note_answer(self, line: str) -> None:
        self.answered |= {name for name in every_name() if is_line_of(name, line)}

    def _attempt(self, line: str) -> None:
        with contextlib.suppress(CommandError):
            self.witness.session.run(line)
            self._note_answer(line)


def _is(name: str, line: str) -> bool:
    return is_line_of(name, line) or line == name.split()[0].removeprefix("hyp-")


def each_part_once(folder: Path) -> list[str]:
    """Return a line of each command and subcommand that lets the machine stand; what they write goes to ``folder``."""
    return [
        each[0] for command in IN_GDB for name, each in lines(command, folder).items() if name not in MOVES
    ]


def every_name() -> Iterator[str]:
    """Yield how each command and subcommand is typed."""
    for command in IN_GDB:
        yield from names(command)
