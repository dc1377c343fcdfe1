"""Commands that ask a stopped CPU, asked of a dump: the same arguments behind the file's name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gdbhyp.commands.declaration import Argument, Command, Context

if TYPE_CHECKING:
    from argparse import Namespace

    from gdbhyp.engine.stop import Stop

_DUMP = Argument(("dump",), "an ELF core, or a raw image of physical memory as FILE@ADDRESS")
_REGISTERS = Argument(
    ("--registers",), "the CPU's registers: a JSON object of NAME: value", "path", metavar="FILE"
)
_REGISTER = Argument(("--reg",), "one register, NAME=VALUE; may be given again", "text", repeated=True)


class _OfDump:
    """The front end's context, with the dump's CPU as the one that is asked."""

    def __init__(self, context: Context, stop: Stop) -> None:
        self._context = context
        self._stop = stop

    def stop(self) -> Stop:
        return self._stop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def offline(command: Command) -> Command:
    """Return ``command`` for the command line, with a dump as its first argument."""

    def run(context: Context, arguments: Namespace) -> Any:
        from gdbhyp.targets.dump import open_dump, read_registers

        registers = read_registers(arguments.registers, arguments.reg or [])
        stop = open_dump(arguments.dump, registers)
        return command.run(_OfDump(context, stop), arguments)

    arguments = (_DUMP, _REGISTERS, _REGISTER, *command.arguments)
    return replace(command, run=run, arguments=arguments, in_gdb=False, in_cli=True)
