"""Several decoded syndromes, an empty line between them."""

from __future__ import annotations

from collections.abc import Iterator

from gdbhyp.analyses.esr import EsrReports
from gdbhyp.render.style import Style
from gdbhyp.render.text import esr


def render(report: EsrReports, style: Style) -> Iterator[str]:
    """Yield the lines of all syndromes."""
    for number, row in enumerate(report.rows):
        if number:
            yield ""
        yield from esr.render(row, style)
