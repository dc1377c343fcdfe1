"""The help of a command, from its declaration and its captured examples."""

from __future__ import annotations

import textwrap
from pathlib import Path

from gdbhyp.commands.declaration import EVERYWHERE, Argument, Command

_WIDTH = 96
_EXAMPLES = Path(__file__).with_name("examples")


def help_text(command: Command, name: str) -> str:
    """Return the whole help: a sentence, usage, description, arguments and examples, as ``help hyp-walk`` shows it."""
    parts = [_reference(command, name)]
    parts.extend(_reference(sub, f"{name} {sub.name}") for sub in command.subcommands)
    parts.append("\n".join(["Every command also takes:", *(_entry(a) for a in EVERYWHERE)]))
    examples = example_text(command)
    if examples:
        parts.append(f"Examples:\n\n{textwrap.indent(examples, '  ')}")
    return "\n\n".join(parts)


def _reference(command: Command, name: str) -> str:
    """Return what a command, or a subcommand, is for, and its arguments."""
    parts = [command.summary, f"Usage: {command.usage(name)}"]
    if command.description:
        parts.extend(textwrap.fill(p, _WIDTH) for p in command.description.strip().split("\n\n"))
    if not command.subcommands and command.arguments:
        parts.append("\n".join(_entry(a) for a in command.all_arguments() if a not in EVERYWHERE))
    return "\n\n".join(parts)


def example_text(command: Command) -> str:
    """Return the captured session that shows the command, "" if there is none."""
    path = _EXAMPLES / f"{command.name}.txt"
    return path.read_text(encoding="utf-8").rstrip("\n") if path.exists() else ""


def entry_texts(argument: Argument) -> tuple[str, str]:
    """Return an argument as it is typed, and what it is for."""
    names = ", ".join(argument.names) if not argument.positional else argument.shown.strip("[]")
    value = argument.metavar or argument.value.upper()
    text = argument.help
    if argument.choices:
        text += f" ({', '.join(argument.choices)})"
    return f"{names} {value}" if argument.value and not argument.positional else names, text


def _entry(argument: Argument) -> str:
    head, text = entry_texts(argument)
    return "\n".join(
        [f"  {head}", textwrap.fill(text, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)]
    )
