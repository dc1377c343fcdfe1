"""``hyp-trace`` and ``gdbhyp trace``: world switches."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gdbhyp.commands.classes import exception_class
from gdbhyp.commands.declaration import Argument, Command, Context
from gdbhyp.commands.numbers import address_range, small_number
from gdbhyp.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from gdbhyp.trace.events import Event, Taken
    from gdbhyp.trace.files import Header, TraceFile
    from gdbhyp.trace.listing import Filter
    from gdbhyp.trace.ring import Recording
    from gdbhyp.trace.worlds import Party

_SHOWN = 20
_CHECKED = 100
_DRAWN = 1000
_REASONS = ("wfx", "fp", "svc", "hvc", "smc", "sysreg", "iabt", "dabt", "irq", "fiq", "serror")


def _start(context: Context, arguments: Namespace) -> Any:
    from gdbhyp.trace.ring import CAPACITY
    from gdbhyp.trace.status import StartOptions

    capacity = CAPACITY if arguments.buffer is None else context.number(arguments.buffer)
    if not 1 <= capacity <= 100_000_000:
        raise UsageError("--buffer is the number of events to keep, from 1 to 100000000")
    vectors = tuple(context.number(text) for text in arguments.vector or ())
    for base in vectors:
        if base & 0x7FF:
            raise UsageError(f"--vector {base:#x} is no vector base: VBAR_EL2 is a multiple of 0x800")
    return context.tracer().start(
        StartOptions(
            arguments.source or "auto",
            capacity,
            vectors,
            arguments.returns,
            vmid=None if arguments.vmid is None else small_number(arguments.vmid, "--vmid"),
            cpus=_counts(arguments.cpu, "--cpu"),
            classes=_classes(arguments.ec),
        )
    )


def _counts(texts: list[str] | None, option: str) -> frozenset[int] | None:
    return None if texts is None else frozenset(small_number(text, option) for text in texts)


def _classes(texts: list[str] | None) -> frozenset[int] | None:
    return None if texts is None else frozenset(exception_class(text, "--ec") for text in texts)


def _plugin(context: Context, arguments: Namespace) -> Any:
    from gdbhyp.trace import tcg_build

    if arguments.output is not None and not arguments.build:
        raise UsageError("-o says where --build writes to: give both")
    return tcg_build.build(arguments.output) if arguments.build else tcg_build.find()


def _stop(context: Context, arguments: Namespace) -> Any:
    return context.tracer().stop()


def _status(context: Context, arguments: Namespace) -> Any:
    return context.tracer().status()


def _follow(context: Context, arguments: Namespace) -> Any:
    interval = 1.0 if arguments.interval is None else _seconds(arguments.interval, "--interval")
    seconds = None if arguments.seconds is None else _seconds(arguments.seconds, "--seconds")
    return context.tracer().follow(interval, seconds, live=not arguments.json)


def _seconds(text: str, option: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.05 <= seconds <= 1e6:
        raise UsageError(f"{option} takes a number of seconds, at least 0.05, not '{text}'")
    return seconds


def _check(context: Context, arguments: Namespace) -> Any:
    runs = _CHECKED if arguments.runs is None else small_number(arguments.runs, "--runs")
    if not runs:
        raise UsageError("--runs is how many entries into guests to compare, at least 1")
    return context.tracer().check(runs)


def _show(context: Context, arguments: Namespace) -> Any:
    from gdbhyp.trace import listing

    wanted = _filter(context, arguments)
    if arguments.timeline:
        return _timeline(context, arguments, wanted)
    count = _SHOWN if arguments.last is None else small_number(arguments.last, "--last")
    if arguments.file is None:
        tracer = context.tracer()
        recording = tracer.recording()
        return listing.last(recording.exceptions(), wanted, count, tracer.symbol, recording.host_calls)
    file = _open(arguments.file)
    report = listing.last(_exceptions(file), wanted, count, names=file.header.host_calls)
    return replace(report, problems=tuple(file.notes))


def _timeline(context: Context, arguments: Namespace, wanted: Filter) -> Any:
    from gdbhyp.trace.listing import no_symbol
    from gdbhyp.trace.timeline import timeline
    from gdbhyp.trace.worlds import WorldTracker

    count = _DRAWN if arguments.last is None else small_number(arguments.last, "--last")
    columns = 0 if arguments.columns is None else small_number(arguments.columns, "--columns")
    if arguments.file is None:
        tracer = context.tracer()
        recording = tracer.recording()
        events, vhe, symbol = recording.judged(), recording.statistics.tracker.vhe, tracer.symbol
        return timeline(events, WorldTracker(vhe=vhe), wanted, max(count, 1), symbol, columns)
    file = _open(arguments.file)
    tracker = WorldTracker(vhe=file.header.vhe)
    report = timeline(_events(file), tracker, wanted, max(count, 1), no_symbol, columns)
    return replace(report, notes=tuple(file.notes))


def _stat(context: Context, arguments: Namespace) -> Any:
    if arguments.file is None:
        recording = context.tracer().recording()
        return recording.statistics.report(names=recording.host_calls)
    from gdbhyp.trace.statistics import Statistics
    from gdbhyp.trace.worlds import WorldTracker

    file = _open(arguments.file)
    statistics = Statistics(file.header.source, WorldTracker(vhe=file.header.vhe))
    for batch in file.batches:
        statistics.extend(batch)
    return statistics.report(file.notes, deduced=file.header.worlds_deduced, names=file.header.host_calls)


def _save(context: Context, arguments: Namespace) -> Any:
    from gdbhyp.trace import files
    from gdbhyp.trace.status import SaveReport

    recording = context.tracer().recording()
    header = _header_of(recording)
    return SaveReport(arguments.file, files.write(arguments.file, header, recording.judged()), header.dropped)


def _export(context: Context, arguments: Namespace) -> Any:
    from gdbhyp.trace import export

    if arguments.format is None or arguments.output is None:
        raise UsageError("export needs --format chrome, csv or jsonl, and -o OUT, the file to write")
    notes: list[str] = []
    if arguments.file is None:
        recording = context.tracer().recording()
        header, events = _header_of(recording), recording.judged()
    else:
        file = _open(arguments.file)
        header, events, notes = file.header, _events(file), file.notes
    _refuse_same(arguments.file, arguments.output)
    count = export.export(arguments.output, arguments.format, header, events)
    return export.ExportReport(arguments.output, arguments.format, count, tuple(notes))


def _refuse_same(source: str | None, output: str) -> None:
    import os

    if source is not None and os.path.exists(output) and os.path.samefile(source, output):
        raise UsageError(f"{output} is the trace itself: choose another file to write")


def _header_of(recording: Recording) -> Header:
    from gdbhyp.trace.files import Header

    tracker = recording.statistics.tracker
    return Header(
        recording.source,
        recording.missing_before,
        tracker.vhe,
        not tracker.observed,
        host_calls=recording.host_calls,
    )


def _open(path: str) -> TraceFile:
    from gdbhyp.trace import files

    return files.open_trace(path)


def _events(file: TraceFile) -> Iterator[Event]:
    for batch in file.batches:
        yield from batch


def _exceptions(file: TraceFile) -> Iterator[tuple[Taken, Party]]:
    from gdbhyp.trace.events import Taken
    from gdbhyp.trace.worlds import WorldTracker

    tracker = WorldTracker(vhe=file.header.vhe)
    for event in _events(file):
        party = tracker.take(event)
        if type(event) is Taken and party is not None:
            yield event, tracker.settle(party)


def _filter(context: Context, arguments: Namespace) -> Filter:
    from gdbhyp.trace.listing import Filter

    return Filter(
        reason=arguments.reason,
        ec=None if arguments.ec is None else exception_class(arguments.ec, "--ec"),
        cpu=None if arguments.cpu is None else small_number(arguments.cpu, "--cpu"),
        vmid=None if arguments.vmid is None else small_number(arguments.vmid, "--vmid"),
        world=arguments.world,
        ipa=address_range(context.number, arguments.ipa),
        pc=address_range(context.number, arguments.pc),
        time=_times(arguments.time),
        symbol=arguments.symbol,
    )


def _times(text: str | None) -> tuple[int, int] | None:
    """Return the nanoseconds of ``FIRST-LAST``, which are milliseconds."""
    if text is None:
        return None
    first, found, last = text.partition("-")
    try:
        begin, end = (int(float(word) * 1e6) for word in (first, last if found else first))
    except (ValueError, OverflowError):
        begin, end = 0, -1
    if end < begin:
        raise UsageError(f"--time takes milliseconds from the beginning, such as 100-250.5, not '{text}'")
    return begin, end


_FILE = Argument(
    ("file",),
    "a trace: a file that 'save' or 'export' wrote, a ring of the TCG plugin, a log of QEMU's '-d int', or a real "
    "machine's: the text of 'trace-cmd report' or 'perf script' with kvm_entry and kvm_exit; in GDB, without it, the "
    "recording",
    "path",
    optional=True,
)

_FILTERS = (
    Argument(("--last",), f"how many events to show, the newest; {_SHOWN} if not said", "text", "N"),
    Argument(("--reason",), "only exceptions for this reason", "choice", choices=_REASONS),
    Argument(("--ec",), "only exceptions of this class (ESR_EL2.EC): dabt-lower, 0x24", "class"),
    Argument(("--cpu",), "only those of one CPU, counted from 0", "text", "N"),
    Argument(("--vmid",), "only those of one VM", "text", "N"),
    Argument(
        ("--world",),
        "only those that interrupted this world",
        "choice",
        choices=("host", "guest", "hypervisor"),
    ),
    Argument(
        ("--ipa",), "only faults at an IPA that HPFAR_EL2 tells: ADDRESS, or FIRST-LAST", "text", "RANGE"
    ),
    Argument(("--pc",), "only exceptions taken at a PC: ADDRESS, or FIRST-LAST", "text", "RANGE"),
    Argument(("--symbol",), "in GDB: only exceptions taken in the function of this name", "text", "NAME"),
    Argument(
        ("--time",), "only those of a time: FIRST-LAST, in milliseconds from the beginning", "text", "RANGE"
    ),
    Argument(
        ("--timeline",),
        f"draw who ran when instead, a lane a CPU, over the last {_DRAWN} exceptions or --last N",
    ),
    Argument(("--columns",), "how wide a timeline is; as wide as the terminal if not said", "text", "N"),
)

COMMAND = Command(
    name="trace",
    summary="Record world switches, and say who ran when and why it exited.",
    run=_status,
    subcommands=(
        Command(
            name="start",
            summary="Start to record every exception taken to EL2 from a lower exception level.",
            run=_start,
            arguments=(
                Argument(
                    ("--source",),
                    "how: by our TCG plugin in QEMU (everything, at full speed), by QEMU's own exception log (as fast, "
                    "without time, IPA and VMID), or by breakpoints on EL2's vectors (slow, any stub); auto takes the "
                    "first of them that the target offers",
                    "choice",
                    choices=("auto", "plugin", "log", "break"),
                ),
                Argument(
                    ("--buffer",), "how many events to keep, the newest; 100000 if not said", "number", "N"
                ),
                Argument(
                    ("--vector",),
                    "a vector base (a value of VBAR_EL2) to watch besides those found; may be repeated",
                    "number",
                    "ADDRESS",
                    repeated=True,
                ),
                Argument(
                    ("--returns",),
                    "for breakpoints: stop at EL2's ERET instructions too, so that returns are observed",
                ),
                Argument(("--vmid",), "for the TCG plugin: record only this VM", "text", "N"),
                Argument(
                    ("--cpu",),
                    "for the TCG plugin: record only this CPU; may be repeated",
                    "text",
                    "N",
                    repeated=True,
                ),
                Argument(
                    ("--ec",),
                    "for the TCG plugin: record only exceptions of this class (ESR_EL2.EC); may be repeated",
                    "class",
                    repeated=True,
                ),
            ),
        ),
        Command(name="stop", summary="Stop recording; what was recorded stays.", run=_stop),
        Command(name="status", summary="Say whether and how it is being recorded.", run=_status),
        Command(
            name="follow",
            summary="Let the machine run and count exits as they happen, until Ctrl-C or a breakpoint.",
            run=_follow,
            arguments=(
                Argument(("--interval",), "how often to count, in seconds; 1 if not said", "text", "SECONDS"),
                Argument(("--seconds",), "stop the machine after this time", "text", "SECONDS"),
            ),
        ),
        Command(
            name="show",
            summary="Show recorded exceptions, one a line, the newest last.",
            run=_show,
            arguments=(_FILE, *_FILTERS),
        ),
        Command(
            name="stat",
            summary="Count exits by world, VM and reason; rank calls, registers, IPAs and PCs.",
            run=_stat,
            arguments=(_FILE,),
        ),
        Command(
            name="check",
            summary="Run the machine, and check that its world switch loses and leaks no register.",
            run=_check,
            arguments=(
                Argument(
                    ("--runs",),
                    f"how many entries into guests to compare; {_CHECKED} if not said, and Ctrl-C ends it before",
                    "text",
                    "N",
                ),
            ),
            description="""
