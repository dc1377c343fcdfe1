"""The pages of hyp-help."""

from __future__ import annotations

from collections.abc import Iterator

from gdbhyp.analyses.topic import TopicList
from gdbhyp.render.style import Style


def render(report: TopicList, style: Style) -> Iterator[str]:
    """Yield a line a page."""
    yield from style.table([[style.paint("name", row.topic), row.title] for row in report.rows]).splitlines()
