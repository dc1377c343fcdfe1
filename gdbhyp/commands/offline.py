"""Commands that ask a stopped CPU, asked of a dump: the same arguments behind the file's name."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gdbhyp.commands.declaration import Argument, Command, Context
from gdbhyp.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from gdbhyp.engine.stop import Stop

FORMS = "a snapshot, an ELF core, a kdump-compressed or LiME dump, or a raw image of memory as FILE@ADDRESS"
DUMP = Argument(("dump",), FORMS, "path")
DUMP_OPTION = Argument(("--dump",), f"ask a CPU of this dump: {FORMS}", "path", metavar="FILE")
ALSO = Argument(
    ("--also",),
    "another file of the same machine, as FILE or FILE@ADDRESS; may be given again",
    "path",
    metavar="FILE[@ADDRESS]",
    repeated=True,
)
OPTIONS = (
    ALSO,
    Argument(
        ("--cpu",),
        "the CPU to ask, which count from 0; if not said, the one that a snapshot was taken of, or 0",
        "text",
        metavar="N",
    ),
    Argument(
        ("--registers",),
        "the CPU's registers: a JSON object of NAME: value, or an array of them, one a CPU",
        "path",
        metavar="FILE",
    ),
    Argument(("--reg",), "one register, NAME=VALUE; may be given again", "text", repeated=True),
)
_REGISTER = re.compile(r"\$(\w+)\s*(?:([+-])\s*(\w+))?")


class OfDump:
    """The front end's context, with a CPU of a dump as the one that is asked; ``$NAME`` is its register."""

    def __init__(self, context: Context, stop: Stop) -> None:
        self._context = context
        self._stop = stop

    def stop(self) -> Stop:
        return self._stop

    def number(self, text: str) -> int:
        match = _REGISTER.fullmatch(text.strip())
        if match is None:
            return self._context.number(text)
        value = self._stop.register(match[1].upper())
        offset = self._context.number(match[3]) if match[3] else 0
        return (value - offset if match[2] == "-" else value + offset) & 0xFFFF_FFFF_FFFF_FFFF

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def open_stop(context: Context, arguments: Namespace) -> Stop:
    """Return the CPU that the arguments choose of the dump that they name, and tell what is missing from it."""
    from gdbhyp.targets.dump import open_dump, read_registers

    registers, every = read_registers(arguments.registers, arguments.reg or [])
    dump = open_dump(arguments.dump, arguments.also or [])
    for problem in dump.problems:
        context.warn(problem)
    if every:
        dump = dump.with_cpus(every)
    return dump.stop(_cpu(arguments.cpu), registers)


def _cpu(text: str | None) -> int | None:
    if text is not None and not (text.isdecimal() and len(text) < 6):
        raise UsageError(f"'{text}' is no number of a CPU: they count from 0, in decimal")
    return None if text is None else int(text)


def offline(command: Command) -> Command:
    """Return ``command`` for the command line, with a dump as its first argument."""

    def run(context: Context, arguments: Namespace) -> Any:
        return command.run(OfDump(context, open_stop(context, arguments)), arguments)

    return replace(
        command, run=run, arguments=(DUMP, *OPTIONS, *command.arguments), in_gdb=False, in_cli=True
    )


def with_dump(command: Command) -> Command:
    """Return ``command``, which can do without a target, for the command line with ``--dump FILE``."""

    def run(context: Context, arguments: Namespace) -> Any:
        if arguments.dump is None:
            return command.run(context, arguments)
        return command.run(OfDump(context, open_stop(context, arguments)), arguments)

    options = (DUMP_OPTION, *OPTIONS)
    return replace(command, run=run, arguments=(*options, *command.arguments), in_gdb=False, in_cli=True)
