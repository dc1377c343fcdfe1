"""Print a report: as text by its kind's renderer, or as JSON."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

from gdbhyp.render.style import Style

Warn = Callable[[str], None]


def write(report: Any, out: Callable[[str], object], *, as_json: bool, style: Style, warn: Warn) -> None:
    """Print ``report`` line by line through ``out``.

    What a report says besides its answer (``problems``, known when its rows have been made) goes to ``warn`` when the
    answer itself is JSON; the text renderers show it in place. The rows of a ``raw`` report are its lines already.
    Ctrl-C goes to the caller, after a sentence for those who already see a part of the answer.
    """
    shown = False

    def show(text: str) -> None:
        nonlocal shown
        out(text)
        shown = True

    try:
        _write(report, show, as_json=as_json, style=style, warn=warn)
    except KeyboardInterrupt:
        if shown:
            warn("interrupted: the answer above is not complete")
        raise


def _write(report: Any, out: Callable[[str], object], *, as_json: bool, style: Style, warn: Warn) -> None:
    if getattr(report, "raw", False):
        for line in report.rows:
            out(line + "\n")
        return
    if not as_json:
        for line in text_lines(report, style):
            out(line + "\n")
        return
    from gdbhyp.render import json

    for line in json.lines(report):
        out(line + "\n")
    for problem in getattr(report, "problems", ()) if getattr(report, "json_lines", False) else ():
        warn(problem)


def text_lines(report: Any, style: Style) -> Iterator[str]:
    """Yield the lines of a report's text, from ``gdbhyp.render.text.<kind>``."""
    renderer = importlib.import_module(f"gdbhyp.render.text.{report.kind}")
    yield from renderer.render(report, style)
