"""A timeline in text: a lane a CPU, a letter for who ran longest in each column."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from gdbhyp.render.style import Style, escape
from gdbhyp.trace.timeline import Lane, LaneSpan, TimelineReport

_NARROWEST, _WIDEST = 20, 400
_FIXED = {"host": "h", "hypervisor": "^", "unknown": "?"}
_GUESTS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_ROLES = {"host": "good", "guest": "name", "hypervisor": "note", "unknown": "bad"}
Who = tuple[str, int | None]


def render(report: TimelineReport, style: Style) -> Iterator[str]:
    """Yield the lanes, a scale and what the letters mean."""
    if not report.lanes:
        yield "no recorded exception matches"
        return
    margin = max(len(f"CPU {lane.cpu}") for lane in report.lanes) + 2
    # GDB's width 0 means that there is no limit, and a pipe has none either.
    room = report.columns or style.width or shutil.get_terminal_size().columns
    columns = min(max(room - margin - 2, _NARROWEST), _WIDEST)
    letters = _letters(report)
    for lane in report.lanes:
        yield f"CPU {lane.cpu}".ljust(margin) + "|" + _row(lane, report, columns, letters, style) + "|"
        yield " " * margin + "|" + _marks(lane, report, columns) + "|"
    yield " " * margin + _scale(report, columns)
    for (world, vmid), letter in letters.items():
        yield f"{letter}  {world if vmid is None else f'{world} VMID {vmid}'}"
    yield "'  an exception taken to EL2, \"  several"
    for note in report.notes:
        yield style.paint("note", f"note: {escape(note)}")


def _letters(report: TimelineReport) -> dict[Who, str]:
    """Return a letter for everybody who ran, guests in the order of their VMIDs."""
    ran = {(span.world, span.vmid) for lane in report.lanes for span in lane.spans}
    guests = sorted((who for who in ran if who[0] == "guest"), key=lambda who: who[1] or 0)
    others: list[Who] = sorted((who for who in ran if who[0] != "guest"), key=lambda who: who[0])
    letters = {who: _FIXED[who[0]] for who in others}
    letters.update({who: _GUESTS[index % len(_GUESTS)] for index, who in enumerate(guests)})
    return letters


def _row(lane: Lane, report: TimelineReport, columns: int, letters: dict[Who, str], style: Style) -> str:
    """Return who ran longest in each column, a blank where that is not known."""
    shares: list[dict[Who, float]] = [{} for _ in range(columns)]
    for span in lane.spans:
        _share(span, report, shares)
    cells = []
    for share in shares:
        who = max(share, key=lambda who: share[who], default=None)
        cells.append(" " if who is None else style.paint(_ROLES[who[0]], letters[who]))
    return "".join(cells)


def _share(span: LaneSpan, report: TimelineReport, shares: list[dict[Who, float]]) -> None:
    """Add how much of each column the span covers."""
    columns = len(shares)
    begin, end = (_column(at, report, columns) for at in (span.begin_ns, span.end_ns))
    who = (span.world, span.vmid)
    for column in range(int(begin), min(int(end) + 1, columns)):
        covered = min(end, column + 1) - max(begin, column)
        if covered > 0:
            shares[column][who] = shares[column].get(who, 0.0) + covered


def _column(at: int, report: TimelineReport, columns: int) -> float:
    return (at - report.begin_ns) / max(report.end_ns - report.begin_ns, 1) * columns


def _marks(lane: Lane, report: TimelineReport, columns: int) -> str:
    counts = [0] * columns
    for at in lane.exceptions_ns:
        counts[min(int(_column(at, report, columns)), columns - 1)] += 1
    return "".join(" '\""[min(count, 2)] for count in counts)


def _scale(report: TimelineReport, columns: int) -> str:
    length = report.end_ns - report.begin_ns
    text = f"{length / 1e6:.3f} ms" if report.clock else f"{length // 1000} events"
    return "0" + text.rjust(columns + 1)
