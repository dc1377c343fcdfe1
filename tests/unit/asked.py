"""Every question of the registry, asked of a machine: what tests go through that are about all commands at once.

A command that needs arguments has them in ``WORDS``; one that nobody has given any there is asked without.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gdbhyp.cli.main import CliContext
from gdbhyp.commands.declaration import Command, presentation
from gdbhyp.commands.offline import OfDump
from gdbhyp.commands.parsing import select
from gdbhyp.commands.registry import COMMANDS
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import GdbhypError
from gdbhyp.render.present import Screen, present
from gdbhyp.render.style import Style

ADDRESS = "0xffff000042000000"
WORDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "esr": ((), ("-v",)),
    "reg": ((), ("HCR_EL2",), ("VTTBR_EL2",)),
    "ipa": ((), (ADDRESS,)),
    "walk": ((ADDRESS,), ("0x80000000", "--stage2"), (ADDRESS, "--regime", "EL2")),
    "x": (("/2gx", ADDRESS), ("/2i", "0x44000000", "--pa"), ("/s", "0x44000000", "--pa")),
    "at": (("S1E1R", ADDRESS), ("S12E1R", ADDRESS), ("S1E2R", ADDRESS)),
    "map": ((), ("--stage2",), ("--regime", "EL2")),
    "find": (("0x46000000",),),
    "diff": (("--vm", "0", "--vm", "1"),),
    "vcpu": ((), ("0",), ("0.0", "-v", "--frame")),
    "symbols": ((), ("--vm", "0")),
    "status": ((), ("-v",)),
    "vms": ((), ("-v",)),
    "audit": ((), ("-v",), ("--sarif",)),
}
# What writes files, or is of a debugger alone.
_LEFT_OUT = ("snapshot", "trace", "catch", "selftest", "annotate", "info", "help")


def questions() -> Iterator[tuple[Command, tuple[str, ...]]]:
    """Yield every command that a stopped CPU answers, with words to ask it by."""
    for command in COMMANDS:
        if command.in_gdb and command.name not in _LEFT_OUT:
            for words in WORDS.get(command.name, ((),)):
                yield command, words


@dataclass(frozen=True)
class Answer:
    """What was printed, and what was said beside it; ``error`` is the sentence where there was no answer."""

    text: str
    warned: tuple[str, ...]
    error: str | None


class _Context(CliContext):
    def __init__(self, kept: dict[str, Any]) -> None:
        super().__init__()
        self._kept = kept
        self.warned: list[str] = []

    def kept(self) -> dict[str, Any]:
        return self._kept

    def warn(self, sentence: str) -> None:
        self.warned.append(sentence)


def ask(
    stop: Stop, command: Command, words: tuple[str, ...], form: str = "--json", *, colour: bool = False
) -> Answer:
    """Ask a stopped CPU; ``form`` is "--json", "--csv" or "" for text."""
    context, out = _Context({}), io.StringIO()
    chosen, arguments = select(command, f"hyp-{command.name}", [*words, *([form] if form else [])])
    try:
        report = chosen.run(OfDump(context, stop), arguments)
        screen = Screen(out.write, context.warn, Style(colour=colour, width=100))
        present(report, presentation(chosen, arguments), screen)
    except GdbhypError as error:
        return Answer(out.getvalue(), tuple(context.warned), str(error))
    return Answer(out.getvalue(), tuple(context.warned), None)
