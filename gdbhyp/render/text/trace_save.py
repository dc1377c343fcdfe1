"""A recording that was written."""

from __future__ import annotations

from collections.abc import Iterator

from gdbhyp.render.style import Style, escape
from gdbhyp.trace.status import SaveReport


def render(report: SaveReport, style: Style) -> Iterator[str]:
    """Yield one line."""
    missing = f"; {report.dropped} older or lost ones are not in it" if report.dropped else ""
    yield f"{report.events} events written to {escape(report.path)}{missing}"
