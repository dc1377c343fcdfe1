"""A decoded syndrome: what happened in one line, then every field."""

from __future__ import annotations

from collections.abc import Iterator

from gdbhyp.analyses.esr import EsrReport
from gdbhyp.render.fields import field_row, indented
from gdbhyp.render.style import Style

_ISS2_LSB = 32


def render(report: EsrReport, style: Style) -> Iterator[str]:
    """Yield the lines of a syndrome."""
    register = style.paint("name", f"ESR_EL{report.el}")
    yield f"{register} = {report.esr:#x}: {style.paint('heading', report.summary)}"
    if report.instruction:
        yield f"  {style.instruction(report.instruction)}"
    # ISS2 is zero on almost every exception, so its fields are worth a line only when they are set.
    shown = [f for f in report.fields if f.lsb < _ISS2_LSB or f.value or report.verbose]
    rows = [field_row(f.name, f.msb, f.lsb, f.value, f.text, style) for f in shown]
    yield from indented(style.table(rows))
