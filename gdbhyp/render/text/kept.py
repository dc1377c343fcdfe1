"""A map that was kept."""

from __future__ import annotations

from collections.abc import Iterator

from gdbhyp.analyses.picture import KeptReport
from gdbhyp.render.style import Style


def render(report: KeptReport, style: Style) -> Iterator[str]:
    """Yield the line, and what is missing."""
    count = f"{report.ranges} range{'' if report.ranges == 1 else 's'}"
    yield f"kept {report.map} as {style.paint('name', report.name)}: {count}"
    yield from (style.paint("bad", problem) for problem in report.problems)
