"""A decoded syndrome: what happened in one line, then every field."""

from __future__ import annotations

from collections.abc import Iterator

from gdbhyp.analyses.esr import EsrReport
from gdbhyp.arch.syndrome import FieldValue
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
    iss2 = [f for f in report.fields if f.lsb >= _ISS2_LSB and (f.value or report.verbose)]
    iss = [f for f in report.fields if f.lsb < _ISS2_LSB]
    rows = [
        *_rows(iss2, style),
        field_row("EC", 31, 26, report.ec.value, report.ec.name, style),
        field_row("IL", 25, 25, report.il, f"{32 if report.il else 16}-bit instruction", style),
        *_rows(iss, style),
    ]
    yield from indented(style.table(rows))


def _rows(fields: list[FieldValue], style: Style) -> Iterator[list[str]]:
    return (field_row(f.name, f.msb, f.lsb, f.value, f.text, style) for f in fields)
