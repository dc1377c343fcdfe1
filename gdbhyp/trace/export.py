"""A trace for other programs: Chrome's trace format (Perfetto opens it), CSV, and our own JSON lines.

Chrome's format counts in microseconds, and Perfetto in nanoseconds: it multiplies by 1000 and cuts off what is left. A
slice that it takes to reach a nanosecond into the next one is not nested in it, and is dropped or moved to another
track. So numbers are written that come out as they were. ``displayTimeUnit`` is left out, for Perfetto has long taken
it for the unit of all times. Sources: the Trace Event Format; Perfetto, importers/json and slice_tracker.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, TextIO

from gdbhyp.escaping import csv_text
from gdbhyp.files import written_whole
from gdbhyp.trace import files
from gdbhyp.trace.events import Event, Taken
from gdbhyp.trace.listing import EventRow, row
from gdbhyp.trace.spans import Span, Spans, moment
from gdbhyp.trace.statistics import HostCalls, syndrome_of
from gdbhyp.trace.worlds import HYPERVISOR, Party, WorldTracker

# Process numbers: one for all CPUs, and one for each world.
_CPUS, _WORLDS = 1, 2


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
    with written_whole(path) as binary:
        file = io.TextIOWrapper(binary, encoding="utf-8", newline="")
        count = (_csv if form == "csv" else _chrome)(file, events, tracker, header.host_calls)
        file.flush()
        file.detach()
        return count


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
    return hex(value) if name in _HEXADECIMAL else csv_text(value) if isinstance(value, str) else value


def _chrome(file: TextIO, events: Iterable[Event], tracker: WorldTracker, host_calls: HostCalls) -> int:
    file.write('{"traceEvents":[\n')
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
    """Turns spans into slices, on a track of their CPU and on one of their world, and exceptions into instants."""

    def __init__(self, tracker: WorldTracker, host_calls: HostCalls) -> None:
        self._spans = Spans(tracker)
        self._host_calls = host_calls
        self._named: set[tuple[int, int | None]] = set()
        self._processes: dict[Party, int] = {}

    def items(self, events: Iterable[Event]) -> Iterator[dict[str, Any]]:
        """Yield the objects of the trace format."""
        yield _name("process_name", _CPUS, 0, "CPUs")
        for event in events:
            party, spans = self._spans.take(event)
            for span in spans:
                yield from self._slices(span)
            if type(event) is Taken and party is not None:
                yield from self._thread(_CPUS, event.cpu, f"CPU {event.cpu}")
                yield self._instant(event, self._spans.tracker.settle(party))

    def _slices(self, span: Span) -> Iterator[dict[str, Any]]:
        """Yield a slice on the CPU's track and, unless it is EL2's, one on the world's, which has a track a CPU."""
        party = self._spans.tracker.settle(span.party)
        yield from self._thread(_CPUS, span.cpu, f"CPU {span.cpu}")
        yield _slice(_title(party), _CPUS, span)
        if party == HYPERVISOR:
            return
        process = self._processes.setdefault(party, _WORLDS + len(self._processes))
        yield from self._process(process, _title(party))
        yield from self._thread(process, span.cpu, f"on CPU {span.cpu}")
        yield _slice(f"CPU {span.cpu}", process, span)

    def _instant(self, event: Taken, party: Party) -> dict[str, Any]:
        cells = row(event, party, names=self._host_calls)
        arguments = {
            name: _cell(name, getattr(cells, name))
            for name in ("seq", "world", "vmid", "exception", "ec", "pc", "esr", "far", "ipa", "x0", "call")
            if getattr(cells, name) is not None
        }
        if event.syndrome is not None:
            syndrome = syndrome_of(event.syndrome)
            arguments["class"] = syndrome.ec.name
            arguments["fields"] = {f.name: f.text or f.value for f in syndrome.fields}
        return {
            "name": cells.summary,
            "ph": "i",
            "s": "t",
            "ts": _microseconds(moment(event.time, event.seq)),
            "pid": _CPUS,
            "tid": event.cpu,
            "args": arguments,
        }

    def _process(self, process: int, title: str) -> Iterator[dict[str, Any]]:
        if (process, None) not in self._named:
            self._named.add((process, None))
            yield _name("process_name", process, 0, title)

    def _thread(self, process: int, thread: int, title: str) -> Iterator[dict[str, Any]]:
        if (process, thread) not in self._named:
            self._named.add((process, thread))
            yield _name("thread_name", process, thread, title)


def _title(party: Party) -> str:
    return party.world if party.vmid is None else f"{party.world} VMID {party.vmid}"


def _slice(name: str, process: int, span: Span) -> dict[str, Any]:
    return {
        "name": name,
        "ph": "X",
        "ts": _microseconds(span.begin),
        "dur": _microseconds(span.end - span.begin),
        "pid": process,
        "tid": span.cpu,
    }


def _microseconds(nanoseconds: int) -> float:
    """Return the least number that is so many nanoseconds when it is multiplied by 1000 and cut off."""
    value = nanoseconds / 1000
    return value if int(value * 1000.0) >= nanoseconds else math.nextafter(value, math.inf)


def _name(what: str, process: int, thread: int, title: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": process, "tid": thread, "args": {"name": title}}
