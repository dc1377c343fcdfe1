"""Print a report that is a stream of bytes with things to say between them.

A ``binary`` report has ``batches``: lists of pieces, each either bytes that pass through as they are, or a row. A row
is printed in lines of its own by ``gdbhyp.render.text.<kind>``, or, as JSON, its ``report()`` in one line of its own
and without the bytes. What a batch brings is flushed before the next one is asked for, so that a live stream is shown
as it comes.
"""

from __future__ import annotations

import importlib
import json as standard_json
from collections.abc import Iterable
from typing import IO, Any

from gdbhyp.render.style import Style


def write(report: Any, out: IO[bytes], *, form: str, style: Style) -> None:
    """Write the batches of ``report`` to ``out`` as they come, as ``form``: "text", "json" or "csv"."""
    if form == "json":
        _write_json(report.batches, out)
    elif form == "csv":
        _write_csv(report.batches, out)
    else:
        _write_text(report, out, style)


def _write_csv(batches: Iterable[list[Any]], out: IO[bytes]) -> None:
    from gdbhyp.render import csv

    rows = (piece.report() for batch in batches for piece in batch if not isinstance(piece, bytes))
    for line in csv.row_lines(rows, None):
        out.write(line.encode() + b"\n")


def _write_json(batches: Iterable[list[Any]], out: IO[bytes]) -> None:
    from gdbhyp.render import json

    for batch in batches:
        for piece in batch:
            if not isinstance(piece, bytes):
                out.write(standard_json.dumps(json.encode(piece.report())).encode() + b"\n")
        out.flush()


def _write_text(report: Any, out: IO[bytes], style: Style) -> None:
    renderer = importlib.import_module(f"gdbhyp.render.text.{report.kind}")
    ending, unfinished = b"\n", False
    for batch in report.batches:
        for piece in batch:
            if isinstance(piece, bytes):
                out.write(piece)
                ending = b"\r\n" if piece.endswith(b"\r\n") else b"\n"
                unfinished = not piece.endswith(b"\n")
                continue
            if unfinished:
                out.write(ending)
                unfinished = False
            for line in renderer.row(piece, style):
                out.write(line.encode("utf-8", "backslashreplace") + ending)
        out.flush()
