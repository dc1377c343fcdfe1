"""TAB completion from the declarations."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

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
    arguments = [*command.all_arguments()]
    wanted = _option_before(arguments, words)
    if wanted is None and not typed.startswith("-"):
        wanted = _positional_at(arguments, words)
    if wanted is None:
        return _tails((n for a in arguments if not a.positional for n in a.names), typed, head)
    return _values(wanted, typed, head)


def _option_before(arguments: list[Argument], words: list[str]) -> Argument | None:
    """Return the option whose value comes next."""
    return next((a for a in arguments if words and a.value and words[-1] in a.names), None)


def _positional_at(arguments: list[Argument], words: list[str]) -> Argument | None:
    """Return the positional that comes next behind ``words``."""
    taking = {n for a in arguments if a.value and not a.positional for n in a.names}
    plain = [w for before, w in pairwise(["", *words]) if before not in taking and not w.startswith("--")]
    positionals = [a for a in arguments if a.positional]
    if len(plain) < len(positionals):
        return positionals[len(plain)]
    last = positionals[-1] if positionals else None
    return last if last is not None and (last.rest or last.repeated) else None


def _values(argument: Argument, typed: str, head: str) -> list[str] | int:
    if argument.choices:
        return _tails(argument.choices, typed, head)
    if argument.value == "register":
        return _registers(typed.upper(), head)
    if argument.value == "class":
        from gdbhyp.commands.classes import CLASSES

        return _tails(CLASSES, typed, head)
    if argument.value == "vm":
        return _tails(_vms(), typed, head)
    if argument.value == "path":
        return gdb.COMPLETE_FILENAME
    if argument.value in ("number", "expression"):
        return gdb.COMPLETE_EXPRESSION
    return gdb.COMPLETE_NONE


def _registers(typed: str, head: str) -> list[str]:
    """Return the tails of register names, and behind a register and a dot those of its fields."""
    from gdbhyp.arch.registers import describe, register_names

    name, dot, _ = typed.partition(".")
    if not dot or name not in register_names():
        return _tails(register_names(), typed, head)
    fields = (f"{name}.{field.name}".upper() for field in describe(name, 0).fields)
    return _tails(fields, typed, head)


def _vms() -> list[str]:
    """Return the numbers of the machine's VMs; none where it cannot be asked."""
    from gdbhyp.errors import GdbhypError
    from gdbhyp.hypervisors.vms import find_vms
    from gdbhyp.plugin.commands import gdb_errors
    from gdbhyp.plugin.remote import giving_back
    from gdbhyp.plugin.target import live_stop

    def find() -> list[str]:
        with gdb_errors(), live_stop() as stop:
            return [str(vm.vm) for vm in find_vms(stop).vms]

    try:
        return giving_back(find)
    except GdbhypError:
        return []


def _tails(candidates: Iterable[str], typed: str, head: str) -> list[str]:
    return [c[len(head) :] for c in sorted(candidates) if c.startswith(typed)]
