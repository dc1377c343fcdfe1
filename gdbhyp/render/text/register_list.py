"""Several registers by field."""

from __future__ import annotations

from collections.abc import Iterator

from gdbhyp.analyses.registers import RegisterList
from gdbhyp.render.style import Style
from gdbhyp.render.text import register


def render(report: RegisterList, style: Style) -> Iterator[str]:
    """Yield the lines of all registers, then what is missing."""
    for row in report.rows:
        yield from register.render(row, style)
    yield from (style.paint("note", problem) for problem in report.problems)
