"""Every declared command as a GDB command: arguments, completion, output and errors."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

import gdb

from gdbhyp.commands.declaration import Command
from gdbhyp.errors import GdbhypError, NoTarget, UsageError

if TYPE_CHECKING:
    from gdbhyp.analyses.selftest import Oracle
    from gdbhyp.commands.declaration import Catcher, SymbolFiles, Tracer
    from gdbhyp.commands.parameters import Parameter
    from gdbhyp.engine.stop import Stop
    from gdbhyp.render.progress import Progress


_LITERAL = re.compile(r"0[xX][0-9a-fA-F]+|[0-9]+")
_kept: dict[str, Any] = {}


class LiveContext:
    """The services that commands ask of GDB; lends the target until the command ends."""

    def __init__(self, resources: contextlib.ExitStack, progress: Progress) -> None:
        self._resources = resources
        self._stop: Stop | None = None
        self.progress = progress

    def stop(self) -> Stop:
        from gdbhyp.plugin.target import live_stop

        if self._stop is None:
            self._stop = self._resources.enter_context(live_stop())
        return self._stop

    def number(self, text: str) -> int:
        from gdbhyp.plugin.remote import let_gdb_look

        let_gdb_look()
        if _LITERAL.fullmatch(text) and int(text, 16 if "x" in text.lower() else 10) >= 1 << 64:
            # GDB makes the largest number of it, without a word.
            raise UsageError(f"'{text}' has more than 64 bits")
        try:
            value = gdb.parse_and_eval(text)
            # A function or an array stands for its address, as it does in C.
            if value.type.strip_typedefs().code in (gdb.TYPE_CODE_FUNC, gdb.TYPE_CODE_ARRAY):
                return int(value.address or 0) & 0xFFFF_FFFF_FFFF_FFFF
            return int(value) & 0xFFFF_FFFF_FFFF_FFFF
        except gdb.error as error:
            if "$" in text:
                # Without a stopped CPU, a register has no value: say that, and not what it makes of the expression.
                self.stop()
            raise UsageError(f"cannot evaluate '{text}': {error}") from error

    def kept(self) -> MutableMapping[str, Any]:
        return _kept

    def setting(self, parameter: Parameter) -> str:
        from gdbhyp.plugin import parameters

        return parameters.value(parameter)

    def tracer(self) -> Tracer:
        from gdbhyp.plugin.core import is_core
        from gdbhyp.plugin.trace import tracer

        if is_core():
            raise NoTarget("a core file does not run: recording world switches needs a live target")
        return tracer()

    def oracle(self) -> tuple[str, Oracle]:
        from gdbhyp.plugin import oracle

        self._resources.enter_context(oracle.monitor_on(self.stop().cpu))
        return oracle.NAME, oracle.gva2gpa

    def catcher(self) -> Catcher:
        from gdbhyp.plugin.catch import catcher
        from gdbhyp.plugin.core import is_core

        if is_core():
            raise NoTarget("a core file does not run: catching exits needs a live target")
        return catcher()

    def symbol_files(self) -> SymbolFiles:
        from gdbhyp.plugin.symbols import symbol_files

        return symbol_files()

    def disassemble(self, code: bytes, address: int) -> list[str] | None:
        from gdbhyp.plugin.disassembler import disassemble

        return disassemble(code, address)

    def warn(self, sentence: str) -> None:
        from gdbhyp.render.style import escape

        gdb.write(escape(sentence) + "\n", gdb.STDERR)


class GdbCommand(gdb.Command):
    """``hyp-NAME``: the adapter of one declared command."""

    def __init__(self, command: Command, prefix: str = "hyp-") -> None:
        self._command = command
        self._name = prefix + command.name
        # GDB takes the help from here; the attribute must exist before the registration below.
        self.__doc__ = _help(command, self._name)
        super().__init__(self._name, gdb.COMMAND_DATA)

    def invoke(self, argument: str, from_tty: bool) -> None:
        from gdbhyp.plugin.remote import giving_back

        self.dont_repeat()
        try:
            giving_back(lambda: run(self._command, self._name, argument, from_tty))
        except GdbhypError as error:
            from gdbhyp.render.style import escape

            raise gdb.GdbError(escape(str(error))) from None

    def complete(self, text: str, word: str | None) -> list[str] | int:
        from gdbhyp.plugin.completion import complete

        return complete(self._command, text, word)


def _help(command: Command, name: str) -> str:
    from gdbhyp.commands.help import help_text

    return help_text(command, name)


def run(command: Command, name: str, line: str, from_tty: bool = False) -> None:
    """Parse ``line``, run the command, and show its report as the options say; it becomes ``$hyp_last``.

    :raises GdbhypError: with the sentence for the person.
    """
    from gdbhyp.commands.declaration import presentation
    from gdbhyp.commands.parsing import parse_line
    from gdbhyp.plugin import screen
    from gdbhyp.plugin.last import remember
    from gdbhyp.render.present import Screen, present

    chosen, arguments = parse_line(command, name, line)
    how = presentation(chosen, arguments)
    with contextlib.ExitStack() as resources, gdb_errors():
        context = LiveContext(resources, screen.progress(from_tty))
        resources.callback(context.progress.clear)
        report = chosen.run(context, arguments)
        if report is not None:
            present(remember(report), how, Screen(gdb.write, context.warn, screen.style(), context.progress))


def answer(command: Command, name: str, words: list[str]) -> Any:
    """Parse ``words``, run the command and return its report, with all rows made.

    :raises GdbhypError: with the sentence for the person.
    """
    import dataclasses

    from gdbhyp.commands.parsing import select
    from gdbhyp.render.progress import Progress

    chosen, arguments = select(command, name, words)
    with contextlib.ExitStack() as resources, gdb_errors():
        report = chosen.run(LiveContext(resources, Progress(None)), arguments)
        if isinstance(getattr(report, "rows", None), Iterator):
            report = dataclasses.replace(report, rows=tuple(report.rows))
        return report


@contextlib.contextmanager
def gdb_errors() -> Iterator[None]:
    """Say what GDB reports, such as a connection that is lost in the middle, as one sentence of ours."""
    try:
        yield
    except gdb.MemoryError as error:
        raise GdbhypError(f"GDB cannot read memory: {error}") from error
    except gdb.error as error:
        from gdbhyp.plugin.remote import LOST, is_connected

        if not is_connected():
            raise NoTarget(LOST) from error
        raise GdbhypError(f"GDB reports: {error}") from error
