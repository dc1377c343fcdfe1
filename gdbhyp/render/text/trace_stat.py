"""A trace in numbers: totals, exits by world and reason, and what was most frequent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gdbhyp.render.style import Style, escape
from gdbhyp.trace.statistics import ExitRow, StatReport, WorldRow
from gdbhyp.trace.storms import StormRow


def render(report: StatReport, style: Style) -> Iterator[str]:
    """Yield the lines of the statistics."""
    yield style.paint("heading", _headline(report))
    dropped = f"{report.dropped} events are missing"
    yield f"  {style.paint('bad', dropped) if report.dropped else 'no event is known to be missing'}"
    if report.worlds_deduced and report.exceptions:
        yield "  worlds are deduced from vectors and return addresses: this source records no VTTBR_EL2"
    if report.contradictions:
        yield style.paint(
            "note", f"  {report.contradictions} events did not fit what was deduced before them"
        )
    for note in report.notes:
        yield style.paint("note", f"  note: {escape(note)}")
    for storm in report.storms:
        yield style.paint("bad", f"  refault storm: {_storm(storm)}")
    timed = any(row.handled for row in report.exits)
    exits = [
        [*_reason(row), *_count(row.count, row.share), *(_handling(row) if timed else ())]
        for row in report.exits
    ]
    headers = ("world", "EC", "exit", "count", "share", *(_TIMES if timed else ()))
    yield from _part("", headers, exits, style)
    worlds = [_world_cells(row) for row in report.worlds]
    yield from _part("time of all CPUs", _WORLDS, worlds, style)
    calls = [[_world(c.world, c.vmid), escape(c.name), str(c.count)] for c in report.calls]
    yield from _part("calls", ("world", "call", "count"), calls, style)
    registers = [
        [_world(r.world, r.vmid), style.instruction(r.instruction), str(r.count)] for r in report.registers
    ]
    yield from _part("trapped registers", ("world", "access", "count"), registers, style)
    ipas = [[_world(i.world, i.vmid), f"IPA {i.ipa:#x}", str(i.count)] for i in report.ipas]
    yield from _part("faulting pages (where HPFAR_EL2 is valid)", ("world", "page", "count"), ipas, style)
    tlbis = [
        ["?" if t.vmid is None else str(t.vmid), t.instruction, str(t.count)] for t in report.tlb_maintenance
    ]
    yield from _part("TLB maintenance in EL2", ("VMID", "instruction", "count"), tlbis, style)
    pcs = [[_world(p.world, p.vmid), f"VA {p.pc:#x}", str(p.count)] for p in report.pcs]
    yield from _part("places", ("world", "PC", "count"), pcs, style)


_TIMES = ("handled", "time", "min", "avg", "p99", "max")
_WORLDS = ("world", "exits", "entries", "to the host", "running", "", "EL2 for it", "")


def _reason(row: ExitRow) -> tuple[str, str, str]:
    return _world(row.world, row.vmid), "" if row.ec is None else f"{row.ec:#04x}", row.name


def _handling(row: ExitRow) -> list[str]:
    """Return how long exits took; nothing where none was seen to be handled."""
    share = "" if row.time_share is None else f"{100 * row.time_share:.1f} %"
    durations = (row.min_ns, row.avg_ns, row.p99_ns, row.max_ns)
    return [str(row.handled), share, *("" if ns is None else _duration(ns) for ns in durations)]


def _world_cells(row: WorldRow) -> list[str]:
    return [
        _world(row.world, row.vmid),
        str(row.exits),
        str(row.entries),
        "" if row.handed_over is None else str(row.handed_over),
        *(_duration(row.running_ns), f"{100 * row.running_share:.1f} %"),
        *(_duration(row.el2_ns), f"{100 * row.el2_share:.1f} %"),
    ]


def _duration(nanoseconds: int) -> str:
    for limit, scale, unit in ((10_000, 1e3, "us"), (10_000_000, 1e3, "us"), (10_000_000_000, 1e6, "ms")):
        if nanoseconds < limit:
            return f"{nanoseconds / scale:.{1 if limit == 10_000 else 0}f} {unit}"
    return f"{nanoseconds / 1e9:.2f} s"


def _headline(report: StatReport) -> str:
    parts = [f"{report.exceptions} exceptions taken to EL2"]
    if report.returns:
        parts.append(f"{report.returns} returns")
    if report.maintenance:
        parts.append(f"{report.maintenance} TLB maintenance instructions")
    parts.append(f"{report.world_switches} world switches")
    parts.append(f"{report.cpus} CPU{'' if report.cpus == 1 else 's'}")
    if report.duration_ns:
        parts.append(f"{report.duration_ns / 1e9:.3f} s")
    return ", ".join(parts)


def _storm(storm: StormRow) -> str:
    where = f"{_world(storm.world, storm.vmid)} on CPU {storm.cpu} at VA {storm.pc:#x}"
    rate = "" if storm.per_second is None else f", {storm.per_second:,.0f} a second"
    runs = f"{storm.runs} run{'' if storm.runs == 1 else 's'}"
    times = f"{storm.faults} times in {runs}, {storm.longest} in a row{rate}"
    return f"{where} faults on VA {storm.far:#x} without progress: {times} (ESR_EL2 = {storm.esr:#x})"


def _count(count: int, share: float) -> tuple[str, str]:
    return str(count), f"{100 * share:.1f} %"


def _world(world: str, vmid: int | None) -> str:
    return world if vmid is None else f"{world} {vmid}"


def _part(title: str, headers: Sequence[str], rows: list[list[str]], style: Style) -> Iterator[str]:
    if rows:
        yield ""
        if title:
            yield style.paint("heading", title)
        yield from (f"  {line}" for line in style.table(rows, headers).splitlines())
