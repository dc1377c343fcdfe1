"""Recorded exceptions: one a line, with what happened in words."""

from __future__ import annotations

from collections.abc import Iterator

from gdbhyp.render.style import Style, escape
from gdbhyp.trace.listing import EventRow, ShowReport

_ROLES = {"host": "good", "guest": "name", "hypervisor": "note", "unknown": "bad"}


def render(report: ShowReport, style: Style) -> Iterator[str]:
    """Yield a line an exception."""
    if not report.rows:
        yield "no recorded exception matches"
    else:
        yield from exit_lines(report.rows, report.began_ns or 0, style)
    if report.left_out:
        yield style.paint("dim", f"{report.left_out} earlier ones are not shown (--last N shows more)")
    for problem in report.problems:
        yield style.paint("note", f"note: {problem}")


def exit_lines(rows: tuple[EventRow, ...], began_ns: int, style: Style) -> list[str]:
    """Return exceptions as the lines of a table with headings; times count from ``began_ns``."""
    headers = ("#", "time", "CPU", "world", "PC", "what happened")
    return style.table([_row(row, began_ns, style) for row in rows], headers).splitlines() if rows else []


def _row(row: EventRow, first: int, style: Style) -> list[str]:
    time = "" if row.time_ns is None else f"+{(row.time_ns - first) / 1e6:.3f} ms"
    pc = "" if row.pc is None else f"VA {row.pc:#x}"
    if row.symbol is not None:
        pc += f" <{escape(row.symbol)}>"
    what = row.summary
    if row.call is not None and row.call not in what:
        what += f": {row.call}"
    if row.ipa is not None and f"{row.ipa:#x}" not in what:
        what += f", IPA {row.ipa:#x}"
    return [str(row.seq), time, str(row.cpu), style.paint(_ROLES[row.world], _world(row)), pc, what]


def _world(row: EventRow) -> str:
    return row.world if row.vmid is None else f"{row.world} {row.vmid}"
