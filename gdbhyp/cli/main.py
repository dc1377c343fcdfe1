"""``gdbhyp COMMAND ...``: exit status 0 answered, 1 no answer, 2 usage, 3 bad or unreadable input."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from gdbhyp.cli import fleet
from gdbhyp.commands import registry
from gdbhyp.commands.declaration import Command
from gdbhyp.errors import GdbhypError, UsageError
from gdbhyp.render.progress import Progress

if TYPE_CHECKING:
    from gdbhyp.analyses.selftest import Oracle
    from gdbhyp.commands.declaration import Catcher, Tracer
    from gdbhyp.commands.parameters import Parameter
    from gdbhyp.engine.stop import Stop
    from gdbhyp.render.style import Style

COMMANDS = (*registry.COMMANDS, fleet.COMMAND)
_LAUNCHERS = {
    "gdb": "Start a GDB that knows AArch64, with the plugin loaded; what follows goes to GDB.",
    "gdbinit": "Print the path to 'source' in a GDB of your own.",
}


class CliContext:
    """The services that commands ask of the command line."""

    def __init__(self) -> None:
        self.progress = Progress(_write_over if sys.stderr.isatty() else None)

    def stop(self) -> Stop:
        raise UsageError("this needs a live target: use the command inside GDB, or name a dump (--dump FILE)")

    def number(self, text: str) -> int:
        from gdbhyp.commands.numbers import parse_number

        return parse_number(text)

    def kept(self) -> MutableMapping[str, Any]:
        raise UsageError("a map is kept in a file here: use --json --output FILE, which 'gdbhyp diff' reads")

    def setting(self, parameter: Parameter) -> str:
        return parameter.initial

    def tracer(self) -> Tracer:
        raise UsageError("recording needs a live target: use hyp-trace inside GDB, or name a trace file")

    def oracle(self) -> tuple[str, Oracle]:
        raise UsageError("this needs a live target to compare with: use hyp-selftest inside GDB")

    def catcher(self) -> Catcher:
        raise UsageError("catching needs a live target: use hyp-catch inside GDB")

    def symbol_files(self) -> None:
        return None

    def disassemble(self, code: bytes, address: int) -> list[str] | None:
        return None

    def warn(self, sentence: str) -> None:
        self.progress.clear()
        _complain(sentence)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _prepare_streams()
    try:
        status = _dispatch(words)
        sys.stdout.flush()
        return status
    except GdbhypError as error:
        _complain(str(error))
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (head, less) has seen enough.
        _abandon_output()
        return 0
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        _abandon_output()
        _complain(f"cannot write the answer: {error.strerror}")
        return 1


_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _prepare_streams() -> None:
    """Make the standard streams usable: a shell may have closed them, and input need not be text."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - for as long as we run
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace", newline="\n")


def _abandon_output() -> None:
    """Drop what stdout still holds: Python would complain at exit that it cannot be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(sentence: str) -> None:
    """Print a sentence on stderr; names in it may come from anywhere."""
    from gdbhyp.render.style import escape

    whose = "" if sentence.startswith("gdbhyp ") else "gdbhyp: "
    print(whose + escape(sentence), file=sys.stderr)


def _dispatch(words: list[str]) -> int:
    name = words[0] if words else "--help"
    if name in ("--help", "-h", "help"):
        return _help(words[1:])
    if name == "--version":
        from gdbhyp import __version__

        print(f"gdbhyp {__version__}")
        return 0
    if name in _LAUNCHERS:
        from gdbhyp.cli import launch

        return launch.gdb(words[1:]) if name == "gdb" else launch.gdbinit()
    return _run(_command(name), words[1:])


def _command(name: str) -> Command:
    for command in COMMANDS:
        if command.name == name and command.in_cli:
            return command
    from gdbhyp.commands.parsing import did_you_mean

    guess = did_you_mean(name, [*(c.name for c in COMMANDS if c.in_cli), *_LAUNCHERS])
    raise UsageError(f"there is no command '{name}'{guess}; 'gdbhyp help' lists them")


def _run(command: Command, words: list[str]) -> int:
    from gdbhyp.commands.declaration import presentation
    from gdbhyp.commands.parsing import select

    if "--help" in words or "-h" in words:
        return _help([command.name])
    chosen, arguments = select(command, f"gdbhyp {command.name}", words)
    how = presentation(chosen, arguments)
    context = CliContext()
    try:
        report = chosen.run(context, arguments)
        if report is not None:
            from gdbhyp.render.present import Screen, present

            screen = Screen(sys.stdout.write, context.warn, _style(), context.progress, sys.stdout.buffer)
            present(report, how, screen)
    finally:
        context.progress.clear()
    return getattr(report, "exit_status", 0)


def _write_over(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _style() -> Style:
    from gdbhyp.render.style import Style

    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    width = os.get_terminal_size(1).columns if sys.stdout.isatty() else 0
    return Style(colour=colour, width=width)


def _help(names: list[str]) -> int:
    from gdbhyp.commands.help import help_text
    from gdbhyp.commands.topic import TOPICS, page

    if names and names[0] in _LAUNCHERS:
        print(_LAUNCHERS[names[0]])
    elif names and names[0] in ("--all", "--man"):
        _reference(names[0])
    elif names and names[0] in TOPICS:
        print(page(names[0]))
    elif names:
        print(help_text(_command(names[0]), f"gdbhyp {names[0]}"))
    else:
        print("gdbhyp makes GDB understand AArch64 hypervisors.\n\nUsage: gdbhyp COMMAND ...\n")
        listed = {c.name: c.summary for c in COMMANDS if c.in_cli} | _LAUNCHERS
        for name, summary in listed.items():
            print(f"  {name:10} {summary}")
        print("\n'gdbhyp help COMMAND' says more; inside GDB, 'help hyp' does.")
        print(f"'gdbhyp help TOPIC' explains: {', '.join(TOPICS)}.")
        print("'gdbhyp help --all' is the whole reference, 'gdbhyp help --man' the same as a manual page.")
    return 0


def _reference(form: str) -> None:
    from gdbhyp import __version__
    from gdbhyp.commands.reference import manual, reference

    sys.stdout.write(f"{reference(COMMANDS)}\n" if form == "--all" else manual(COMMANDS, __version__))


if __name__ == "__main__":
    sys.exit(main())
