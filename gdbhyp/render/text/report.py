"""A machine on one self-contained page of HTML: no network, no other file.

Nothing from the target becomes markup: all of it is one block of JSON, in which ``<`` is written as an escape, and the
page's script shows it as text. The page's security policy allows that one script and style by their hashes, and
nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from gdbhyp.analyses.drawing import Band, Drawing
from gdbhyp.analyses.report import Exit, MachineReport
from gdbhyp.render.json import encode
from gdbhyp.render.style import Style, escape

_PARTS = Path(__file__).parent.parent / "page"
_ESCAPES = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}


def render(report: MachineReport, style: Style) -> Iterator[str]:
    """Yield the lines of the page."""
    page = _part("page.html")
    for name, text in (("STYLE", _part("page.css")), ("SCRIPT", _part("page.js"))):
        page = page.replace(f"{{{{{name}_HASH}}}}", _hash(text)).replace(f"{{{{{name}}}}}", text)
    before, after = page.split("{{DATA}}")
    yield before + json.dumps(_data(report), separators=(",", ":")).translate(_ESCAPES) + after


@cache
def _part(name: str) -> str:
    return (_PARTS / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _data(report: MachineReport) -> Any:
    """Return what the page shows; bands and exits, which are many, as arrays."""
    whole = encode(report)
    whole["maps"] = [_map(drawing) for drawing in report.maps]
    if report.trace is not None:
        whole["trace"]["exits"] = _exits(report.trace.exits)
    return _safe(whole)


def _map(drawing: Drawing) -> Any:
    words = _Words()
    bands = [_band(band, words) for band in drawing.bands]
    return {
        "label": drawing.label,
        "input_space": drawing.input_space,
        "output_space": drawing.output_space,
        "ranges": drawing.ranges,
        "mapped": drawing.mapped,
        "coarse": drawing.coarse,
        "stretches": [[f"{start:x}", f"{end - start:x}"] for start, end in drawing.stretches],
        "problems": list(drawing.problems),
        "words": words.all,
        "bands": bands,
    }


class _Words:
    """Texts that many bands share, by number."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, word: str | None) -> int:
        if word is None:
            return -1
        if word not in self._numbers:
            self._numbers[word] = len(self.all)
            self.all.append(word)
        return self._numbers[word]


def _band(band: Band, words: _Words) -> list[Any]:
    """Addresses are in hexadecimal without prefix, for a number of JavaScript has 53 bits."""
    return [
        f"{band.start:x}",
        f"{band.end - band.start:x}",
        None if band.output is None else f"{band.output:x}",
        band.ranges,
        f"{band.mapped:x}",
        words.number(band.look),
        words.number(band.rights),
        words.number(band.memory),
    ]


def _exits(exits: tuple[Exit, ...]) -> Any:
    words = _Words()
    first = exits[0].time if exits else 0
    rows = [[e.cpu, e.time - first, words.number(e.world), words.number(e.summary)] for e in exits]
    return {"words": words.all, "rows": rows}


def _safe(value: Any) -> Any:
    """Escape control and bidirectional characters in every text."""
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, list):
        return [_safe(item) for item in value]
    if isinstance(value, dict):
        return {escape(name): _safe(item) for name, item in value.items()}
    return value
