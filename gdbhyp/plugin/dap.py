"""The variables view of IDEs: in GDB's Debug Adapter Protocol, the newest frame has a variable ``gdbhyp``.

GDB's DAP makes its "Locals" of what frame filters say, and shows values by pretty printers. So a frame filter adds one
value, whose printer's children are the registers that decide about translation and traps, and theirs the fields. It is
added only where GDB runs as a debug adapter, so that 'backtrace full' is as it was. Values are read when the view
unfolds.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import gdb

_WHOLE = "gdbhyp"
"""The variable's name."""


class _Node(gdb.Value):
    """A value that our printer knows again: what is shown for it, and what it unfolds to."""

    def __init__(self, shown: str, children: Any = None) -> None:
        # gdb.Value has taken the text itself, in __new__ or here, depending on its version.
        super().__init__(shown)
        self.shown = shown
        self.unfold = children

    def __new__(cls, shown: str, children: Any = None) -> _Node:
        return super().__new__(cls, shown)  # type: ignore[call-arg]


class _Leaf:
    """Prints a value as its text."""

    def __init__(self, node: _Node) -> None:
        self._node = node

    def to_string(self) -> str:
        return self._node.shown


class _Branch(_Leaf):
    """Prints a value that unfolds."""

    def children(self) -> Iterator[tuple[str, Any]]:
        return iter(self._node.unfold())


def _printer(value: gdb.Value) -> Any:
    if not isinstance(value, _Node):
        return None
    return _Leaf(value) if value.unfold is None else _Branch(value)


def _registers() -> list[tuple[str, Any]]:
    """Return the nodes of the world, and of every register that decides about translation and traps."""
    from gdbhyp.analyses.registers import ESSENTIAL, describe
    from gdbhyp.analyses.walk import regime_of
    from gdbhyp.analyses.world import world_of
    from gdbhyp.arch.worlds import Hcr
    from gdbhyp.errors import GdbhypError
    from gdbhyp.escaping import escape
    from gdbhyp.plugin.commands import gdb_errors
    from gdbhyp.plugin.remote import giving_back
    from gdbhyp.plugin.target import live_stop

    def read() -> list[tuple[str, Any]]:
        with gdb_errors(), live_stop() as stop:
            world, reason = world_of(stop)
            e2h = Hcr(stop.register("HCR_EL2")).e2h
            values = {name: stop.optional(name) for name in ESSENTIAL}
            views = {n: describe(n, v, e2h=e2h, verbose=True) for n, v in values.items() if v is not None}
            head = [("world", _Node(f"{world}: {reason}")), ("regime", _Node(regime_of(stop).value))]
            return head + [(name, _register(view)) for name, view in views.items()]

    try:
        return giving_back(read)
    except GdbhypError as error:
        return [("error", _Node(escape(str(error))))]


def _register(view: Any) -> _Node:
    """Return the node of a register, with its fields below it."""
    fields = [(field.name, _Node(_field(field))) for field in view.fields]
    return _Node(f"{view.value:#x}", lambda: fields)


def _field(field: Any) -> str:
    value = str(field.value) if field.value < 10 else f"{field.value:#x}"
    return f"{value}  {field.text}" if field.text not in ("", value) else value


class _Decorated:
    """A frame as it was, with one local more."""

    def __init__(self, frame: Any) -> None:
        self._frame = frame

    def __getattr__(self, name: str) -> Any:
        return getattr(self._frame, name)

    def frame_locals(self) -> Iterable[Any]:
        own = SimpleNamespace(
            symbol=lambda: SimpleNamespace(print_name=_WHOLE),
            value=lambda: _Node("EL2's registers by field", _registers),
        )
        return [*(self._frame.frame_locals() or ()), own]


class _Filter:
    """The frame filter."""

    name = "gdbhyp"
    enabled = True
    priority = 0

    def filter(self, frames: Iterator[Any]) -> Iterator[Any]:
        for number, frame in enumerate(frames):
            yield _Decorated(frame) if number == 0 else frame


def register() -> None:
    """Add to the variables view, if this GDB is a debug adapter."""
    if "gdb.dap" in sys.modules:
        gdb.pretty_printers.append(_printer)
        gdb.frame_filters[_Filter.name] = _Filter()
