"""A map as a table of ranges, in pieces so that a large one appears while it is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice

from gdbhyp.analyses.map import MapReport, MapRow
from gdbhyp.render.sizes import size_text
from gdbhyp.render.style import Style

_PIECE = 500


def render(report: MapReport, style: Style) -> Iterator[str]:
    """Yield the lines of the map, a summary, and what is missing."""
    which = {"1": "stage 1", "2": "stage 2", "both": "both stages"}[report.stages]
    yield style.paint("heading", f"{report.regime.value} regime, {which}")
    sizes: Counter[str] = Counter()
    count = 0
    while rows := list(islice(report.rows, _PIECE)):
        first = rows[0]
        headers = (
            f"{first.input_space} from",
            "to",
            "size",
            first.output_space,
            "pages",
            "rights",
            "memory",
            "",
        )
        yield from style.table([_cells(row, style) for row in rows], headers).splitlines()
        count += len(rows)
        for row in rows:
            sizes[row.memory] += row.size
    total = ", ".join(f"{size_text(size)} {memory}" for memory, size in sizes.most_common())
    yield f"{count} range{'' if count == 1 else 's'}{': ' + total if total else ''}"
    yield from (style.paint("bad", problem) for problem in report.problems)


def _cells(row: MapRow, style: Style) -> list[str]:
    writable_code = row.write and row.exec != "never"
    return [
        style.paint("address", f"{row.start:#x}"),
        f"{row.end:#x}",
        size_text(row.size),
        f"{row.pa:#x}",
        size_text(row.page_size) if row.page_size else "",
        style.paint("bad", row.rights) if writable_code else row.rights,
        f"{row.memory}, {row.shareability}",
        ", ".join(_remarks(row)),
    ]


def _remarks(row: MapRow) -> Iterator[str]:
    if row.contiguous:
        yield "contiguous"
    if not row.access_flag:
        yield "access flag 0"
    if row.constant:
        yield "all of it to this one page"
    if row.space not in ("Non-secure", ""):
        yield row.space
