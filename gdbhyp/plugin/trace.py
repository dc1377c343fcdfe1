"""``hyp-trace`` inside GDB: one recording at a time, which survives everything but GDB."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

import gdb

from gdbhyp.arch.spaces import VA
from gdbhyp.errors import GdbhypError, NoTarget, UsageError
from gdbhyp.plugin.target import live_stop, symbol_at
from gdbhyp.plugin.threads import borrowed_thread
from gdbhyp.plugin.trace_drain import running
from gdbhyp.trace.events import State
from gdbhyp.trace.ring import Recording
from gdbhyp.trace.status import FollowReport, FollowRow, StartOptions, TraceStatus
from gdbhyp.trace.worlds import is_host_at_el2

if TYPE_CHECKING:
    from gdbhyp.engine.stop import Stop
    from gdbhyp.trace.checking import CheckReport
    from gdbhyp.trace.listing import EventRow


class _Source(Protocol):
    """What records."""

    name: str

    @property
    def notes(self) -> list[str]: ...

    @property
    def failure(self) -> str | None: ...

    def catch_up(self) -> None: ...

    def at_stop(self) -> None: ...

    def at_resume(self) -> None: ...

    def at_prompt(self) -> None: ...

    def close(self) -> None: ...


class LiveTracer:
    """The recorder that ``hyp-trace`` commands talk to."""

    def __init__(self) -> None:
        self._source: _Source | None = None
        self._recording: Recording | None = None
        self._connection: gdb.TargetConnection | None = None
        self._why = ""
        self._ended: str | None = "nothing was recorded yet; 'hyp-trace start' begins"
        self._notes: list[str] = []
        self._last_source: _Source | None = None
        self._asked: set[int] = set()

    def start(self, options: StartOptions) -> TraceStatus:
        """Start a new recording.

        :raises UsageError: if one is running.
        :raises NoTarget: if the target cannot be recorded from.
        """
        if self._source is not None:
            raise UsageError(
                "a recording is running: 'hyp-trace stop' ends it, 'hyp-trace save FILE' keeps it"
            )
        with live_stop() as stop:
            source, why = self._make(stop, options)
        self._source = self._last_source = source
        self._connection = gdb.selected_inferior().connection
        self._why, self._ended = why, None
        self._asked.clear()
        _listen(self)
        return self.status()

    def stop(self) -> TraceStatus:
        """End the recording; what was recorded stays."""
        if self._source is None:
            raise NoTarget(f"nothing is being recorded: {self._ended}")
        self._end("stopped by 'hyp-trace stop'")
        return self.status()

    def follow(self, interval: float, seconds: float | None, *, live: bool) -> FollowReport:
        """Let the machine run and count, with a line an interval if it is ``live``, until it stands.

        :raises NoTarget: if nothing is being recorded.
        """
        from gdbhyp.plugin.screen import style
        from gdbhyp.plugin.trace_follow import follow
        from gdbhyp.render.text.trace_follow import line

        if self._source is None:
            raise NoTarget(f"nothing is being recorded: {self._ended}")

        def show(row: FollowRow) -> None:
            gdb.write(line(row, style()) + "\n")
            gdb.flush()

        return follow(self.recording, interval, seconds, show if live else None)

    def check(self, runs: int) -> CheckReport:
        """Compare registers at world switches while the machine runs.

        :raises NoTarget: if the vectors of EL2 cannot be found.
        """
        from gdbhyp.plugin.trace_check import check

        return check(runs)

    @property
    def has_recorded(self) -> bool:
        """Whether there is a recording."""
        return self._recording is not None

    def recording(self) -> Recording:
        """Return the recording, caught up with the target."""
        if self._recording is None:
            raise NoTarget("nothing was recorded yet: 'hyp-trace start' begins, or name a trace file")
        self._catch_up()
        if not running():
            self._name_host_calls(self._recording)
        return self._recording

    def _name_host_calls(self, recording: Recording) -> None:
        """Find out what the host's calls ask for, once each, while the target can tell."""
        unknown = recording.statistics.host_calls() - self._asked
        if not unknown or gdb.selected_inferior().connection is not self._connection:
            return
        from gdbhyp.hypervisors.calls import namer

        self._asked |= unknown
        with contextlib.suppress(GdbhypError), live_stop() as stop:
            name = namer(stop)
            recording.host_calls.update((x0, found) for x0 in unknown if (found := name(x0)))

    def status(self) -> TraceStatus:
        """Return what is being recorded, or was."""
        from gdbhyp.plugin.trace_break import BreakSource

        source, recording = self._last_source, self._recording
        self._catch_up()
        report = None if recording is None else recording.statistics.report()
        breaks = source if isinstance(source, BreakSource) else None
        events = 0 if report is None else report.events
        seconds = None if report is None or not report.duration_ns else report.duration_ns / 1e9
        return TraceStatus(
            running=self._source is not None,
            source="" if recording is None else recording.source,
            why=self._why,
            ended=self._ended,
            events=events,
            exceptions=0 if report is None else report.exceptions,
            world_switches=0 if report is None else report.world_switches,
            dropped=0 if report is None else report.dropped,
            overwritten=0 if recording is None else recording.overwritten,
            per_second=None if seconds is None else round(events / seconds, 1),
            vectors=() if breaks is None else tuple(VA(base) for base in breaks.vectors),
            returns=() if breaks is None else tuple(VA(address) for address in breaks.watched),
            false_hits=0 if breaks is None else breaks.false_hits,
            notes=(*self._notes, *(source.notes if source is not None else ())),
        )

    @staticmethod
    def symbol(address: int) -> str | None:
        """Return ``name+offset`` for an address that a symbol file covers."""
        return symbol_at(address)

    def connection_gone(self, connection: gdb.TargetConnection) -> None:
        """End the recording because GDB let go of the target, or lost it."""
        if self._source is not None and connection is self._connection:
            self._end("the connection to the target is closed")

    def leaving(self) -> None:
        """GDB ends, and the target still answers."""
        if self._source is not None:
            self._end("GDB ended")

    def stopped(self) -> None:
        """Use a stop for the person to look for what has changed."""
        if self._source is not None:
            try:
                self._source.at_stop()
                self._end_if_failed()
            except (gdb.error, GdbhypError) as error:
                self._end(f"the target did not answer: {error}")

    def resumed(self) -> None:
        """The machine runs again."""
        if self._source is not None:
            self._source.at_resume()

    def prompted(self) -> None:
        """The person types."""
        if self._source is not None:
            self._source.at_prompt()

    def _catch_up(self) -> None:
        if self._last_source is not None:
            self._last_source.catch_up()
            self._end_if_failed()

    def _end_if_failed(self) -> None:
        """End a recording that cannot go on, once the machine stands."""
        if self._source is not None and self._source.failure is not None and not running():
            self._end(self._source.failure)

    def _end(self, reason: str) -> None:
        source, self._source = self._source, None
        self._ended = reason
        _ignore(self)
        if source is not None:
            source.close()

    def _fail(self, reason: str) -> None:
        """End the recording from within a breakpoint, where GDB does not allow to delete it."""
        self._ended = reason
        gdb.post_event(lambda: self._end(reason) if self._source is not None else None)

    def _make(self, stop: Stop, options: StartOptions) -> tuple[_Source, str]:
        hcr = stop.optional("HCR_EL2")
        vhe = hcr is not None and is_host_at_el2(hcr)
        self._notes = []
        makers: dict[str, Callable[[], tuple[_Source, str]]] = {
            "plugin": lambda: self._plugin(options, vhe),
            "log": lambda: self._log(options, vhe),
            "break": lambda: self._break(stop, options, vhe),
        }
        if options.source != "auto":
            return makers[options.source]()
        best = ("plugin", "break") if options.filtered else ("plugin", "log", "break")
        return self._first([(name, makers[name]) for name in best])

    def _first(self, makers: list[tuple[str, Callable[[], tuple[_Source, str]]]]) -> tuple[_Source, str]:
        """Return the first source that the target offers, and note what keeps it from the better ones."""
        name, make = makers[0]
        if len(makers) == 1:
            return make()
        try:
            return make()
        except NoTarget as error:
            reason = f"not by --source {name}: {error}"
        source, why = self._first(makers[1:])
        self._notes.insert(0, reason)
        return source, why

    def _plugin(self, options: StartOptions, vhe: bool) -> tuple[_Source, str]:
        from gdbhyp.plugin.trace_plugin import PluginSource
        from gdbhyp.trace.tcg_ring import Choice

        recording = _new_recording("plugin", options, vhe)
        choice = Choice(
            returns=options.classes is None,
            maintenance=options.classes is None,
            interrupts=options.classes is None,
            vmid=options.vmid,
            cpus=options.cpus,
            classes=options.classes,
        )
        source = PluginSource(recording, choice)
        self._recording = recording
        return source, "our TCG plugin in QEMU: all exceptions and returns, with time, VMID and IPA"

    def _log(self, options: StartOptions, vhe: bool) -> tuple[_Source, str]:
        from gdbhyp.plugin.trace_log import LogSource

        _refuse_filter(options, "log")
        recording = _new_recording("log", options, vhe)
        source = LogSource(recording)
        self._recording = recording
        return source, "QEMU's own exception log: complete, but without VMID, IPA and time"

    def _break(self, stop: Stop, options: StartOptions, vhe: bool) -> tuple[_Source, str]:
        from gdbhyp.plugin.trace_break import BreakSource

        _refuse_filter(options, "break")
        recording = _new_recording("break", options, vhe)
        source = BreakSource(recording, self._fail, stop, options.vectors, returns=options.returns)
        self._recording = recording
        return source, "breakpoints on EL2's vectors: every register, but slow"


