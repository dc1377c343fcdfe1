"""What a recording is doing."""

from __future__ import annotations

from collections.abc import Iterator

from gdbhyp.render.style import Style, escape
from gdbhyp.trace.status import TraceStatus


def render(report: TraceStatus, style: Style) -> Iterator[str]:
    """Yield the lines of the status."""
    if report.running:
        yield style.paint("good", f"recording from {report.source}") + f": {report.why}"
    else:
        yield f"not recording: {report.ended}"
    if report.events or report.running:
        yield f"  {report.events} events, {report.world_switches} world switches{_rate(report)}"
    if report.dropped:
        yield style.paint("bad", f"  {report.dropped} events are missing")
    if report.overwritten:
        yield f"  {report.overwritten} old events gave way to newer ones; statistics count them"
    if report.vectors:
        yield f"  vectors: {', '.join(f'VA {base:#x}' for base in report.vectors)}"
    if report.returns:
        yield f"  {_returns(len(report.returns))}"
    if report.false_hits:
        yield f"  {report.false_hits} stops were at the same addresses outside EL2 and are not counted"
    for note in report.notes:
        yield style.paint("note", f"  note: {escape(note)}")


def _returns(count: int) -> str:
    return f"{count} ERET instruction{'' if count == 1 else 's'} watched for the vectors of other worlds"


def _rate(report: TraceStatus) -> str:
    return "" if report.per_second is None else f", {report.per_second:.0f} events a second"
