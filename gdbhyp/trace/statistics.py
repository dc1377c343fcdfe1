"""Counts of a stream of events, in bounded memory: who exited, why, where, and which calls and registers it was."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from gdbhyp.arch import smccc
from gdbhyp.arch.spaces import IPA, VA
from gdbhyp.arch.syndrome import Syndrome, decode_esr
from gdbhyp.arch.worlds import World, vmid_of
from gdbhyp.trace.events import (
    CLASS_ONLY,
    EC_DABT_LOWER,
    EC_HVC64,
    EC_IABT_LOWER,
    EC_SERROR,
    EC_SMC64,
    EC_SYS64,
    SERROR,
    SYNC,
    Event,
    Lost,
    Maintained,
    Returned,
    Taken,
)
from gdbhyp.trace.storms import StormRow, Storms
from gdbhyp.trace.times import ExitKey, Spread, Times
from gdbhyp.trace.worlds import Party, WorldTracker

_TOP = 10
_MOST_KEYS = 8192
_MOST_SITES = 1 << 14

_XEN = "the log does not say which of Xen's domains ran, so switches between them are not counted"

KIND_TITLES = ("sync", "IRQ", "FIQ", "SError")
"""What a row without an exception class is called, by the kind of the exception."""


@dataclass(frozen=True)
class ExitRow:
    """How often one party exited for one reason; ``ec`` is None for interrupts, which have no syndrome.

    ``handled`` exits were seen to be handled: a guest's when its CPU entered the same guest again, a host's below EL2
    when EL2 was left. Their times in nanoseconds are None where no time or no return was recorded; ``time_share`` is
    the part of all handling of this world, ``p99_ns`` (within 1 %) is what 99 % did not exceed.
    """

    world: World
    vmid: int | None
    ec: int | None
    name: str
    count: int
    share: float
    handled: int
    time_share: float | None
    total_ns: int | None
    min_ns: int | None
    avg_ns: int | None
    p99_ns: int | None
    max_ns: int | None


@dataclass(frozen=True)
class WorldRow:
    """For how long a world ran, in nanoseconds of all CPUs.

    ``el2_ns`` is the time in EL2 on its behalf: from its exceptions to the next return. Under VHE that is the host's
    time, too. ``entries`` counts the returns to it. ``handed_over`` exits were not settled in EL2: a host below it went
    on (what KVM counts as exits); None where no host is below EL2.
    """

    world: World
    vmid: int | None
    exits: int
    entries: int
    handed_over: int | None
    running_ns: int
    el2_ns: int
    running_share: float
    el2_share: float


@dataclass(frozen=True)
class MaintenanceRow:
    """How often EL2 executed a TLB maintenance instruction with a VMID in VTTBR_EL2, which is 0 for KVM's host.

    ``vmid`` is None where the target does not show VTTBR_EL2.
    """

    vmid: int | None
    instruction: str
    count: int


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
    exactly one row of ``exits``. ``maintenance`` counts TLB maintenance instructions in EL2. ``dropped`` events are
    known to be missing. ``world_switches`` counts the changes between host and guest and between guests.
    ``duration_ns`` is between the first and the last exception that has a time. ``worlds_deduced`` says that the source
    recorded no registers that tell whose world it was; ``contradictions`` counts where the deduction met something that
    did not fit. Lists of most frequent things are in descending order. ``storms`` are faults that were repeated without
    progress, which only recorded returns can show. ``worlds`` is empty where the source has no time or no returns.
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
    maintenance: int
    exits: tuple[ExitRow, ...]
    worlds: tuple[WorldRow, ...]
    calls: tuple[CallRow, ...]
    registers: tuple[RegisterRow, ...]
    ipas: tuple[IpaRow, ...]
    pcs: tuple[PcRow, ...]
    tlb_maintenance: tuple[MaintenanceRow, ...]
    storms: tuple[StormRow, ...]
    notes: tuple[str, ...]


Key = TypeVar("Key", bound=Hashable)


class Top(Generic[Key]):
    """The most frequent keys of a stream; once there are too many, the rarest are forgotten and ``exact`` is False."""

    def __init__(self, most: int = _MOST_KEYS) -> None:
        self.counts: dict[Key, int] = {}
        self.exact = True
        self._most = most

    def add(self, key: Key, times: int = 1) -> None:
        """Count some occurrences."""
        counts = self.counts
        if key in counts:
            counts[key] += times
            return
        if len(counts) >= self._most:
            self._forget()
        counts[key] = times

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
    return None if event.syndrome is None else _page(event.syndrome, event.hpfar)


def _page(esr: int, hpfar: int | None) -> int | None:
    if hpfar is None:
        return None
    abort = syndrome_of(esr).abort
    if abort is None or not abort.hpfar_valid:
        return None
    return (hpfar & 0xFFFF_FFFF_FFF0) << 8


def reason_name(ec: int | None, kind: int) -> str:
    """Return what a row of exits is called: the exception class, or the interrupt."""
    return KIND_TITLES[kind] if ec is None else syndrome_of(ec << 26).ec.name


HostCalls = Mapping[int, str]
"""What a host asks of its own EL2 code, by x0 of its HVC."""


def call_text(event: Taken, world: World, names: HostCalls) -> str | None:
    """Return the call that an HVC or SMC makes, None for other exceptions and where nothing is known of it."""
    esr = event.syndrome
    if event.ec not in (EC_HVC64, EC_SMC64) or esr is None:
        return None
    return _call(_Call(esr & 0xFFFF, event.x0, event.ec == EC_HVC64), world, names.get(event.x0 or 0))


class _Call(NamedTuple):
    """An HVC, or SMC."""

    immediate: int
    x0: int | None
    hvc: bool


@lru_cache(maxsize=4096)
def _call(call: _Call, world: World, host_name: str | None) -> str | None:
    immediate, x0, hvc = call
    mnemonic = "hvc" if hvc else "smc"
    name = smccc.call_name(
        immediate,
        x0,
        hvc=hvc,
        guest={"guest": True, "host": False}.get(world),
        host_call=lambda _: host_name,
    )
    if name:
        return name
    if x0 is None:
        return f"{mnemonic} #{immediate:#x}" if immediate else None
    if world == "host" and hvc and x0 >> 32:
        return f"EL2 function {x0:#x}"
    return f"{mnemonic} #{immediate:#x}, x0 = {x0:#x}"


Site = tuple[Party, int | None, int, int | None, int | None, int | None]
"""What makes exceptions alike: whose, ESR_EL2, the kind of exception, its PC, x0 at a call, HPFAR_EL2."""


def _class(esr: int | None, kind: int) -> int | None:
    """Return the exception class, None where ESR_EL2 is stale or was not recorded; ``Taken.ec`` says why."""
    if esr is None:
        return None
    ec = esr >> 26 & 0x3F
    return ec if kind == SYNC or (kind == SERROR and ec == EC_SERROR) else None


class Statistics:
    """Counts events as they come; ``report`` may be asked for at any time.

    Exceptions are alike most of the time, so they are counted by ``Site`` first, and taken apart when there are too
    many different ones, or a report is made.
    """

    def __init__(self, source: str, tracker: WorldTracker | None = None) -> None:
        self.source = source
        self.tracker = tracker or WorldTracker()
        self.exceptions = 0
        self.returns = 0
        self.maintenance = 0
        self.dropped = 0
        self._first_time: int | None = None
        self._last_time: int | None = None
        self._cpus: set[int] = set()
        self._sites: dict[Site, int] = {}
        self._exits: dict[ExitKey, int] = {}
        self._calls: Top[tuple[Party, _Call]] = Top()
        self._registers: Top[tuple[Party, int]] = Top()
        self._pcs: Top[tuple[Party, int]] = Top()
        self._ipas: Top[tuple[Party, int]] = Top()
        self._tlbis: Top[tuple[int | None, int]] = Top()
        self._storms = Storms()
        self._times = Times()

    def extend(self, events: Iterable[Event]) -> None:
        """Count ``events``, which follow those before."""
        for event in events:
            self.add(event)

    def add(self, event: Event) -> Party | None:
        """Count one event; return whom an exception interrupted."""
        party = self.tracker.take(event)
        kind = type(event)
        if kind is Taken and party is not None:
            self._taken(event, party)  # type: ignore[arg-type]
        elif kind is Returned:
            self._returned(event)  # type: ignore[arg-type]
        elif type(event) is Maintained:
            self.maintenance += 1
            vmid = None if event.vttbr is None else vmid_of(event.vttbr, event.vtcr)
            self._tlbis.add((vmid, event.instruction & ~31))
        elif type(event) is Lost:
            self.dropped += event.missing
            self._times.lost(event.cpu)
        return party

    def _taken(self, event: Taken, party: Party) -> None:
        _, number, vector, from_el, time, esr, _, hpfar, elr, _, _, _, _, x0, _, _ = event
        self.exceptions += 1
        kind = vector >> 7 & 3
        site = (party, esr, kind, elr, x0, hpfar)
        sites = self._sites
        if site in sites:
            sites[site] += 1
        else:
            if len(sites) >= _MOST_SITES:
                self._take_apart()
            sites[site] = 1
        self._cpus.add(number)
        if time is not None:
            if self._first_time is None:
                self._first_time = time
            self._last_time = time
            key = (party, _class(esr, kind), kind)
            self._times.taken(number, time, from_el, key, vhe=self.tracker.vhe)
        if party[0] == "guest":
            self._storms.add(event, _class(esr, kind), party, self.tracker.return_before(event))

    def _returned(self, event: Returned) -> None:
        _, number, to_el, _, time, _, _, _, _, _ = event
        self.returns += 1
        if time is not None and number is not None:
            self._times.returned(number, time, to_el, self.tracker.below(number))

    def _take_apart(self) -> None:
        """Count by each of the things that make up a site."""
        for (party, esr, kind, elr, x0, hpfar), count in self._sites.items():
            ec = _class(esr, kind)
            key = (party, ec, kind)
            self._exits[key] = self._exits.get(key, 0) + count
            if elr is not None:
                self._pcs.add((party, elr), count)
            if ec is None or esr is None or esr & CLASS_ONLY:
                continue
            if ec in (EC_HVC64, EC_SMC64):
                self._calls.add((party, _Call(esr & 0xFFFF, x0, ec == EC_HVC64)), count)
            elif ec == EC_SYS64:
                # The register that was used, Rt [9:5], is no part of the access.
                self._registers.add((party, esr & ~0x3E0), count)
            elif ec in (EC_DABT_LOWER, EC_IABT_LOWER):
                ipa = _page(esr, hpfar)
                if ipa is not None:
                    self._ipas.add((party, ipa), count)
        self._sites.clear()

    def host_calls(self) -> set[int]:
        """Return x0 of the calls that a host has made to EL2."""
        self._take_apart()
        return {
            call.x0
            for party, call in self._calls.counts
            if party.world == "host" and call.hvc and call.x0 is not None
        }

    def report(
        self, notes: Iterable[str] = (), *, deduced: bool = False, names: HostCalls | None = None
    ) -> StatReport:
        """Return the numbers so far.

        ``deduced`` says that the worlds in the events had been deduced, ``names`` are those of host calls.
        """
        self._take_apart()
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
            maintenance=self.maintenance,
            exits=self._exit_rows(),
            worlds=self._world_rows(),
            calls=self._call_rows({} if names is None else names),
            registers=tuple(
                RegisterRow(*p, _access(esr), n) for (p, esr), n in self._settled(self._registers)[:_TOP]
            ),
            ipas=tuple(IpaRow(*p, IPA(ipa), n) for (p, ipa), n in self._settled(self._ipas)[:_TOP]),
            pcs=tuple(PcRow(*p, VA(pc), n) for (p, pc), n in self._settled(self._pcs)[:_TOP]),
            tlb_maintenance=tuple(
                MaintenanceRow(vmid, _tlbi(instruction), n) for (vmid, instruction), n in self._tlbis.first()
            ),
            storms=self._storms.rows(),
            notes=(*notes, *((_XEN,) if self.tracker.blind else ())),
        )

    def exits(self) -> dict[tuple[Party, int | None, str], int]:
        """Return how often each party exited for each reason so far."""
        self._take_apart()
        counts: dict[tuple[Party, int | None, str], int] = {}
        for (party, ec, kind), count in self._exits.items():
            key = (self.tracker.settle(party), ec, reason_name(ec, kind))
            counts[key] = counts.get(key, 0) + count
        return counts

    def _exit_rows(self) -> tuple[ExitRow, ...]:
        spreads: dict[tuple[Party, int | None, str], Spread] = {}
        for (party, ec, kind), handled in self._times.handled.items():
            key = (self.tracker.settle(party), ec, reason_name(ec, kind))
            spreads.setdefault(key, Spread()).merge(handled)
        totals: dict[Party, int] = {}
        for (party, _, _), spread in spreads.items():
            totals[party] = totals.get(party, 0) + spread.total
        rows = [
            ExitRow(
                party.world,
                party.vmid,
                ec,
                name,
                count,
                round(count / self.exceptions, 6),
                *_handling(spreads.get((party, ec, name)), totals.get(party, 0)),
            )
            for (party, ec, name), count in self.exits().items()
        ]
        return tuple(sorted(rows, key=lambda row: (-row.count, row.world, row.vmid or 0, row.name)))

    def _call_rows(self, names: HostCalls) -> tuple[CallRow, ...]:
        counts: dict[tuple[Party, str], int] = {}
        for (party, call), count in self._settled(self._calls):
            name = _call(call, party.world, names.get(call.x0 or 0))
            if name is not None:
                counts[party, name] = counts.get((party, name), 0) + count
        most = sorted(counts.items(), key=lambda item: -item[1])[:_TOP]
        return tuple(CallRow(*party, name, count) for (party, name), count in most)

    def _world_rows(self) -> tuple[WorldRow, ...]:
        """Return who ran for how long; nothing where no return was seen, for then nobody was seen to run."""
        exits: dict[Party, int] = {}
        for (party, _, _), count in self._exits.items():
            settled = self.tracker.settle(party)
            exits[settled] = exits.get(settled, 0) + count
        spent: dict[tuple[Party, bool], int] = {}
        for (party, in_el2), time in self._times.spent.items():
            key = (self.tracker.settle(party), in_el2)
            spent[key] = spent.get(key, 0) + time
        total = sum(spent.values())
        if not total:
            return ()
        host_below = not self.tracker.vhe and any(party.world == "host" for party, _ in spent)
        rows = []
        for party in dict.fromkeys(party for party, _ in spent):
            running, el2 = spent.get((party, False), 0), spent.get((party, True), 0)
            rows.append(
                WorldRow(
                    *party,
                    exits.get(party, 0),
                    self._times.entries.get(party, 0),
                    self._times.handed_over.get(party, 0) if host_below and party.world == "guest" else None,
                    running,
                    el2,
                    round(running / total, 6),
                    round(el2 / total, 6),
                )
            )
        return tuple(sorted(rows, key=lambda row: (row.world, row.vmid or 0)))

    def _settled(self, top: Top[tuple[Party, Any]]) -> list[tuple[tuple[Party, Any], int]]:
        merged: dict[tuple[Party, Any], int] = {}
        for (party, what), count in top.counts.items():
            key = (self.tracker.settle(party), what)
            merged[key] = merged.get(key, 0) + count
        return sorted(merged.items(), key=lambda item: -item[1])


def _handling(
    spread: Spread | None, of_all: int
) -> tuple[int, float | None, int | None, int | None, int | None, int | None, int | None]:
    """Return the columns of a row of exits that need times."""
    if spread is None:
        return 0, None, None, None, None, None, None
    return (
        spread.count,
        round(spread.total / of_all, 6) if of_all else None,
        spread.total,
        spread.least,
        spread.total // spread.count,
        spread.percentile(99),
        spread.most,
    )


def _tlbi(instruction: int) -> str:
    """Return the name of a SYS instruction, by the syndrome that it would have if it were trapped.

    Its fields are op1 [18:16], CRn [15:12], CRm [11:8] and op2 [7:5] (Arm ARM, "SYS"); those of the syndrome are
    Op0 [21:20], Op2 [19:17], Op1 [16:14], CRn [13:10] and CRm [4:1] (ESR_ELx, "ISS for trapped MSR, MRS or System").
    """
    op1, crn, crm, op2 = (instruction >> bit & mask for bit, mask in ((16, 7), (12, 15), (8, 15), (5, 7)))
    syndrome = syndrome_of(EC_SYS64 << 26 | 1 << 20 | op2 << 17 | op1 << 14 | crn << 10 | crm << 1)
    return syndrome.system_register or f"{instruction:#010x}"


def _access(esr: int) -> str:
    syndrome = syndrome_of(esr)
    name = syndrome.system_register or syndrome.summary
    direction = "mrs" if esr & 1 else "msr"
    return f"{direction} {name}"