At each exception taken to EL2 and at each ERET the general, EL1 and control registers are read; the machine then stands
where the last was compared. What a guest vCPU left at an exit it has to find at its next entry, and a host below EL2
what it left when a guest ran in between. A register that differs is explained (an emulated load's result, an injected
exception, ...) or it is a finding, with both values and both places; one that holds what another world had is a leak.
""",
        ),
        Command(
            name="save",
            summary="Write the recording to a trace file.",
            run=_save,
            arguments=(Argument(("file",), "the file to write", "path"),),
        ),
        Command(
            name="export",
            summary="Write a trace for other programs: Perfetto's timeline (chrome), CSV, JSON lines.",
            run=_export,
            arguments=(
                _FILE,
                Argument(("--format",), "the format to write", "choice", choices=("chrome", "csv", "jsonl")),
                Argument(("-o", "--output"), "the file to write", "path", "OUT"),
            ),
        ),
        Command(
            name="plugin",
            summary="Build the TCG plugin that records inside QEMU, and say how to load it.",
            run=_plugin,
            arguments=(
                Argument(("--build",), "build it, with this machine's C compiler"),
                Argument(("-o", "--output"), "where to, instead of gdbhyp's cache", "path", "FILE"),
            ),
        ),
    ),
    description="""
An event is an exception taken to EL2, with whom it interrupted, or a return from there. The TCG plugin and breakpoints
read HCR_EL2 and VTTBR_EL2 at each, so the world and the VMID are observed; QEMU's log has neither, so worlds are
deduced from vector bases and return addresses and there is no VMID. For an interrupt ESR_EL2 keeps an older
exception's value, so none is shown.
""",
)

# What needs no debugger.
_OFFLINE = ("show", "stat", "export", "plugin")

OFFLINE = replace(
    COMMAND,
    summary="Show, count or export recorded world switches.",
    subcommands=tuple(sub for sub in COMMAND.subcommands if sub.name in _OFFLINE),
    in_gdb=False,
    in_cli=True,
)
