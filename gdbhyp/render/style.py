"""Colour and safety of terminal text.

Text that comes from a target (symbols, memory, logs, file names) is hostile: ``escape`` it before it is printed.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gdbhyp.errors import GdbhypError
from gdbhyp.escaping import escape

__all__ = ["Style", "escape"]

_ROLES = {
    "heading": "bold",
    "good": "green",
    "bad": "red",
    "address": "blue",
    "name": "cyan",
    "note": "yellow",
    "dim": "brightblack",
}
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the rows with their columns aligned, two spaces apart; colours take no room."""
    lengths = [[len(_COLOUR.sub("", cell) if "\x1b" in cell else cell) for cell in row] for row in rows]
    widths = [max(column) for column in zip(*lengths, strict=True)]
    for row, used in zip(rows, lengths, strict=True):
        cells = (cell + " " * (width - own) for cell, own, width in zip(row, used, widths, strict=True))
        yield "  ".join(cells).rstrip()


_LEAST_ROOM = 16
_INDENT = 2
_PAINTED = re.compile(r"(\x1b\[[0-9;]*m)([^\x1b]*)(\x1b\[[0-9;]*m)")


def _fitted(rows: Sequence[Sequence[str]], width: int) -> Sequence[Sequence[str]]:
    """Return ``rows`` with their widest column broken into lines, where they would not fit into ``width``.

    A broken cell goes on in rows whose other cells are empty. Where that column would become too narrow to be read,
    the rows stay as they are.
    """
    widths = [max(len(_COLOUR.sub("", cell)) for cell in column) for column in zip(*rows, strict=True)]
    excess = sum(widths) + 2 * (len(widths) - 1) + _INDENT - width
    if not width or excess <= 0:
        return rows
    widest = widths.index(max(widths))
    room = widths[widest] - excess
    if room < _LEAST_ROOM:
        return rows
    return [line for row in rows for line in _broken(row, widest, room)]


def _broken(row: Sequence[str], column: int, room: int) -> Iterator[list[str]]:
    """Yield the row, and those that its cell at ``column`` goes on in."""
    import textwrap

    painted = _PAINTED.fullmatch(row[column])
    before, text, after = painted.groups() if painted else ("", row[column], "")
    pieces = [text] if "\x1b" in text else textwrap.wrap(text, room) or [""]
    yield [*row[:column], before + pieces[0] + after, *row[column + 1 :]]
    for piece in pieces[1:]:
        yield [*[""] * column, before + piece + after, *[""] * (len(row) - column - 1)]


@contextlib.contextmanager
def _needed(package: str) -> Iterator[None]:
    """Say in a sentence that a package is missing, which inside GDB is easily so."""
    try:
        yield
    except ImportError:
        raise GdbhypError(
            f"{package} is missing: activate the virtual environment that gdbhyp is installed in and start GDB again, "
            "or start GDB with 'gdbhyp gdb'"
        ) from None


@dataclass(frozen=True)
class Style:
    """How text is shown: with colour or without, and how wide (0 = no limit)."""

    colour: bool = False
    width: int = 0

    def paint(self, role: str, text: str) -> str:
        """Colour ``text`` for ``role``, one of "heading", "good", "bad", "address", "name", "note", "dim"."""
        if not self.colour or not text:
            return text
        with _needed("pygments"):
            from pygments.console import colorize

        return colorize(_ROLES[role], text)

    def instruction(self, text: str) -> str:
        """Colour an A64 instruction, ``mrs x3, ID_AA64PFR0_EL1``."""
        if not self.colour:
            return text
        with _needed("pygments"):
            from pygments import highlight
            from pygments.formatters import TerminalFormatter
            from pygments.lexers import GasLexer

        return highlight(text, GasLexer(), TerminalFormatter()).rstrip("\n")

    def table(self, rows: Sequence[Sequence[str]], headers: Sequence[str] = ()) -> str:
        """Lay out ``rows`` in columns; cells are shown as they are, numbers are not reformatted.

        What would be wider than the screen is broken in its widest column.

        Without headers it is a list of fields. That is laid out here, for a syndrome is decoded in less time than it
        takes to import tabulate.
        """
        if not headers:
            return "\n".join(_aligned(_fitted(rows, self.width) if rows else rows))
        head = tuple(self.paint("heading", h) for h in headers)
        fitted = tuple(map(tuple, [*_fitted([head, *rows], self.width)][1:] if self.width else rows))
        return (_laid_out if len(fitted) <= _REPEATED_ROWS else _laid_out.__wrapped__)(fitted, head)


_REPEATED_ROWS = 64


@functools.lru_cache(maxsize=32)
def _laid_out(rows: tuple[tuple[str, ...], ...], head: tuple[str, ...]) -> str:
    """Lay out a table; remembered, for a loop asks the same at each stop, of which this is a third."""
    with _needed("tabulate"):
        from tabulate import tabulate

    return tabulate(rows, head, tablefmt="plain", disable_numparse=True)
