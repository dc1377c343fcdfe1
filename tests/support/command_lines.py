"""Lines to type for every command of the registry, made from its declaration and its captured examples.

Nothing here names a command: one that is new is typed in every way that it declares from its first day on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from gdbhyp.commands.declaration import EVERYWHERE, Argument, Command
from gdbhyp.commands.help import example_text
from gdbhyp.commands.registry import COMMANDS

IN_GDB: tuple[Command, ...] = tuple(command for command in COMMANDS if command.in_gdb)

# What may stand where a declaration asks for a value; "path" is FOLDER/written.
_OPTION_VALUES = {"number": "8", "text": "0", "register": "HCR_EL2", "class": "hvc", "vm": "0"}
_POSITIONALS = {**_OPTION_VALUES, "number": "$pc"}


def parts(command: Command) -> Sequence[Command]:
    """Return what can be asked by itself: the subcommands, or the command if it has none."""
    return command.subcommands or (command,)


def names(command: Command, prefix: str = "hyp-") -> list[str]:
    """Return how each of the command's parts is typed."""
    return [prefix + " ".join(dict.fromkeys((command.name, part.name))) for part in parts(command)]


def is_line_of(name: str, line: str) -> bool:
    """Whether a line asks the command or subcommand that is typed as ``name``."""
    return f"{line} ".startswith((f"{name} ", f"{name}/"))


def examples(command: Command, folder: Path) -> list[str]:
    """Return the lines of GDB of a command's captured examples, writing to ``folder``."""
    found: list[str] = re.findall(r"^\(gdb\) (hyp-.+)$", example_text(command), re.MULTILINE)
    return [line.replace("/tmp/", f"{folder}/") for line in found]


def lines(command: Command, folder: Path) -> dict[str, list[str]]:
    """Return lines of GDB that ask, for each part: bare, and with each of its options.

    Whether they are answered depends on the target. What is written goes to ``folder``.
    """
    return {
        name: list(dict.fromkeys(_asked(part, name, folder)))
        for part, name in zip(parts(command), names(command), strict=True)
    }


def mistakes(command: Command) -> dict[str, list[str]]:
    """Return lines that no target can answer: options that are unknown or lack a value, and values that are none."""
    return {
        name: list(dict.fromkeys(_wrong(part, name)))
        for part, name in zip(parts(command), names(command), strict=True)
    }


def _wrong(part: Command, name: str) -> Iterator[str]:
    yield f"{name} --no-such-option"
    yield f"{name} 'open"
    yield f"{name} nonsense("
    for argument in part.all_arguments():
        if argument.value and not argument.positional:
            yield f"{name} {argument.names[-1]}"
            if argument.value != "path":
                yield f"{name} {argument.names[-1]} nonsense("


def _asked(part: Command, name: str, folder: Path) -> Iterator[str]:
    positionals = [a for a in part.arguments if a.positional]
    words = [_value(a, _POSITIONALS, folder) for a in positionals]
    needed = [word for a, word in zip(positionals, words, strict=True) if not a.optional]
    whole = " ".join([name, *needed])
    options = [o for a in (*part.arguments, *EVERYWHERE) if not a.positional for o in _spelled(a, folder)]
    # Where a command says itself what it writes, most of its options are for that.
    for output in (f"-o {folder / 'written'}" for a in part.arguments if "-o" in a.names):
        yield f"{whole} {output}"
        yield from (f"{whole} {option} {output}" for option in options)
    yield whole
    yield name
    yield " ".join([name, *words])
    yield from (f"{name} {choice}" for a in positionals for choice in a.choices)
    yield from (f"{whole} {option}" for option in options)


def _spelled(argument: Argument, folder: Path) -> Iterator[str]:
    option = argument.names[-1]
    if not argument.value:
        yield option
    for choice in argument.choices or ((_value(argument, _OPTION_VALUES, folder),) if argument.value else ()):
        yield f"{option} {choice}"


def _value(argument: Argument, values: dict[str, str], folder: Path) -> str:
    if argument.choices:
        return argument.choices[0]
    return values.get(argument.value, str(folder / "written"))
