"""TAB completion from the declarations."""

from __future__ import annotations

from collections.abc import Iterable

import gdb

from gdbhyp.commands.declaration import Argument, Command


def complete(command: Command, text: str, word: str | None) -> list[str] | int:
    """Return what may follow ``text``, the arguments typed so far.

    GDB asks first with ``word`` None, to learn which completer's word breaks are in force, and then with the part of
    the last word behind the last word break; since ``-`` is one, only what follows that break may be returned.
    """
    if word is None:
        return gdb.COMPLETE_NONE
    words = text.split()
    typed = "" if not text or text[-1].isspace() else words.pop()
    head = typed[: len(typed) - len(word)] if typed.endswith(word) else ""
    if command.subcommands:
        if not words:
            return _tails((sub.name for sub in command.subcommands), typed, head)
        command = next((sub for sub in command.subcommands if sub.name == words[0]), command)
        words = words[1:]
    previous = words[-1] if words else ""
    arguments = [*command.all_arguments()]
    wanted = next((a for a in arguments if a.value and previous in a.names), None)
    if wanted is None and not typed.startswith("-"):
        wanted = next((a for a in arguments if a.positional), None)
    if wanted is None:
        return _tails((n for a in arguments if not a.positional for n in a.names), typed, head)
    return _values(wanted, typed, head)


def _values(argument: Argument, typed: str, head: str) -> list[str] | int:
    if argument.choices:
        return _tails(argument.choices, typed, head)
    if argument.value == "register":
        from gdbhyp.arch.registers import register_names

        return _tails(register_names(), typed.upper(), head)
    if argument.value == "path":
        return gdb.COMPLETE_FILENAME
    if argument.value in ("number", "expression"):
        return gdb.COMPLETE_EXPRESSION
    return gdb.COMPLETE_NONE


def _tails(candidates: Iterable[str], typed: str, head: str) -> list[str]:
    return [c[len(head) :] for c in sorted(candidates) if c.startswith(typed)]
