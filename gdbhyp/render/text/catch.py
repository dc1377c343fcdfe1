"""Catches, as they were made or as they are."""

from __future__ import annotations

from collections.abc import Iterator

from gdbhyp.render.style import Style, escape
from gdbhyp.trace.catching import CatchReport, CatchRow


def render(report: CatchReport, style: Style) -> Iterator[str]:
    """Yield a line for a new catch, or a table of all."""
    if report.made:
        for row in report.catches:
            yield f"Catch {row.number}: {escape(row.words)}{_but(row)}"
    elif not report.catches:
        yield "nothing is caught: 'help hyp-catch' says what can be"
    else:
        heading = ["number", "hits", "what"]
        cells = [[str(row.number), str(row.hits), escape(row.words) + _but(row)] for row in report.catches]
        yield style.table(cells, heading)
    for note in report.notes:
        yield style.paint("note", f"  note: {escape(note)}")


def _but(row: CatchRow) -> str:
    """Return what holds it back, with a comma before each item."""
    items = [
        f"only if {escape(row.condition)}" if row.condition else "",
        f"the next {row.ignore} are ignored" if row.ignore else "",
        "temporary" if row.temporary else "",
        "" if row.enabled else "disabled",
    ]
    return "".join(f", {item}" for item in items if item)
