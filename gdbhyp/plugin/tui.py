"""The TUI window ``hyp`` and the layout of that name: status, the current translation, the last exits.

What it shows is made anew before a prompt when the machine has run or was changed since, so that a ``while`` of a
hundred ``stepi`` draws it once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, cast

import gdb

_EXITS = 5


class HypWindow:
    """The window's contents; GDB makes one whenever a layout with it is shown, and calls these methods."""

    def __init__(self, window: Any) -> None:
        self._window = window
        self._lines: list[str] = []
        self._top = 0
        self._stale = True
        window.title = "gdbhyp"
        for event in _changes():
            event.connect(self._changed)
        gdb.events.before_prompt.connect(self._refresh)

    def close(self) -> None:
        """The layout is left: nothing is made any more."""
        for event in _changes():
            event.disconnect(self._changed)
        gdb.events.before_prompt.disconnect(self._refresh)

    def render(self) -> None:
        """Draw what is known; GDB asks for it when the window appears or changes its size."""
        if self._stale:
            self._make()
        height, width = self._window.height, self._window.width
        self._top = max(0, min(self._top, len(self._lines) - height))
        self._window.erase()
        for line in self._lines[self._top : self._top + height]:
            self._window.write(_cut(line, width) + "\n")

    def vscroll(self, lines: int) -> None:
        """Scroll by lines, up when negative."""
        self._top += lines
        self.render()

    def hscroll(self, columns: int) -> None:
        """Lines are cut where the window ends."""

    def _changed(self, event: Any) -> None:
        self._stale = True

    def _refresh(self, nothing: object = None) -> None:
        if self._stale and self._window.is_valid():
            self.render()

    def _make(self) -> None:
        from gdbhyp.errors import GdbhypError
        from gdbhyp.plugin.remote import giving_back

        self._stale = False
        try:
            self._lines = giving_back(lambda: list(_screen()))
        except GdbhypError as error:
            from gdbhyp.render.style import escape

            self._lines = [escape(str(error))]
        except KeyboardInterrupt:
            self._lines = ["interrupted: what stands here is made again after the next stop"]


def _changes() -> tuple[Any, ...]:
    events = gdb.events
    return events.stop, events.cont, events.exited, events.memory_changed, events.register_changed


def _screen() -> Iterator[str]:
    """Yield the lines of the window."""
    from gdbhyp.analyses import status, walk
    from gdbhyp.plugin.commands import gdb_errors
    from gdbhyp.plugin.target import live_stop
    from gdbhyp.render.output import text_lines
    from gdbhyp.render.style import Style
    from gdbhyp.render.text.walk import conclusion

    style = Style(colour=bool(gdb.parameter("style enabled")))
    with gdb_errors(), live_stop() as stop:
        report = status.status(stop)
        yield from text_lines(report, style)
        here = walk.walk(stop, walk.Question(report.pc))
        place = f"VA {report.pc:#x} of the PC is"
        yield f"{style.paint('heading', 'translation')}  {place} {' '.join(conclusion(here, style))}"
    yield from _exits(style)


def _exits(style: Any) -> Iterator[str]:
    from gdbhyp.plugin.trace import recorded_exits
    from gdbhyp.render.text.trace_show import exit_lines

    rows = recorded_exits(_EXITS)
    if rows is None:
        yield f"{style.paint('heading', 'last exits')}   none is recorded: 'hyp-trace start' begins"
        return
    yield style.paint("heading", "last exits")
    began = next((row.time_ns for row in rows if row.time_ns is not None), 0)
    yield from (f"  {line}" for line in exit_lines(rows, began, style))


def _cut(line: str, width: int) -> str:
    """Return as much of a line as the window has room for; colours take none, and end with the line."""
    shown, room, at = [], width - 1, 0
    coloured = False
    while at < len(line) and room > 0:
        end = line.find("m", at) + 1 if line[at] == "\x1b" else at + 1
        shown.append(line[at:end])
        coloured = coloured or line[at] == "\x1b"
        room -= line[at] != "\x1b"
        at = end
    return "".join(shown) + ("\x1b[m" if coloured else "")


def register() -> None:
    """Register the window and the layout, where this GDB has a TUI."""
    if hasattr(gdb, "register_window_type"):
        with contextlib.suppress(gdb.error, RuntimeError):
            gdb.register_window_type("hyp", cast(Any, HypWindow))
            gdb.execute("tui new-layout hyp hyp 2 asm 1 status 0 cmd 1", to_string=True)
