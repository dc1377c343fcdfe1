"""PAR_EL1 by field, and the walk behind it."""

from __future__ import annotations

from collections.abc import Iterator

from gdbhyp.analyses.at import AtReport
from gdbhyp.render.fields import field_row, indented
from gdbhyp.render.style import Style
from gdbhyp.render.text import walk

_ALWAYS = ("F", "FST", "S", "PTW", "PA", "ATTR")


def render(report: AtReport, style: Style) -> Iterator[str]:
    """Yield the lines of the answer."""
    result = style.paint("name", "PAR_EL1")
    yield f"AT {report.op}, {report.va:#x} would leave {result} = {report.par:#x}"
    if report.exception:
        yield style.paint("bad", "it would take a synchronous External abort on the walk instead")
    shown = [f for f in report.fields if f.value != f.default or f.name in _ALWAYS]
    rows = [field_row(f.name, f.msb, f.lsb, f.value, f.text or f.long_name, style) for f in shown]
    yield from indented(style.table(rows))
    yield ""
    yield from walk.render(report.walk, style)
