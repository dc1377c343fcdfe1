"""GDB/MI commands for front ends: ``-hyp-walk``, ``-hyp-esr``, ... with the reports' fields as results.

A result has the keys of the command's JSON. MI has strings, lists and tuples alone: a number is in decimal, an address
or register value ``0x...``, a flag "true" or "false", and what is not known is left out. An answer of rows is
``rows=[...]``, with ``problems=[...]`` if something is missing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import gdb

from gdbhyp.errors import GdbhypError
from gdbhyp.escaping import escape

if TYPE_CHECKING:
    from gdbhyp.commands.declaration import Command

_KEY = re.compile(r"[A-Za-z][-_A-Za-z0-9]*")


class MiCommand(gdb.MICommand):
    """``-hyp-NAME``: the adapter of one declared command."""

    def __init__(self, command: Command) -> None:
        self._command = command
        super().__init__(f"-hyp-{command.name}")

    def invoke(self, arguments: list[str]) -> dict[str, Any]:
        from gdbhyp.plugin.commands import answer
        from gdbhyp.plugin.remote import giving_back

        try:
            return _result(
                giving_back(lambda: answer(self._command, f"-hyp-{self._command.name}", arguments))
            )
        except GdbhypError as error:
            raise gdb.GdbError(escape(str(error))) from None


def _result(report: Any) -> dict[str, Any]:
    from gdbhyp.render import json

    if report is None:
        return {}
    if getattr(report, "json_lines", False):
        result: dict[str, Any] = {"rows": [_value(json.encode(row)) for row in report.rows]}
        problems = [escape(str(problem)) for problem in getattr(report, "problems", ())]
        return result | ({"problems": problems} if problems else {})
    found: dict[str, Any] = _value(json.encode(report))
    return found


def _value(value: Any) -> Any:
    """Return what JSON holds in MI's types."""
    if isinstance(value, dict):
        known = {key: _value(inner) for key, inner in value.items() if inner is not None}
        if all(_KEY.fullmatch(key) for key in known):
            return known
        return [{"key": escape(key), "value": inner} for key, inner in known.items()]
    if isinstance(value, list):
        return [_value(inner) for inner in value if inner is not None]
    if isinstance(value, bool):
        return "true" if value else "false"
    return escape(value) if isinstance(value, str) else str(value)


def register(commands: list[Command]) -> None:
    """Register the commands with GDB's machine interface."""
    _registered.extend(MiCommand(command) for command in commands)


_registered: list[MiCommand] = []
