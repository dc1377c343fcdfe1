"""Print a report that is a stream of bytes with things to say between them.

A ``binary`` report has ``batches``: lists of pieces, each either bytes that pass through as they are, or a row. A row
is printed in lines of its own by ``gdbhyp.render.text.<kind>``, or, as JSON, its ``report()`` in one line of its own
and without the bytes. A terminal is shown what would act on it as escapes; a file or a pipe gets the bytes. What a
batch brings is flushed before the next one is asked for, so that a live stream is shown as it comes.
"""

from __future__ import annotations

import importlib
import json as standard_json
import re
from collections.abc import Iterable
from typing import IO, Any

from gdbhyp.escaping import escape
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


# Controls but for tabs and ends of lines, and those beyond ASCII in UTF-8: C1, zero width and bidirectional ones.
_ACTING = re.compile(
    rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|\xc2[\x80-\x9f]|\xd8\x9c"
    rb"|\xe2\x80[\x8b-\x8f\xa8-\xae]|\xe2\x81[\xa0-\xaf]|\xef\xbb\xbf"
)


def _visible(piece: bytes) -> bytes:
    return _ACTING.sub(lambda found: escape(found[0].decode()).encode(), piece)


def _write_text(report: Any, out: IO[bytes], style: Style) -> None:
    renderer = importlib.import_module(f"gdbhyp.render.text.{report.kind}")
    ending, unfinished = b"\n", False
    passed = _visible if out.isatty() else bytes
    for batch in report.batches:
        for piece in batch:
            if isinstance(piece, bytes):
                out.write(passed(piece))
                ending = b"\r\n" if piece.endswith(b"\r\n") else b"\n"
                unfinished = not piece.endswith(b"\n")
                continue
            if unfinished:
                out.write(ending)
                unfinished = False
            for line in renderer.row(piece, style):
                out.write(line.encode("utf-8", "backslashreplace") + ending)
        out.flush()
