"""Trace files: our own JSON lines, rings of our TCG plugin, and QEMU logs, told apart by how they begin.

A trace file of ours begins with a header object, ``{"format": "gdbhyp-trace", "version": 1, "source": "break", …}``,
and has an object an event, with the fields of ``gdbhyp.trace.events`` by name: numbers that are registers or addresses
as "0x…" strings, what was not observed left out.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from gdbhyp.errors import BadInput
from gdbhyp.files import written_whole
from gdbhyp.trace import tcg_ring
from gdbhyp.trace.events import Event, Lost, Maintained, Returned, State, Taken
from gdbhyp.trace.linux_text import KvmTextParser, looks_like_kvm_text
from gdbhyp.trace.linux_text import notes_of as kvm_text_notes
from gdbhyp.trace.qemu_log import QemuLogParser, looks_like_log
from gdbhyp.trace.worlds import WORLDS

FORMAT = "gdbhyp-trace"
VERSION = 1

_CHUNK = 1 << 20
_BEGINNING = 1 << 16

_KINDS: dict[str, type[Event]] = {
    "exception": Taken,
    "return": Returned,
    "tlbi": Maintained,
    "lost": Lost,
    "state": State,
}
_NAME_OF = {kind: name for name, kind in _KINDS.items()}
_WORDS = frozenset(("reason", "world"))
_COUNTS = frozenset(("seq", "cpu", "from_el", "to_el", "el", "time", "missing", "vmid"))
_PLAIN = _WORDS | _COUNTS
_LARGEST = {"cpu": 4095, "from_el": 3, "to_el": 3, "el": 3, "vmid": 0xFFFF}


@dataclass(frozen=True)
class Header:
    """What a recording says of itself.

    ``dropped`` events are not in the file; ``vhe``: EL2 is the host; ``worlds_deduced``: no registers were recorded
    that say whose world it was. ``host_calls`` names what the host asks of EL2, by x0.
    """

    source: str
    dropped: int = 0
    vhe: bool = False
    worlds_deduced: bool = False
    format: str = FORMAT
    version: int = VERSION
    host_calls: Mapping[int, str] = field(default_factory=dict)


@dataclass
class TraceFile:
    """A trace that is read as it is iterated, once.

    ``notes`` is complete when ``batches`` has ended: what could not be read, in sentences.
    """

    header: Header
    batches: Iterator[list[Event]]
    notes: list[str] = field(default_factory=list)


def encode(event: Event) -> str:
    """Return an event as a line of a trace file, without the newline."""
    fields: dict[str, Any] = {"event": _NAME_OF[type(event)]}
    for name, value in event._asdict().items():
        if value is not None:
            fields[name] = value if name in _PLAIN else hex(value)
    return json.dumps(fields)


def decode(line: str | bytes) -> Event:
    """Return the event of a line.

    :raises ValueError: if it is none.
    """
    fields = json.loads(line)
    if not isinstance(fields, dict):
        raise ValueError("not an object")
    kind = _KINDS.get(fields.pop("event", ""))
    if kind is None:
        raise ValueError("an unknown kind of event")
    values = {name: _value(name, value) for name, value in fields.items() if name in kind._fields}
    if kind is Returned:
        values = {"cpu": None, "pc": None} | values
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(str(error)) from None


def _value(name: str, value: Any) -> Any:
    expected: type = int if name in _COUNTS else str
    if type(value) is not expected or (name == "world" and value not in WORLDS):
        raise ValueError(f"{name} is {value!r}")
    if not isinstance(value, str) or name in _PLAIN:
        if isinstance(value, int) and not (-1 if name == "seq" else 0) <= value <= _LARGEST.get(
            name, 1 << 64
        ):
            raise ValueError(f"{name} is {value!r}")
        return value
    number = int(value, 16)
    if number >> 64 or number < 0:
        raise ValueError(f"{name} is {value!r}")
    return number


def encode_header(header: Header) -> str:
    """Return the first line of a trace file."""
    return json.dumps(
        {
            "format": header.format,
            "version": header.version,
            "source": header.source,
            "dropped": header.dropped,
            "vhe": header.vhe,
            "worlds_deduced": header.worlds_deduced,
            "host_calls": {hex(x0): name for x0, name in sorted(header.host_calls.items())},
        }
    )


def write(path: str, header: Header, events: Iterable[Event]) -> int:
    """Write a trace file; return how many events it has.

    :raises BadInput: if the file cannot be written.
    """
    count = 0
    with written_whole(path) as file:
        file.write(encode_header(header).encode() + b"\n")
        for event in events:
            file.write(encode(event).encode() + b"\n")
            count += 1
    return count


def open_trace(path: str) -> TraceFile:
    """Open a trace of any known format.

    :raises BadInput: if it cannot be read, is empty, or is no trace; later, while it is iterated, if reading fails.
    """
    try:
        file = Path(path).open("rb")  # noqa: SIM115 (the batches close it)
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None
    beginning = _peek(path, file)
    if not beginning:
        file.close()
        raise BadInput(f"{path} is empty")
    if beginning.startswith(tcg_ring.MAGIC):
        return _open_ring(path, file)
    if beginning.lstrip()[:1] == b"{":
        return _open_json_lines(path, file)
    if looks_like_kvm_text(beginning):
        return _open_kvm_text(path, file)
    if not looks_like_log(beginning) and not _has_log_later(path, file):
        file.close()
        raise BadInput(
            f"{path} is not a trace: neither a trace file of gdbhyp, nor a ring of its TCG plugin, nor a log "
            "of QEMU's '-d int', which has 'Taking exception' lines, nor the text of 'trace-cmd report' or 'perf "
            "script' with kvm_exit"
        )
    return _open_log(path, file)


def _peek(path: str, file: BinaryIO) -> bytes:
    try:
        beginning = file.read(_BEGINNING)
        file.seek(0)
    except OSError as error:
        file.close()
        raise BadInput(f"cannot read {path}: {error.strerror}") from None
    return beginning


def _has_log_later(path: str, file: BinaryIO) -> bool:
    """Return whether a log of other things, such as a console, turns into one of exceptions."""
    found = any(looks_like_log(chunk) for chunk in _chunks(path, file))
    file.seek(0)
    return found


def _chunks(path: str, file: BinaryIO) -> Iterator[bytes]:
    while True:
        try:
            chunk = file.read(_CHUNK)
        except OSError as error:
            raise BadInput(f"cannot read {path}: {error.strerror}") from None
        if not chunk:
            return
        yield chunk


def _open_ring(path: str, file: BinaryIO) -> TraceFile:
    import mmap

    with file:
        try:
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise BadInput(f"cannot read {path}: {error}") from None
    ring = tcg_ring.Ring(memory, path)
    notes = []
    if ring.ready == tcg_ring.ONE_THREAD:
        notes.append(
            "QEMU ran all CPUs in one thread, where plugins cannot tell them apart: nothing was recorded"
        )
    if ring.passed:
        notes.append(f"the plugin's filter left out {ring.passed} exceptions and returns")
    return TraceFile(Header("plugin"), ring.read(final=True), notes)


def _open_log(path: str, file: BinaryIO) -> TraceFile:
    notes: list[str] = []

    def batches() -> Iterator[list[Event]]:
        parser = QemuLogParser()
        with file:
            for chunk in _chunks(path, file):
                yield parser.feed(chunk)
            yield parser.finish()
        notes.extend(log_notes(parser))

    return TraceFile(Header("log"), batches(), notes)


def _open_kvm_text(path: str, file: BinaryIO) -> TraceFile:
    notes: list[str] = []

    def batches() -> Iterator[list[Event]]:
        parser = KvmTextParser()
        with file:
            for chunk in _chunks(path, file):
                yield parser.feed(chunk)
            yield parser.finish()
        if parser.foreign and not parser.exits:
            raise BadInput(f"{path} has kvm_exit events, but of another architecture than arm64")
        notes.extend(kvm_text_notes(parser))

    # The host's kernel made these events, so that each guest was entered from the host and exits to it.
    return TraceFile(Header("linux", vhe=True), batches(), notes)


def log_notes(parser: QemuLogParser) -> list[str]:
    """Return what has to be said of a log that was parsed, in sentences."""
    counts = parser.counts
    notes = []
    if counts.incomplete:
        notes.append(f"{counts.incomplete} exceptions have no beginning or no end in the log")
    if counts.ambiguous:
        notes.append(
            f"{counts.ambiguous} lines of CPUs that wrote at once could belong to several exceptions"
        )
    if counts.foreign:
        notes.append(f"{counts.foreign} lines are not about exceptions and were skipped")
    return notes


def _open_json_lines(path: str, file: BinaryIO) -> TraceFile:
    try:
        header = _header(path, file.readline())
    except BadInput:
        file.close()
        raise
    notes: list[str] = []
    return TraceFile(header, _json_batches(path, file, header, notes.append), notes)


def _header(path: str, line: bytes) -> Header:
    try:
        fields = json.loads(line)
    except ValueError:
        fields = {}
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise BadInput(f"{path} is not a trace: its first line is not the header of a gdbhyp trace file")
    if fields.get("version") != VERSION:
        raise BadInput(
            f"{path} has version {fields.get('version')!r} of the trace format; this gdbhyp reads {VERSION}"
        )
    dropped, vhe, deduced = (
        fields.get("dropped", 0),
        fields.get("vhe", False),
        fields.get("worlds_deduced", False),
    )
    if type(dropped) is not int or dropped < 0 or type(vhe) is not bool or type(deduced) is not bool:
        raise BadInput(
            f"{path} has a header that is not valid: {line[:200].decode('ascii', 'replace').strip()}"
        )
    return Header(
        str(fields.get("source", "unknown")),
        dropped,
        vhe,
        deduced,
        host_calls=_names(fields.get("host_calls")),
    )


def _names(names: Any) -> dict[int, str]:
    """Return the names of host calls; what is none of them is left out."""
    found = {}
    for x0, name in names.items() if isinstance(names, dict) else ():
        with contextlib.suppress(ValueError):
            found[int(x0, 16)] = str(name)
    return found


def _json_batches(
    path: str, file: BinaryIO, header: Header, note: Callable[[str], None]
) -> Iterator[list[Event]]:
    with file:
        if header.dropped:
            yield [Lost(-1, header.dropped, "the recording had no room for them")]
        batch: list[Event] = []
        number = 1
        try:
            for number, line in enumerate(file, 2):
                if not line.endswith(b"\n"):
                    note(f"line {number} is cut off: the recording ended in the middle of an event")
                    break
                batch.append(decode(line))
                if len(batch) == 4096:
                    yield batch
                    batch = []
        except ValueError as error:
            raise BadInput(f"{path}, line {number}, is not an event: {error}") from None
        except OSError as error:
            raise BadInput(f"cannot read {path}: {error.strerror}") from None
        yield batch
