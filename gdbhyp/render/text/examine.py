"""Memory, a line for a few units, as GDB's ``x`` lays it out."""

from __future__ import annotations

from collections.abc import Iterator

from gdbhyp.analyses.examine import ExamineReport
from gdbhyp.render.style import Style, escape


def render(report: ExamineReport, style: Style) -> Iterator[str]:
    """Yield the lines of the answer."""
    for row in report.rows:
        address = style.paint("address", f"{report.space} {row.address:#x}")
        yield f"{address}:  " + "  ".join(escape(value.replace("\t", " ")) for value in row.values)
    yield from (style.paint("note", escape(problem)) for problem in report.problems)
