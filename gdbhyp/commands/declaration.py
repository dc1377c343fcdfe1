"""How a command is declared: once, for every front end.

A declaration is data: importing it costs next to nothing, and GDB's help, the command line's parser, and TAB completion
are all made from it. What a command does is imported when it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from gdbhyp.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from gdbhyp.analyses.selftest import Oracle
    from gdbhyp.commands.parameters import Parameter
    from gdbhyp.engine.stop import Stop
    from gdbhyp.hypervisors.symbols import CodeRange
    from gdbhyp.trace.catching import CatchReport, Wanted
    from gdbhyp.trace.checking import CheckReport
    from gdbhyp.trace.ring import Recording
    from gdbhyp.trace.status import FollowReport, StartOptions, TraceStatus


class Tracer(Protocol):
    """Recording of world switches on a live target; there is one recording at a time."""

    def start(self, options: StartOptions) -> TraceStatus:
        """Start a new recording; NoTarget or UsageError in a sentence if that cannot be."""
        ...

    def stop(self) -> TraceStatus:
        """End the recording and leave the target as it was; what was recorded stays."""
        ...

    def status(self) -> TraceStatus:
        """Return what is being recorded, or was."""
        ...

    def follow(self, interval: float, seconds: float | None, *, live: bool) -> FollowReport:
        """Let the machine run and count until it stands; NoTarget in a sentence if nothing is being recorded."""
        ...

    def check(self, runs: int) -> CheckReport:
        """Let the machine run until ``runs`` entries into guests were compared, or it stops for another reason."""
        ...

    def recording(self) -> Recording:
        """Return the recording; NoTarget in a sentence if nothing was ever recorded."""
        ...

    def symbol(self, address: int) -> str | None:
        """Return ``name+offset`` for an address that a symbol file covers."""
        ...


class Catcher(Protocol):
    """Catches on a live target."""

    def add(self, wanted: Wanted, *, condition: str | None, ignore: int, temporary: bool) -> CatchReport:
        """Make a catch; NoTarget or UsageError in a sentence if that cannot be."""
        ...

    def list(self) -> CatchReport:
        """Return all catches."""
        ...


class SymbolFiles(Protocol):
    """The files that the debugger takes symbols from."""

    def give(self, name: str, contents: bytes, code: Sequence[CodeRange]) -> str:
        """Let the debugger read a symbol file of ours, in place of an earlier one of that name; return its path.

        ``code`` are the parts of it that backtraces go through.
        """
        ...

    def take_back(self) -> tuple[str, ...]:
        """Make the debugger forget our files, and remove them; return their names."""
        ...

    def program(self, build_id: str) -> str | None:
        """Return the path of a file with this build ID that the person has loaded, None if there is none."""
        ...

    def move(self, path: str, offset: int, *, main: bool) -> None:
        """Let the debugger read a program's own file with all its addresses moved by ``offset``.

        ``main`` says that it takes the place of the file that the debugger has; else it is one more.
        """
        ...


class Context(Protocol):
    """What a front end does for a command."""

    def stop(self) -> Stop:
        """Return the stopped CPU that the question is about; NoTarget in a sentence if there is none."""
        ...

    def number(self, text: str) -> int:
        """Evaluate an integer argument as the front end's users write it; UsageError if it is none."""
        ...

    def disassemble(self, code: bytes, address: int) -> list[str] | None:
        """Return A64 ``code`` as a line of assembler for each instruction; None where there is no disassembler."""
        ...

    def warn(self, sentence: str) -> None:
        """Tell the person something that does not belong to the answer."""
        ...

    def progress(self, what: str, done: int, total: int | None = None) -> None:
        """Say how far a long answer is, as ``what: done of total``.

        Cheap enough to be called for every piece of work; a person at a terminal sees it from the second second on.
        """
        ...

    def kept(self) -> MutableMapping[str, Any]:
        """Return what commands keep by name for later ones; UsageError in a sentence where nothing outlives one."""
        ...

    def setting(self, parameter: Parameter) -> str:
        """Return what the person has chosen for a parameter, or what holds initially."""
        ...

    def tracer(self) -> Tracer:
        """Return the recorder of world switches; UsageError in a sentence where there is no live target."""
        ...

    def oracle(self) -> tuple[str, Oracle]:
        """Return the target's own translation and its name; NoTarget or UsageError in a sentence without one."""
        ...

    def catcher(self) -> Catcher:
        """Return the catches; UsageError in a sentence where there is no live target."""
        ...

    def symbol_files(self) -> SymbolFiles | None:
        """Return the debugger's symbol files, None where there is no debugger."""
        ...


