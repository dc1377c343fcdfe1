"""A trace for other programs: Chrome's trace format (Perfetto opens it), CSV, and our own JSON lines."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TextIO

from gdbhyp.errors import BadInput
from gdbhyp.trace import files
from gdbhyp.trace.events import Event, Taken
from gdbhyp.trace.listing import EventRow, row
from gdbhyp.trace.statistics import HostCalls
from gdbhyp.trace.worlds import Party, WorldTracker

_CPUS, _VMS = 1, 2


@dataclass(frozen=True)
class ExportReport:
    """What was written where: ``events`` is the number of exceptions, or for "jsonl" of all events."""

    kind: ClassVar[str] = "trace_export"

    path: str
    format: str
    events: int
    notes: tuple[str, ...]


def export(path: str, form: str, header: files.Header, events: Iterable[Event]) -> int:
    """Write ``events`` to ``path`` as ``form``, "chrome", "csv" or "jsonl"; return how many were written.

    :raises BadInput: if the file cannot be written.
    """
    if form == "jsonl":
        return files.write(path, header, events)
    tracker = WorldTracker(vhe=header.vhe)
    try:
        with Path(path).open("w", encoding="utf-8", newline="") as file:
            return (_csv if form == "csv" else _chrome)(file, events, tracker, header.host_calls)
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror}") from None


def _csv(file: TextIO, events: Iterable[Event], tracker: WorldTracker, host_calls: HostCalls) -> int:
    writer = csv.writer(file, lineterminator="\n")
    names = [field.name for field in dataclasses.fields(EventRow)]
    writer.writerow(names)
    count = 0
    for event in events:
        party = tracker.take(event)
        if type(event) is Taken and party is not None:
            cells = row(event, party, names=host_calls)
            writer.writerow([_cell(name, getattr(cells, name)) for name in names])
            count += 1
    return count


_HEXADECIMAL = frozenset(("pc", "esr", "far", "hpfar", "ipa", "spsr", "vttbr", "x0", "vector"))


def _cell(name: str, value: Any) -> Any:
    if value is None:
        return ""
    return hex(value) if name in _HEXADECIMAL else value


def _chrome(file: TextIO, events: Iterable[Event], tracker: WorldTracker, host_calls: HostCalls) -> int:
    file.write('{"displayTimeUnit":"ns","traceEvents":[\n')
    count = 0
    separator = ""
    timeline = _Timeline(tracker, host_calls)
    for item in timeline.items(events):
        file.write(separator + json.dumps(item))
        separator = ",\n"
        count += item["ph"] == "i"
    file.write("\n]}\n")
    return count


class _Timeline:
    """Turns events into slices of who ran on each CPU, and exceptions as instants.

    A slice of a world ends with its exception and begins where EL2 was left; where a source does not tell that, the
    slice begins at the exception before, EL2's own work included. Without a clock an event takes a microsecond.
    """

    def __init__(self, tracker: WorldTracker, host_calls: HostCalls) -> None:
        self._tracker = tracker
        self._host_calls = host_calls
        self._before: dict[int, float] = {}
        self._named: set[tuple[int, int]] = set()
        self._vms: dict[tuple[Party, int], int] = {}

    def items(self, events: Iterable[Event]) -> Iterator[dict[str, Any]]:
        """Yield the objects of the trace format."""
        yield _name("process_name", _CPUS, 0, "CPUs")
        yield _name("process_name", _VMS, 0, "worlds")
        for event in events:
            party = self._tracker.take(event)
            if type(event) is Taken and party is not None:
                yield from self._exception(event, party)

    def _exception(self, event: Taken, party: Party) -> Iterator[dict[str, Any]]:
        now = _when(event.time, event.seq)
        before = self._before.get(event.cpu)
        left = self._tracker.return_before(event)
        entered = None if left is None else _when(left.time, left.seq)
        yield from self._new_track(_CPUS, event.cpu, f"CPU {event.cpu}")
        if before is not None and entered is not None and before <= entered <= now:
            yield _slice("hypervisor", _CPUS, event.cpu, before, entered)
            before = entered
        if before is not None and event.from_el != 2:
            yield _slice(_title(party), _CPUS, event.cpu, before, now)
            track = self._vms.setdefault((party, event.cpu), len(self._vms))
            yield from self._new_track(_VMS, track, f"{_title(party)} on CPU {event.cpu}")
            yield _slice(f"CPU {event.cpu}", _VMS, track, before, now)
        self._before[event.cpu] = now
        cells = row(event, party, names=self._host_calls)
        arguments = {
            name: _cell(name, getattr(cells, name))
            for name in ("pc", "esr", "far", "ipa", "x0", "call", "vmid", "seq")
            if getattr(cells, name) is not None
        }
        yield {
            "name": cells.summary,
            "ph": "i",
            "s": "t",
            "ts": now,
            "pid": _CPUS,
            "tid": event.cpu,
            "args": arguments,
        }

    def _new_track(self, process: int, thread: int, title: str) -> Iterator[dict[str, Any]]:
        if (process, thread) not in self._named:
            self._named.add((process, thread))
            yield _name("thread_name", process, thread, title)


def _when(time: int | None, seq: int) -> float:
    """Return the time in microseconds."""
    return float(seq) if time is None else time / 1000


def _title(party: Party) -> str:
    return party.world if party.vmid is None else f"{party.world} VMID {party.vmid}"


def _slice(name: str, process: int, thread: int, begin: float, end: float) -> dict[str, Any]:
    return {"name": name, "ph": "X", "ts": begin, "dur": end - begin, "pid": process, "tid": thread}


def _name(what: str, process: int, thread: int, title: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": process, "tid": thread, "args": {"name": title}}
