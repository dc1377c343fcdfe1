"""A trace that was written for another program."""

from __future__ import annotations

from collections.abc import Iterator

from gdbhyp.render.style import Style, escape
from gdbhyp.trace.export import ExportReport

_OPENS = {"chrome": ": open it in Perfetto (https://ui.perfetto.dev) or chrome://tracing"}


def render(report: ExportReport, style: Style) -> Iterator[str]:
    """Yield what was written, and what could not be read."""
    yield f"{report.events} events written to {escape(report.path)}{_OPENS.get(report.format, '')}"
    for note in report.notes:
        yield style.paint("note", f"note: {escape(note)}")
