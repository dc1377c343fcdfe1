"""Everything about a machine on one page: what it is, its VMs, what every table maps, who ran, and what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import ClassVar

from gdbhyp import __version__
from gdbhyp.analyses.audit.run import AuditReport, audit
from gdbhyp.analyses.drawing import Drawing, draw
from gdbhyp.analyses.status import StatusReport, status
from gdbhyp.analyses.trees import trees_of
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import GdbhypError
from gdbhyp.hypervisors.vms import VmSearch
from gdbhyp.trace.events import Taken
from gdbhyp.trace.files import TraceFile
from gdbhyp.trace.listing import row
from gdbhyp.trace.statistics import Statistics, StatReport
from gdbhyp.trace.worlds import WorldTracker

# All maps together have at most so many bands, which a browser draws without being felt.
_BANDS = 60_000
_BANDS_OF_ONE = 6_000
_EXITS = 4_000


@dataclass(frozen=True)
class Exit:
    """One exception on the timeline: ``time`` in nanoseconds, or in events where the source has no clock."""

    cpu: int
    time: int
    world: str
    summary: str


@dataclass(frozen=True)
class TraceOverview:
    """A trace beside the machine: its statistics, and the newest exceptions; ``left_out`` are older ones."""

    file: str
    clock: bool
    statistics: StatReport
    exits: tuple[Exit, ...]
    left_out: int


@dataclass(frozen=True)
class MachineReport:
    """The machine at one moment. A part that could not be had is None, and ``problems`` says why."""

    kind: ClassVar[str] = "report"

    origin: str
    created: str
    gdbhyp: str
    status: StatusReport | None
    search: VmSearch
    maps: tuple[Drawing, ...]
    audit: AuditReport
    trace: TraceOverview | None
    problems: tuple[str, ...]


Progress = Callable[[str, int, int], object]


def report(
    stop: Stop, trace: tuple[str, TraceFile] | None, progress: Progress, *, guests: bool = False
) -> MachineReport:
    """Describe the whole machine; ``trace`` is a recording's name and file, ``guests`` adds running guests' stage 1."""
    problems: list[str] = []
    try:
        now: StatusReport | None = status(stop)
    except GdbhypError as error:
        now = None
        problems.append(f"the state of CPU {stop.cpu} is not known: {error}")
    trees = trees_of(stop, guests=guests)
    problems += trees.problems
    maps = []
    most = min(_BANDS_OF_ONE, _BANDS // max(1, len(trees.trees)))
    for number, tree in enumerate(trees.trees):
        progress("drawing maps", number, len(trees.trees))
        try:
            maps.append(draw(tree.label, tree.ranges(), most))
        except GdbhypError as error:
            problems.append(f"{tree.label} is not drawn: {error}")
    progress("judging", len(trees.trees), len(trees.trees))
    return MachineReport(
        origin=stop.origin,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        gdbhyp=__version__,
        status=now,
        search=trees.search,
        maps=tuple(maps),
        audit=audit(stop),
        trace=None if trace is None else _overview(*trace),
        problems=tuple(dict.fromkeys(problems)),
    )


def _overview(name: str, file: TraceFile) -> TraceOverview:
    tracker = WorldTracker(vhe=file.header.vhe)
    statistics = Statistics(file.header.source, tracker)
    shown: list[Exit] = []
    clock, left_out = True, 0
    for batch in file.batches:
        for event in batch:
            party = statistics.add(event)
            if type(event) is not Taken or party is None:
                continue
            cells = row(event, party)
            clock = clock and event.time is not None
            time = event.seq if event.time is None else event.time
            world = party.world if party.vmid is None else f"{party.world} {party.vmid}"
            shown.append(Exit(event.cpu, time, world, cells.summary))
        if len(shown) > 2 * _EXITS:
            left_out += len(shown) - _EXITS
            del shown[:-_EXITS]
    left_out += max(0, len(shown) - _EXITS)
    report = statistics.report(file.notes, deduced=file.header.worlds_deduced)
    return TraceOverview(name, clock, report, tuple(shown[-_EXITS:]), left_out)