def _refuse_filter(options: StartOptions, source: str) -> None:
    if options.filtered:
        raise UsageError(
            f"--vmid, --cpu and --ec choose what the TCG plugin records; --source {source} records everything: filter "
            "with 'hyp-trace show'"
        )


T = TypeVar("T")


def _on_all_cpus(ask: Callable[[], T]) -> list[T]:
    """Return what ``ask`` says of each CPU; the selected thread and frame are as before."""
    return [_of_thread(thread, ask) for thread in gdb.selected_inferior().threads()]


def _of_thread(thread: gdb.InferiorThread, ask: Callable[[], T]) -> T:
    with borrowed_thread(thread):
        return ask()


def _register(name: str) -> int | None:
    """Return a register of the selected CPU, None if the stub does not show it."""
    from gdbhyp.plugin.target import shown_names

    # Only one that is there: to evaluate another would make a convenience variable of that name.
    shown = shown_names(gdb.selected_inferior().architecture())[name]
    return None if shown is None else int(gdb.parse_and_eval(f"${shown}")) & 0xFFFF_FFFF_FFFF_FFFF


def _new_recording(source: str, options: StartOptions, vhe: bool) -> Recording:
    """Return a recording that knows what each CPU is doing, and nothing else."""
    recording = Recording(source, options.capacity, vhe=vhe)
    for state in filter(None, _on_all_cpus(_state)):
        recording.add(state)
    return recording


