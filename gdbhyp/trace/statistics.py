"""Counts of a stream of events, in bounded memory: who exited, why, where, and which calls and registers it was."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Generic, TypeVar

from gdbhyp.arch import smccc
from gdbhyp.arch.spaces import IPA, VA
from gdbhyp.arch.syndrome import Syndrome, decode_esr
from gdbhyp.arch.worlds import World
from gdbhyp.trace.events import (
    EC_DABT_LOWER,
    EC_HVC64,
    EC_IABT_LOWER,
    EC_SMC64,
    EC_SYS64,
    Event,
    Lost,
    Returned,
    Taken,
)
from gdbhyp.trace.storms import StormRow, Storms
from gdbhyp.trace.worlds import Party, WorldTracker

_TOP = 10
_MOST_KEYS = 8192

_XEN = "the log does not say which of Xen's domains ran, so switches between them are not counted"

KIND_TITLES = ("sync", "IRQ", "FIQ", "SError")
"""What a row without an exception class is called, by the kind of the exception."""


@dataclass(frozen=True)
class ExitRow:
    """How often one party exited for one reason; ``ec`` is None for interrupts, which have no syndrome."""

    world: World
    vmid: int | None
    ec: int | None
    name: str
    count: int
    share: float


@dataclass(frozen=True)
class CallRow:
    """How often an SMC or HVC was made; ``name`` is SMCCC's, the hypervisor's own, or the number."""

    world: World
    vmid: int | None
    name: str
    count: int


@dataclass(frozen=True)
class RegisterRow:
    """How often an access to a system register, or a system instruction, trapped."""

    world: World
    vmid: int | None
    instruction: str
    count: int


@dataclass(frozen=True)
class PcRow:
    """How often exceptions were taken at one address of a party."""

    world: World
    vmid: int | None
    pc: VA
    count: int


@dataclass(frozen=True)
class IpaRow:
    """How often a page of the IPA space faulted, by HPFAR_EL2 where it is valid."""

    world: World
    vmid: int | None
    ipa: IPA
    count: int


@dataclass(frozen=True)
class StatReport:
    """A trace in numbers.

    ``events`` are exceptions taken to EL2 (``exceptions``) and returns from it (``returns``); every exception is in
    exactly one row of ``exits``. ``dropped`` events are known to be missing. ``world_switches`` counts the changes
    between host and guest and between guests. ``duration_ns`` is between the first and the last event that has a time.
    ``worlds_deduced`` says that the source recorded no registers that tell whose world it was; ``contradictions``
    counts where the deduction met something that did not fit. Lists of most frequent things are in descending order.
    ``storms`` are faults that were repeated without progress, which only recorded returns can show.
    """

    kind: ClassVar[str] = "trace_stat"

    source: str
    events: int
    exceptions: int
    returns: int
    dropped: int
    world_switches: int
    cpus: int
    duration_ns: int | None
    worlds_deduced: bool
    contradictions: int
    exits: tuple[ExitRow, ...]
    calls: tuple[CallRow, ...]
    registers: tuple[RegisterRow, ...]
    ipas: tuple[IpaRow, ...]
    pcs: tuple[PcRow, ...]
    storms: tuple[StormRow, ...]
    notes: tuple[str, ...]


Key = TypeVar("Key", bound=Hashable)


class Top(Generic[Key]):
    """The most frequent keys of a stream; once there are too many, the rarest are forgotten and ``exact`` is False."""

    def __init__(self, most: int = _MOST_KEYS) -> None:
        self.counts: dict[Key, int] = {}
        self.exact = True
        self._most = most

    def add(self, key: Key) -> None:
        """Count one occurrence."""
        counts = self.counts
        if key in counts:
            counts[key] += 1
            return
        if len(counts) >= self._most:
            self._forget()
        counts[key] = 1

    def first(self, number: int = _TOP) -> list[tuple[Key, int]]:
        """Return the most frequent keys and their counts, in descending order."""
        return sorted(self.counts.items(), key=lambda item: -item[1])[:number]

    def _forget(self) -> None:
        kept = self.first(self._most // 2)
        self.counts.clear()
        self.counts.update(kept)
        self.exact = False


@lru_cache(maxsize=4096)
def syndrome_of(esr: int) -> Syndrome:
    """Return the decoded syndrome; traces have few different ones."""
    return decode_esr(esr)


def hpfar_ipa(event: Taken) -> int | None:
    """Return the page of the faulting IPA from HPFAR_EL2, None where that is not recorded or not valid.

    HPFAR_EL2.FIPA is [47:4] and holds IPA[55:12] (Arm ARM, HPFAR_EL2).
    """
    if event.hpfar is None or event.syndrome is None:
        return None
    abort = syndrome_of(event.syndrome).abort
    if abort is None or not abort.hpfar_valid:
        return None
    return (event.hpfar & 0xFFFF_FFFF_FFF0) << 8


def reason_name(ec: int | None, kind: int) -> str:
    """Return what a row of exits is called: the exception class, or the interrupt."""
    return KIND_TITLES[kind] if ec is None else syndrome_of(ec << 26).ec.name


def call_text(event: Taken, world: World) -> str | None:
    """Return the call that an HVC or SMC makes, None for other exceptions and where nothing is known of it."""
    esr = event.esr
    if event.ec not in (EC_HVC64, EC_SMC64) or esr is None:
        return None
    return _call(esr & 0xFFFF, event.x0, event.ec == EC_HVC64, world)


@lru_cache(maxsize=4096)
def _call(immediate: int, x0: int | None, hvc: bool, world: World) -> str | None:
    mnemonic = "hvc" if hvc else "smc"
    name = smccc.call_name(immediate, x0, hvc=hvc, guest={"guest": True, "host": False}.get(world))
    if name:
        return name
    if x0 is None:
        return f"{mnemonic} #{immediate:#x}" if immediate else None
    if world == "host" and hvc and x0 >> 32:
        return f"EL2 function {x0:#x}"
    return f"{mnemonic} #{immediate:#x}, x0 = {x0:#x}"


class Statistics:
    """Counts events as they come; ``report`` may be asked for at any time."""

    def __init__(self, source: str, tracker: WorldTracker | None = None) -> None:
        self.source = source
        self.tracker = tracker or WorldTracker()
        self.exceptions = 0
        self.returns = 0
        self.dropped = 0
        self._first_time: int | None = None
        self._last_time: int | None = None
        self._cpus: set[int] = set()
        self._exits: dict[tuple[Party, int | None, int], int] = {}
        self._calls: Top[tuple[Party, str]] = Top()
        self._registers: Top[tuple[Party, int]] = Top()
        self._pcs: Top[tuple[Party, int]] = Top()
        self._ipas: Top[tuple[Party, int]] = Top()
        self._storms = Storms()

    def extend(self, events: Iterable[Event]) -> None:
        """Count ``events``, which follow those before."""
        for event in events:
            self.add(event)

    def add(self, event: Event) -> Party | None:
        """Count one event; return whom an exception interrupted."""
        party = self.tracker.take(event)
        if type(event) is Taken and party is not None:
            self._taken(event, party)
        elif type(event) is Lost:
            self.dropped += event.missing
        elif type(event) is Returned:
            self.returns += 1
        return party

    def _taken(self, event: Taken, party: Party) -> None:
        self.exceptions += 1
        if event.time is not None:
            if self._first_time is None:
                self._first_time = event.time
            self._last_time = event.time
        self._cpus.add(event.cpu)
        ec = event.ec
        key = (party, ec, event.vector >> 7 & 3)
        self._exits[key] = self._exits.get(key, 0) + 1
        if event.elr is not None:
            self._pcs.add((party, event.elr))
        if party.world == "guest":
            self._storms.add(event, ec, party, self.tracker.return_before(event))
        if ec in (EC_HVC64, EC_SMC64):
            name = call_text(event, party.world)
            if name is not None:
                self._calls.add((party, name))
        elif ec == EC_SYS64 and event.esr is not None:
            # The register that was used, Rt [9:5], is no part of the access.
            self._registers.add((party, event.esr & ~0x3E0))
        elif ec in (EC_DABT_LOWER, EC_IABT_LOWER):
            ipa = hpfar_ipa(event)
            if ipa is not None:
                self._ipas.add((party, ipa))

    def report(self, notes: Iterable[str] = (), *, deduced: bool = False) -> StatReport:
        """Return the numbers so far; ``deduced`` says that the worlds in the events had been deduced."""
        duration = None
        if self._first_time is not None and self._last_time is not None:
            duration = self._last_time - self._first_time
        return StatReport(
            source=self.source,
            events=self.exceptions + self.returns,
            exceptions=self.exceptions,
            returns=self.returns,
            dropped=self.dropped,
            world_switches=self.tracker.switches,
            cpus=len(self._cpus),
            duration_ns=duration,
            worlds_deduced=deduced or not self.tracker.observed,
            contradictions=self.tracker.contradictions,
            exits=self._exit_rows(),
            calls=tuple(CallRow(*p, name, n) for (p, name), n in self._settled(self._calls)),
            registers=tuple(
                RegisterRow(*p, _access(esr), n) for (p, esr), n in self._settled(self._registers)
            ),
            ipas=tuple(IpaRow(*p, IPA(ipa), n) for (p, ipa), n in self._settled(self._ipas)),
            pcs=tuple(PcRow(*p, VA(pc), n) for (p, pc), n in self._settled(self._pcs)),
            storms=self._storms.rows(),
            notes=(*notes, *((_XEN,) if self.tracker.blind else ())),
        )

    def _exit_rows(self) -> tuple[ExitRow, ...]:
        merged: dict[tuple[Party, int | None, str], int] = {}
        for (party, ec, kind), count in self._exits.items():
            key = (self.tracker.settle(party), ec, reason_name(ec, kind))
            merged[key] = merged.get(key, 0) + count
        rows = [
            ExitRow(*party, ec, name, count, round(count / self.exceptions, 6))
            for (party, ec, name), count in merged.items()
        ]
        return tuple(sorted(rows, key=lambda row: (-row.count, row.world, row.vmid or 0, row.name)))

    def _settled(self, top: Top[tuple[Party, Any]]) -> list[tuple[tuple[Party, Any], int]]:
        merged: dict[tuple[Party, Any], int] = {}
        for (party, what), count in top.counts.items():
            key = (self.tracker.settle(party), what)
            merged[key] = merged.get(key, 0) + count
        return sorted(merged.items(), key=lambda item: -item[1])[:_TOP]


def _access(esr: int) -> str:
    syndrome = syndrome_of(esr)
    name = syndrome.system_register or syndrome.summary
    direction = "mrs" if esr & 1 else "msr"
    return f"{direction} {name}"