Run = Callable[[Context, "Namespace"], Any]


@dataclass(frozen=True)
class Argument:
    """One argument of a command.

    ``names`` is either one bare word (a positional) or option strings. ``value`` is what follows an option: "" for a
    flag, else one of "number" (an expression of the front end), "text", "path", "register" (or "REGISTER.FIELD"),
    "class" (an exception class by its short name or number), "vm" (a number of hyp-vms), or "choice" with its
    ``choices``. A ``rest`` positional takes all remaining words, so that ``hyp-walk $sp + 8`` needs no quotes.
    """

    names: tuple[str, ...]
    help: str
    value: str = ""
    metavar: str = ""
    choices: tuple[str, ...] = ()
    optional: bool = False
    rest: bool = False
    repeated: bool = False

    @property
    def positional(self) -> bool:
        return not self.names[0].startswith("-")

    @property
    def shown(self) -> str:
        """The argument as a usage line shows it."""
        value = self.metavar or ("|".join(self.choices) if self.choices else self.value.upper())
        if self.positional:
            word = (self.metavar or self.names[0].upper()) + ("..." if self.repeated else "")
            return f"[{word}]" if self.optional else word
        return f"[{self.names[0]} {value}]" if self.value else f"[{self.names[0]}]"


@dataclass(frozen=True)
class Command:
    """A question that gdbhyp answers: ``hyp-NAME`` in GDB, ``gdbhyp NAME`` on the command line.

    ``run(context, arguments)`` returns a report, or raises a ``GdbhypError``. ``description`` and the examples (a
    captured session in ``examples/NAME.txt``) complete the help.
    """

    name: str
    summary: str
    run: Run
    arguments: tuple[Argument, ...] = ()
    description: str = ""
    in_gdb: bool = True
    in_cli: bool = False
    subcommands: tuple[Command, ...] = field(default=())

    def usage(self, program: str) -> str:
        """Return the usage line for ``program``, "hyp-walk" or "gdbhyp walk"."""
        if self.subcommands:
            return f"{program} {'|'.join(c.name for c in self.subcommands)} ..."
        return " ".join([program, *(a.shown for a in self.all_arguments())])

    def all_arguments(self) -> Iterator[Argument]:
        """The command's own options first, then those of every command, then positionals."""
        own = [a for a in self.arguments if not a.positional]
        yield from own
        taken = {name for a in own for name in a.names}
        yield from (a for a in EVERYWHERE if not taken & {*a.names})
        yield from (a for a in self.arguments if a.positional)


JSON = Argument(("--json",), "print the answer as JSON, and nothing else")
CSV = Argument(("--csv",), "print the answer as comma-separated values, with a heading")
QUIET = Argument(
    ("--quiet",), "print no answer: it is left in $hyp_last, or the exit status is all that is asked"
)
OUTPUT = Argument(
    ("-o", "--output"),
    "write the answer to a file, which appears when the answer is complete",
    "path",
    metavar="FILE",
)

# What every command takes; the front ends do it.
EVERYWHERE = (JSON, CSV, QUIET, OUTPUT)


@dataclass(frozen=True)
class Presentation:
    """How an answer is wanted: ``form`` is "text", "json" or "csv", ``output`` a file in place of the screen."""

    form: str = "text"
    quiet: bool = False
    output: str | None = None


def presentation(command: Command, arguments: Namespace) -> Presentation:
    """Return how the answer of ``command`` is wanted.

    :raises UsageError: for options that exclude each other.
    """
    own = {name for a in command.arguments for name in a.names}
    output = arguments.output if OUTPUT in command.arguments or "--output" not in own else None
    quiet = arguments.quiet and "--quiet" not in own
    if arguments.json and arguments.csv:
        raise UsageError("--json and --csv exclude each other")
    if quiet and output is not None:
        raise UsageError("--quiet and --output exclude each other")
    return Presentation("json" if arguments.json else "csv" if arguments.csv else "text", quiet, output)
