"""A live count of exits: a line an interval while the machine runs, and a last one when it stands."""

from __future__ import annotations

from collections.abc import Iterator

from gdbhyp.render.style import Style, escape
from gdbhyp.trace.status import FollowReport, FollowRow

_SHORT = {
    0x01: "WFI",
    0x07: "FP",
    0x15: "SVC",
    0x16: "HVC",
    0x17: "SMC",
    0x18: "sysreg",
    0x20: "iabt",
    0x24: "dabt",
}


def render(report: FollowReport, style: Style) -> Iterator[str]:
    """Yield how it ended."""
    if report.rows:
        total = sum(row.exceptions for row in report.rows)
        last = report.rows[-1]
        yield style.paint(
            "heading", f"{total} exceptions taken to EL2 in {last.seconds:.1f} s: {escape(report.stopped)}"
        )
    else:
        yield f"nothing was recorded: {escape(report.stopped)}"


def line(row: FollowRow, style: Style) -> str:
    """Return the line of an interval."""
    reasons = ", ".join(f"{_who(e.world, e.vmid)} {_short(e.ec, e.name)} {e.count}" for e in row.exits)
    lost = style.paint("bad", f", {row.dropped} missing") if row.dropped else ""
    return f"{row.seconds:7.1f} s  {row.per_second:8,.0f}/s  {row.total:11,d} in all{lost}  {reasons}"


def _who(world: str, vmid: int | None) -> str:
    return world if vmid is None else f"{world} {vmid}"


def _short(ec: int | None, name: str) -> str:
    return name if ec is None else _SHORT.get(ec, name)
