"""A page of hyp-help."""

from __future__ import annotations

from collections.abc import Iterator

from gdbhyp.analyses.topic import TopicReport
from gdbhyp.render.style import Style


def render(report: TopicReport, style: Style) -> Iterator[str]:
    """Yield the page, then what it says of the CPU."""
    yield style.paint("heading", report.title)
    yield ""
    yield from report.text.splitlines()
    if report.here or report.missing:
        yield ""
        yield style.paint("heading", "Here:")
    yield from (f"  {line}" for line in report.here)
    if report.missing:
        yield f"  {style.paint('note', report.missing)}"
