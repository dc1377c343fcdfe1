"""An argparse parser from a declaration, which can never end the process."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from gdbhyp.commands.declaration import Argument, Command
from gdbhyp.errors import UsageError


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean NAME?)`` for the nearest of ``known``, whatever its case; "" if none is near."""
    import difflib  # takes a while, and most words are spelled right

    spelled = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), spelled, 1)
    return f" (did you mean {spelled[close[0]]}?)" if close else ""


class Parser(argparse.ArgumentParser):
    """argparse, tamed: what it would print before exiting is raised as a UsageError."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}{self._nearest(message)}. Usage: {self.usage}")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        raise UsageError(message or f"{self.prog} ended with status {status}")

    def _nearest(self, message: str) -> str:
        unknown = re.search(r"(?:unrecognized arguments:|invalid choice:) (--[\w-]+|'[^']*')", message)
        if unknown is None:
            return ""
        word = unknown[1].strip("'")
        if unknown[1].startswith("-"):
            known = [s for action in self._actions for s in action.option_strings]
        else:
            known = [str(c) for action in self._actions for c in action.choices or ()]
        return did_you_mean(word, known)


def _formatter(prog: str) -> argparse.HelpFormatter:
    """Return a formatter of a fixed width: to ask the terminal, argparse would import compression modules."""
    return argparse.HelpFormatter(prog, width=100)


def build_parser(command: Command, program: str) -> Parser:
    """Return the parser of one command; ``program`` is the name that messages use."""
    usage = command.usage(program)
    parser = Parser(prog=program, usage=usage, add_help=False, allow_abbrev=False, formatter_class=_formatter)
    for argument in command.all_arguments():
        _add(parser, argument)
    return parser


class _Prepared:
    """What parsing a command's words takes, made once: that takes a quarter of the time of a whole answer.

    ``taking`` says of each option whether a value follows it, ``rest`` is the positional that takes all other words.
    """

    def __init__(self, command: Command, program: str) -> None:
        # Kept, so that nothing else gets its identity.
        self.command = command
        self.parser = build_parser(command, program)
        options = [a for a in command.all_arguments() if not a.positional]
        self.taking = {name: bool(a.value) for a in options for name in a.names}
        self.rest = [a.names[0] for a in command.arguments if a.positional and a.rest]


_prepared: dict[tuple[int, str], _Prepared] = {}


def _prepare(command: Command, program: str) -> _Prepared:
    key = (id(command), program)
    if key not in _prepared:
        _prepared[key] = _Prepared(command, program)
    return _prepared[key]


def _add(parser: Parser, argument: Argument) -> None:
    options: dict[str, Any] = {"help": argument.help}
    if argument.positional:
        if argument.rest or argument.repeated:
            options["nargs"] = "*" if argument.optional else "+"
        elif argument.optional:
            options["nargs"] = "?"
    elif not argument.value:
        options["action"] = "store_true"
    elif argument.repeated:
        options["action"] = "append"
    if argument.choices:
        options["choices"] = argument.choices
    parser.add_argument(*argument.names, **options)


def parse(command: Command, program: str, words: list[str]) -> argparse.Namespace:
    """Parse ``words``; a ``rest`` positional becomes one string.

    :raises UsageError: with one sentence and the usage line.
    """
    prepared = _prepare(command, program)
    options, positionals = _separate(words, prepared.taking)
    if program.startswith("hyp-") and "--help" in options:
        raise UsageError(f"GDB's own 'help {program.split()[0]}' shows the arguments, and examples")
    parsed = prepared.parser.parse_args([*options, *(["--", *positionals] if positionals else [])])
    for name in prepared.rest:
        setattr(parsed, name, " ".join(getattr(parsed, name) or []))
    return parsed


def parse_line(command: Command, program: str, line: str) -> tuple[Command, argparse.Namespace]:
    """Parse a typed line; return the command, or the subcommand that its first word names, and its arguments.

    :raises UsageError: with one sentence and the usage line.
    """
    return select(command, program, split_words(line))


def select(command: Command, program: str, words: list[str]) -> tuple[Command, argparse.Namespace]:
    """Parse ``words`` for the command, or for the subcommand that the first of them names."""
    if not command.subcommands:
        return command, parse(command, program, words)
    names = [sub.name for sub in command.subcommands]
    if not words or words[0] not in names:
        guess = did_you_mean(words[0], names) if words else ""
        said = f"'{words[0]}' is not one of its subcommands{guess}" if words else "a subcommand is missing"
        raise UsageError(f"{program}: {said}. Usage: {command.usage(program)}")
    chosen = command.subcommands[names.index(words[0])]
    return chosen, parse(chosen, f"{program} {chosen.name}", words[1:])


def _separate(words: list[str], taking: Mapping[str, bool]) -> tuple[list[str], list[str]]:
    """Split options from the rest, so that ``-8`` and ``- 8`` inside an expression are no options."""
    options: list[str] = []
    rest: list[str] = []
    queue = iter(words)
    for word in queue:
        if word == "--":
            rest.extend(queue)
            break
        if not re.match(r"--?[A-Za-z]", word):
            rest.append(word)
            continue
        options.append(word)
        if taking.get(word):
            options.extend([w for w in [next(queue, None)] if w is not None])
    return _joined(options, taking), rest


def _joined(options: list[str], taking: Mapping[str, bool]) -> list[str]:
    """Write ``--opt VALUE`` as ``--opt=VALUE``, for a value may begin with a dash."""
    joined: list[str] = []
    queue = iter(options)
    for word in queue:
        value = next(queue, None) if taking.get(word) else None
        joined.append(word if value is None else f"{word}={value}")
    return joined


def split_words(line: str) -> list[str]:
    """Split a typed line into words; quotes group, and nothing else is special.

    :raises UsageError: for an open quote.
    """
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    lexer.escape = ""
    try:
        return list(lexer)
    except ValueError:
        raise UsageError("a quote is not closed") from None
