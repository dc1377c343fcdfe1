"""``hyp-trace check``: every register at every world switch, by breakpoints."""

from __future__ import annotations

from dataclasses import replace

import gdb

from gdbhyp.errors import GdbhypError
from gdbhyp.plugin.target import live_stop
from gdbhyp.plugin.vectors import KINDS, Hit, vectors
from gdbhyp.trace import switch_rules as rules
from gdbhyp.trace.checking import Checker, CheckReport, Place, Snapshot
from gdbhyp.trace.events import SYNC


class _Check:
    """A Member of the shared breakpoints that stops when enough was compared."""

    kinds = frozenset(KINDS)
    returns = True
    guests_only = False
    commands = None

    def __init__(self, runs: int) -> None:
        self.checker = Checker()
        self.missing: set[str] = set()
        self.done = False
        self.failure = ""
        self._runs = runs
        self._number = 0

    def taken(self, hit: Hit) -> bool:
        esr = hit.get("ESR_EL2") if hit.kind == SYNC else None
        self.checker.taken(self._snapshot(hit, esr))
        return False

    def returned(self, hit: Hit) -> bool:
        if hit.saved_el < 2:
            self.checker.returned(self._snapshot(hit, None))
        self.done = self.checker.guest_checks >= self._runs
        return self.done

    def _snapshot(self, hit: Hit, esr: int | None) -> Snapshot:
        registers = hit.general()
        for name in rules.REGISTERS:
            value = registers.get(name) if name in rules.GENERAL else hit.get(name)
            if value is None:
                self.missing.add(name)
            else:
                registers[name] = value
        self._number += 1
        return Snapshot(self._number, hit.cpu, hit.address, hit.kind, hit.party, esr, registers)

    def stopped(self) -> None:
        """The report says it."""

    def failed(self, reason: str) -> None:
        self.failure = reason


def check(runs: int) -> CheckReport:
    """Let the machine run until ``runs`` entries were compared, or it stops for another reason.

    :raises NoTarget: if the vectors of EL2 cannot be found, or the target does not answer any more.
    """
    member = _Check(runs)
    watched = vectors()
    with live_stop() as stop:
        watched.join(member, stop)
    try:
        gdb.execute("continue", to_string=True)
    finally:
        watched_notes = watched.notes
        watched.leave(member)
    if member.failure:
        raise GdbhypError(member.failure)
    return _with_symbols(member.checker.report(sorted(member.missing), [*watched_notes, *_notes(member)]))


def _notes(member: _Check) -> list[str]:
    checker, notes = member.checker, []
    if not member.done:
        notes.append("the machine stopped before as many entries were compared as were asked for")
    if checker.guest_checks and not checker.host_checks:
        notes.append(
            "no return to a host below EL2 was compared: where the host is EL2 itself (VHE), or there is none (Xen), "
            "only guests are"
        )
    return notes


def _with_symbols(report: CheckReport) -> CheckReport:
    with live_stop() as stop:

        def named(place: Place) -> Place:
            return replace(place, symbol=stop.symbol(place.place))

        findings = tuple(replace(f, left=named(f.left), entered=named(f.entered)) for f in report.findings)
    return replace(report, findings=findings)