def _state() -> State | None:
    """Return what the selected CPU does, None where that is not shown: then it is as if it had not been seen yet."""
    thread = gdb.selected_thread()
    assert thread is not None
    cpsr, base = _register("CPSR"), _register("VBAR_EL2")
    if cpsr is None or base is None:
        return None
    return State(
        seq=-1,
        cpu=(thread.ptid[1] or thread.num) - 1,
        el=cpsr >> 2 & 3,
        base=base,
        esr=_register("ESR_EL2"),
        elr=_register("ELR_EL2"),
        hcr=_register("HCR_EL2"),
        vttbr=_register("VTTBR_EL2"),
        vtcr=_register("VTCR_EL2"),
    )


class _Listeners:
    """GDB's events, listened to only while something is recorded."""

    def __init__(self, tracer: LiveTracer) -> None:
        self._tracer = tracer

    def stop(self, _: gdb.StopEvent) -> None:
        self._tracer.stopped()

    def resume(self, _: gdb.ContinueEvent) -> None:
        self._tracer.resumed()

    def prompt(self, _: None = None) -> None:
        self._tracer.prompted()

    def exiting(self, _: gdb.GdbExitingEvent) -> None:
        self._tracer.leaving()

    def gone(self, event: gdb.ConnectionEvent) -> None:
        self._tracer.connection_gone(event.connection)


_listeners: dict[int, _Listeners] = {}


def _listen(tracer: LiveTracer) -> None:
    listeners = _listeners[id(tracer)] = _Listeners(tracer)
    gdb.events.stop.connect(listeners.stop)
    gdb.events.cont.connect(listeners.resume)
    gdb.events.before_prompt.connect(listeners.prompt)
    gdb.events.connection_removed.connect(listeners.gone)
    gdb.events.gdb_exiting.connect(listeners.exiting)


def _ignore(tracer: LiveTracer) -> None:
    listeners = _listeners.pop(id(tracer), None)
    if listeners is not None:
        gdb.events.stop.disconnect(listeners.stop)
        gdb.events.cont.disconnect(listeners.resume)
        gdb.events.before_prompt.disconnect(listeners.prompt)
        gdb.events.connection_removed.disconnect(listeners.gone)
        gdb.events.gdb_exiting.disconnect(listeners.exiting)


_tracer: list[LiveTracer] = []


def recorded_exits(count: int) -> tuple[EventRow, ...] | None:
    """Return the last exceptions that were recorded, None if nothing was ever recorded."""
    from gdbhyp.trace.listing import row

    if not _tracer or not _tracer[0].has_recorded:
        return None
    newest = _tracer[0].recording().newest(count)
    return tuple(row(event, party, _tracer[0].symbol) for event, party in newest)


def tracer() -> LiveTracer:
    """Return the one recorder of this GDB."""
    if not _tracer:
        _tracer.append(LiveTracer())
    return _tracer[0]
