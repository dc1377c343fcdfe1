"""What a check of the world switch found: each register with both values and both places."""

from __future__ import annotations

from collections.abc import Iterator

from gdbhyp.render.style import Style, escape
from gdbhyp.trace.checking import CheckReport, Explained, Finding, Place


def render(report: CheckReport, style: Style) -> Iterator[str]:
    """Yield the lines of the report."""
    if report.findings:
        found = f"{len(report.findings)} finding{'s' if len(report.findings) > 1 else ''}"
        yield style.paint("bad", found) + f" in {_compared(report)}"
    elif report.guest_checks or report.host_checks:
        yield style.paint("good", "nothing unexplained") + f" in {_compared(report)}"
    else:
        yield f"nothing could be compared: {report.guest_runs} entries into guests were seen"
    for finding in report.findings:
        yield ""
        yield from _finding(finding, style)
    if report.explained:
        yield ""
        yield "changed for a reason"
        for line in style.table(_explained(report), ("world", "register", "count", "why")).splitlines():
            yield f"  {line}"
    if report.restarts:
        yield f"{report.restarts} restarts of a vCPU were not compared"
    if report.not_shown:
        yield style.paint("note", f"note: the target does not show {', '.join(report.not_shown)}")
    for note in report.notes:
        yield style.paint("note", f"note: {escape(note)}")


def _explained(report: CheckReport) -> list[list[str]]:
    """Return a row for each world and reason, general registers by their range."""
    rows: dict[tuple[str, str], list[Explained]] = {}
    for explained in report.explained:
        rows.setdefault((explained.world, explained.reason), []).append(explained)
    return [
        [world, _registers([e.register for e in group]), str(max(e.count for e in group)), reason]
        for (world, reason), group in rows.items()
    ]


def _registers(names: list[str]) -> str:
    numbers = sorted(int(name[1:]) for name in names if name[1:].isdigit())
    others = [name for name in names if not name[1:].isdigit()]
    first, last = (numbers[0], numbers[-1]) if numbers else (0, 0)
    together = len(numbers) > 2 and last - first == len(numbers) - 1
    general = [f"X{first} to X{last}"] if together else [f"X{number}" for number in numbers]
    if len(others) > 3:
        others = [f"{others[0]} and {len(others) - 1} more"]
    return ", ".join([*general, *others])


def _compared(report: CheckReport) -> str:
    return (
        f"{report.guest_runs} guest runs: {report.registers} registers at {report.guest_checks} entries of guests and "
        f"{report.host_checks} returns to the host"
    )


def _finding(finding: Finding, style: Style) -> Iterator[str]:
    world = (
        finding.world
        if finding.vcpu is None
        else f"{finding.world}, vCPU {finding.vcpu:#x} of VMID {finding.vmid}"
    )
    what = f"holds what {finding.whose} had" if finding.whose else "is not what it left"
    times = "" if finding.count == 1 else f" ({finding.count} times)"
    yield style.paint("bad", f"{finding.kind}: {finding.register}") + f" of the {world}: it {what}{times}"
    yield f"  left   {finding.expected:#018x}  {_place(finding.left)}, from {_pc(finding.left)}: {finding.why}"
    yield f"  found  {finding.found:#018x}  {_place(finding.entered)}, going on at {_pc(finding.entered)}"


def _pc(place: Place) -> str:
    return "a VA that is not known" if place.pc is None else f"VA {place.pc:#x}"


def _place(place: Place) -> str:
    symbol = f" <{escape(place.symbol)}>" if place.symbol else ""
    return f"CPU {place.cpu}, VA {place.place:#x}{symbol}"
