"""Convenience functions, for expressions and breakpoint conditions."""

from __future__ import annotations

from typing import Any

import gdb

from gdbhyp.errors import GdbhypError


class Function(gdb.Function):
    """A function that says what it cannot answer in one sentence."""

    def invoke(self, *arguments: gdb.Value) -> Any:
        try:
            return self.answer(*arguments)
        except GdbhypError as error:
            from gdbhyp.render.style import escape

            raise gdb.GdbError(f"${self.name}: {escape(str(error))}") from None

    name = ""

    def __init__(self) -> None:
        super().__init__(self.name)

    def answer(self, *arguments: gdb.Value) -> Any:
        """Return the value of the function."""
        raise NotImplementedError


class Last(Function):
    """Return a field of the last gdbhyp command's answer.

    Usage: $hyp_last("PATH")
    PATH names a key of the answer as its JSON has it: $hyp_last("output"), $hyp_last("fault.kind"),
    $hyp_last("steps[0].table"), $hyp_last("rows.count"). What is not known is void. The keys that hold a number or a
    text are also in $hyp_last_KEY."""

    name = "hyp_last"

    def answer(self, *arguments: gdb.Value) -> Any:
        from gdbhyp.plugin import last

        path = arguments[0].string() if arguments else ""
        found = last.field(path)
        return void() if found is None else last.to_gdb(found)


def void() -> gdb.Value:
    """Return the value of a convenience variable that was never set."""
    return gdb.parse_and_eval("$_gdbhyp_nothing")


_FUNCTIONS: tuple[type[Function], ...] = (Last,)
_registered: list[Function] = []


def register() -> None:
    """Register every function with GDB."""
    _registered.extend(function() for function in _FUNCTIONS)
