"""Recorded exceptions as rows that say what happened, and the filters that choose among them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from gdbhyp.arch.spaces import IPA, VA, Word
from gdbhyp.arch.syndrome import SyndromeContext, decode_esr
from gdbhyp.arch.worlds import World
from gdbhyp.trace.events import FIQ, IRQ, KIND_NAMES, SERROR, Taken
from gdbhyp.trace.statistics import HostCalls, call_text, hpfar_ipa, reason_name
from gdbhyp.trace.worlds import Party

REASONS: dict[str, frozenset[int]] = {
    "wfx": frozenset((0x01,)),
    "fp": frozenset((0x07, 0x19, 0x1D)),
    "svc": frozenset((0x11, 0x15)),
    "hvc": frozenset((0x12, 0x16)),
    "smc": frozenset((0x13, 0x17)),
    "sysreg": frozenset((0x03, 0x04, 0x05, 0x06, 0x08, 0x0C, 0x14, 0x18)),
    "iabt": frozenset((0x20, 0x21)),
    "dabt": frozenset((0x24, 0x25)),
}
"""Exception classes (ESR_EL2.EC) by the word that people use."""

INTERRUPTS = {"irq": IRQ, "fiq": FIQ, "serror": SERROR}


Symbol = Callable[[int], str | None]
"""Names an address as ``name+offset``; None where no symbol covers it."""


def no_symbol(_: int) -> str | None:
    """Name no address."""
    return None


@dataclass(frozen=True)
class EventRow:
    """One exception taken to EL2.

    ``time_ns`` is of the source's clock. ``esr`` is None for an interrupt, whose ESR_EL2 is stale. ``ipa`` is the page
    and offset from HPFAR_EL2 and FAR_EL2, only where HPFAR_EL2 is valid. ``symbol`` names ``pc`` where it can be told.
    """

    seq: int
    time_ns: int | None
    cpu: int
    world: World
    vmid: int | None
    from_el: int
    exception: str
    ec: int | None
    summary: str
    pc: VA | None
    symbol: str | None
    esr: Word | None
    far: VA | None
    hpfar: Word | None
    ipa: IPA | None
    spsr: Word | None
    vttbr: Word | None
    x0: Word | None
    call: str | None
    vector: VA


@dataclass(frozen=True)
class ShowReport:
    """Recorded exceptions in order; a JSON line each. ``left_out`` earlier ones matched as well.

    ``began_ns`` is the time of the first exception of the recording, from which times are shown.
    """

    kind: ClassVar[str] = "trace_show"
    json_lines: ClassVar[bool] = True

    rows: tuple[EventRow, ...]
    left_out: int
    began_ns: int | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Filter:
    """Which exceptions are wanted; an item that is None does not matter. Ranges are [first, last].

    ``time`` is in nanoseconds from the first exception of the recording, ``symbol`` the name of a function.
    """

    reason: str | None = None
    ec: int | None = None
    cpu: int | None = None
    vmid: int | None = None
    world: str | None = None
    ipa: tuple[int, int] | None = None
    pc: tuple[int, int] | None = None
    time: tuple[int, int] | None = None
    symbol: str | None = None

    def wants(self, event: Taken, party: Party, began: int | None, symbol: Symbol) -> bool:
        """Return whether the exception is wanted, in a recording that ``began`` then."""
        return (
            (self.cpu is None or event.cpu == self.cpu)
            and (self.world is None or party.world == self.world)
            and (self.vmid is None or party.vmid == self.vmid)
            and (self.ec is None or event.ec == self.ec)
            and (self.reason is None or _has_reason(event, self.reason))
            and (self.pc is None or (event.elr is not None and self.pc[0] <= event.elr <= self.pc[1]))
            and (self.ipa is None or self._has_ipa(event, self.ipa))
            and (self.time is None or self._in_time(event, began, self.time))
            and (self.symbol is None or self._in_function(event, symbol, self.symbol))
        )

    @staticmethod
    def _in_time(event: Taken, began: int | None, wanted: tuple[int, int]) -> bool:
        return event.time is not None and began is not None and wanted[0] <= event.time - began <= wanted[1]

    @staticmethod
    def _in_function(event: Taken, symbol: Symbol, wanted: str) -> bool:
        name = None if event.elr is None else symbol(event.elr)
        return name is not None and name.partition("+")[0] == wanted

    @staticmethod
    def _has_ipa(event: Taken, wanted: tuple[int, int]) -> bool:
        ipa = full_ipa(event)
        return ipa is not None and wanted[0] <= ipa <= wanted[1]


def _has_reason(event: Taken, reason: str) -> bool:
    kind = INTERRUPTS.get(reason)
    if kind is not None:
        return event.kind == kind
    return event.ec in REASONS[reason]


def full_ipa(event: Taken) -> int | None:
    """Return the faulting IPA: its page from HPFAR_EL2 where that is valid, its offset from FAR_EL2.

    A fault on a stage-1 table walk (S1PTW) has FAR_EL2 of the access, not of the table, so only the page is known.
    """
    page = hpfar_ipa(event)
    if page is None or event.far is None or (event.esr or 0) >> 7 & 1:
        return page
    return page | (event.far & 0xFFF)


def row(event: Taken, party: Party, symbol: Symbol = no_symbol, names: HostCalls | None = None) -> EventRow:
    """Return the row of an exception; ``names`` are those of host calls."""
    names = names or {}
    syndrome = event.syndrome
    ipa = full_ipa(event)
    return EventRow(
        seq=event.seq,
        time_ns=event.time,
        cpu=event.cpu,
        world=party.world,
        vmid=party.vmid,
        from_el=event.from_el,
        exception=KIND_NAMES[event.kind],
        ec=event.ec,
        summary=reason_name(event.ec, event.kind)
        if syndrome is None
        else _summary(event, party, syndrome, names),
        pc=None if event.elr is None else VA(event.elr),
        symbol=None if event.elr is None else symbol(event.elr),
        esr=None if syndrome is None else Word(syndrome),
        far=None if event.far is None else VA(event.far),
        hpfar=None if event.hpfar is None else Word(event.hpfar),
        ipa=None if ipa is None else IPA(ipa),
        spsr=None if event.spsr is None else Word(event.spsr),
        vttbr=None if event.vttbr is None else Word(event.vttbr),
        x0=None if event.x0 is None else Word(event.x0),
        call=call_text(event, party.world, names),
        vector=VA(event.vector),
    )


def _summary(event: Taken, party: Party, syndrome: int, names: HostCalls) -> str:
    context = SyndromeContext(
        far=event.far,
        hpfar=event.hpfar,
        elr=event.elr,
        spsr=event.spsr,
        registers=None if event.x0 is None else {0: event.x0},
        aarch32=event.from_aarch32,
        from_el=event.from_el,
        guest={"guest": True, "host": False}.get(party.world),
        host_call=names.get,
    )
    return decode_esr(syndrome, context=context).summary


def last(
    exceptions: Iterable[tuple[Taken, Party]],
    wanted: Filter,
    count: int,
    symbol: Symbol = no_symbol,
    names: HostCalls | None = None,
) -> ShowReport:
    """Return the last ``count`` wanted exceptions of a recording."""
    matching = 0
    began: int | None = None
    name = symbol if wanted.symbol is None else cache(symbol)
    newest: deque[tuple[Taken, Party]] = deque(maxlen=count)
    for event, party in exceptions:
        if began is None:
            began = event.time
        if wanted.wants(event, party, began, name):
            matching += 1
            newest.append((event, party))
    rows = tuple(row(*item, name, names) for item in newest)
    return ShowReport(rows, matching - len(newest), began)
