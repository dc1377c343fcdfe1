"""A map drawn to scale with letters: a bar for each stretch of addresses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from gdbhyp.analyses.drawing import Band, BarsReport, Look
from gdbhyp.render.sizes import size_text
from gdbhyp.render.style import Style

_LETTERS: dict[Look, str] = {
    "code": "X",
    "data": "W",
    "constant": "R",
    "writable code": "!",
    "device": "D",
    "no access": "-",
    "several": "~",
}
_WORDS: dict[Look, str] = {
    "code": "executable",
    "data": "writable",
    "constant": "only readable",
    "writable code": "writable and executable",
    "device": "device",
    "no access": "no access",
    "several": "several of these",
}
_ROLES: dict[Look, str] = {"code": "address", "data": "good", "writable code": "bad", "device": "name"}
_EMPTY = "."
_WIDTH, _NARROWEST = 100, 20


def render(report: BarsReport, style: Style) -> Iterator[str]:
    """Yield a line a stretch, and the legend."""
    drawing = report.drawing
    yield style.paint("heading", f"{drawing.label}, {drawing.input_space} to {drawing.output_space}")
    heads = [f"{start:#x}  {_size(end - start)}" for start, end in drawing.stretches]
    left = max(map(len, heads), default=0)
    cells = max(_NARROWEST, (style.width or _WIDTH) - left - 3)
    used: dict[Look, None] = {}
    for (start, end), head in zip(drawing.stretches, heads, strict=True):
        inside = [band for band in drawing.bands if band.start < end and start < band.end]
        looks = [_look(inside, *_cell(start, end, cells, number)) for number in range(cells)]
        used.update((look, None) for look in looks if look is not None)
        yield f"{head.ljust(left)}  {_bar(looks, style)}"
    yield f"{drawing.ranges} ranges, {_size(drawing.mapped)} mapped; each bar has the scale of its own stretch"
    legend = [f"{_LETTERS[look]} {_WORDS[look]}" for look in _LETTERS if look in used]
    if legend:
        yield ", ".join([*legend, f"{_EMPTY} not mapped"])
    yield from (style.paint("bad", problem) for problem in report.problems)


def _cell(start: int, end: int, cells: int, number: int) -> tuple[int, int]:
    return start + (end - start) * number // cells, start + (end - start) * (number + 1) // cells


def _look(bands: Sequence[Band], start: int, end: int) -> Look | None:
    """Return what most of a cell is, None where nothing of it is mapped; writable and executable always shows."""
    amounts: dict[Look, int] = {}
    for band in bands:
        amount = min(end, band.end) - max(start, band.start)
        if amount > 0:
            if band.look == "writable code":
                return "writable code"
            amounts[band.look] = amounts.get(band.look, 0) + amount
    return max(amounts.items(), key=lambda item: item[1])[0] if amounts else None


def _bar(looks: Sequence[Look | None], style: Style) -> str:
    pieces = []
    for look, cells in groupby(looks):
        text = (_LETTERS[look] if look else _EMPTY) * len(list(cells))
        pieces.append(style.paint(_ROLES.get(look, "note") if look else "dim", text))
    return "".join(pieces)


def _size(size: int) -> str:
    """Return a size of three digits or so; a stretch seldom is a round number."""
    for shift, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size >> shift and size % (1 << shift):
            return f"{size / (1 << shift):.1f} {unit}"
    return size_text(size)
