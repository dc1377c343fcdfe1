"""A register by field."""

from __future__ import annotations

from collections.abc import Iterator

from gdbhyp.analyses.registers import Register
from gdbhyp.render.fields import field_row, indented
from gdbhyp.render.style import Style


def render(report: Register, style: Style) -> Iterator[str]:
    """Yield the lines of a register: its notable fields, or all of them if it was asked for."""
    layout = f", layout for {report.layout}" if report.layout else ""
    title = style.paint("dim", f"  {report.long_name}{layout}") if report.long_name else ""
    yield f"{style.paint('name', report.name)} = {report.value:#x}{title}"
    shown = [f for f in report.fields if report.verbose or f.value != f.default]
    rows = [field_row(f.name, f.msb, f.lsb, f.value, f.text or f.long_name, style) for f in shown]
    yield from indented(style.table(rows))
    traps, hidden = _traps(report)
    if traps:
        yield "  traps to EL2:"
        yield from (f"    {sentence}" for sentence in traps)
    if hidden:
        yield style.paint("dim", f"  -v lists {hidden} more, of optional features that are not enabled")


def _traps(report: Register) -> tuple[list[str], int]:
    """Return what is worth a line, and how many lines are left out: those of features whose enable bit is 0."""
    set_fields = {f.name for f in report.fields if f.value}
    shown = [
        sentence
        for sentence in report.traps
        if report.verbose or "(with FEAT_" not in sentence or sentence.split(":")[0] in set_fields
    ]
    return shown, len(report.traps) - len(shown)
