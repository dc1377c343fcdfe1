"""Print a report: as text by its kind's renderer, as JSON, or as comma-separated values."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

from gdbhyp.render.style import Style

Warn = Callable[[str], None]


def write(report: Any, out: Callable[[str], object], *, form: str, style: Style, warn: Warn) -> None:
    """Print ``report`` as ``form``, "text", "json" or "csv", line by line through ``out``.

    What a report says besides its answer (``problems``, known when its rows have been made) goes to ``warn`` when the
    answer itself is for a program; the text renderers show it in place. The rows of a ``raw`` report are its lines
    already. Ctrl-C goes to the caller, after a sentence for those who already see a part of the answer.

    :raises UsageError: if the report does not have that form.
    """
    shown = False

    def show(text: str) -> None:
        nonlocal shown
        out(text)
        shown = True

    try:
        for line in lines(report, form, style):
            show(line + "\n")
        if form != "text" and getattr(report, "json_lines", False):
            for problem in getattr(report, "problems", ()):
                warn(problem)
    except KeyboardInterrupt:
        if shown:
            warn("interrupted: the answer above is not complete")
        raise


def lines(report: Any, form: str, style: Style) -> Iterator[str]:
    """Yield the lines of a report in one of its forms."""
    if form == "csv":
        from gdbhyp.render import csv

        yield from csv.lines(report)
    elif getattr(report, "raw", False):
        yield from report.rows
    elif form == "json":
        from gdbhyp.render import json

        yield from json.lines(report)
    else:
        yield from text_lines(report, style)


def text_lines(report: Any, style: Style) -> Iterator[str]:
    """Yield the lines of a report's text, from ``gdbhyp.render.text.<kind>``."""
    renderer = importlib.import_module(f"gdbhyp.render.text.{report.kind}")
    yield from renderer.render(report, style)
