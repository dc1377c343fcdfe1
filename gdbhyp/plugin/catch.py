"""``hyp-catch``: GDB breakpoints that stop at exits and entries of a kind.

A catch is a breakpoint that GDB lists, with a number, a condition, an ignore count and commands; but it has no address
of its own, and is never inserted. The shared breakpoints on EL2's vectors do the stopping and ask each catch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import gdb

from gdbhyp.arch.spaces import VA
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import GdbhypError, NoTarget, UsageError
from gdbhyp.plugin.target import live_stop
from gdbhyp.plugin.vectors import Hit, vectors
from gdbhyp.render.style import escape
from gdbhyp.trace.catching import CatchReport, CatchRow, Wanted
from gdbhyp.trace.events import SYNC
from gdbhyp.trace.statistics import KIND_TITLES


class Catch(gdb.Breakpoint):
    """One catch, a Member of the shared breakpoints."""

    def __init__(self, wanted: Wanted, *, temporary: bool) -> None:
        super().__init__(wanted.words, type=gdb.BP_HARDWARE_BREAKPOINT, temporary=temporary)
        self.wanted = wanted
        self.hits = 0
        self.returns = wanted.entry
        self.guests_only = wanted.world == "guest"
        self._hit: Hit | None = None
        self._trouble = ""

    @property
    def kinds(self) -> frozenset[int]:
        """The kinds of exceptions that are worth a stop."""
        return self.wanted.kinds if self.is_valid() and self.enabled else frozenset()

    def taken(self, hit: Hit) -> bool:
        return not self.wanted.entry and self._is_it(hit)

    def returned(self, hit: Hit) -> bool:
        return self._is_it(hit)

    def _is_it(self, hit: Hit) -> bool:
        if not (self.is_valid() and self.enabled and self.wanted.matches(hit) and self._is_true()):
            return False
        self.hits += 1
        if self.ignore_count > 0:
            self.ignore_count -= 1
            return False
        self._hit = hit
        return True

    def _is_true(self) -> bool:
        """Evaluate GDB's condition; one that fails stops, as with GDB's own breakpoints."""
        self._trouble = ""
        if not self.condition:
            return True
        try:
            return bool(gdb.parse_and_eval(self.condition))
        except gdb.error as error:
            self._trouble = f"the condition '{self.condition}' cannot be evaluated: {error}"
            return True

    def stopped(self) -> None:
        """Say in one line what was caught."""
        hit, self._hit = self._hit, None
        if hit is None or not self.is_valid():
            return
        if not (self.commands or "").lstrip().startswith("silent"):
            gdb.write(
                escape(f"hyp-catch {self.number}, CPU {hit.cpu}: {_what_happened(hit, self.wanted)}") + "\n"
            )
        if self._trouble:
            gdb.write(escape(self._trouble) + "\n", gdb.STDERR)
        if self.temporary:
            self.delete()

    def failed(self, reason: str) -> None:
        """The catch stays, for the next target."""

    def row(self) -> CatchRow:
        """Return what a person may know of it."""
        return CatchRow(
            self.number,
            self.wanted.words,
            self.condition,
            self.enabled,
            self.temporary,
            self.hits,
            self.ignore_count,
        )


def _what_happened(hit: Hit, wanted: Wanted) -> str:
    party = hit.party
    vmid = "" if party.vmid is None else f" of VMID {party.vmid}"
    elr = hit.get("ELR_EL2")
    where = "a VA that is not known (the target does not show ELR_EL2)" if elr is None else f"VA {elr:#x}"
    if wanted.entry:
        level = "an EL that is not known" if hit.get("SPSR_EL2") is None else f"EL{hit.saved_el}"
        return f"entry into the {party.world}{vmid} at {level}, {where}"
    if hit.kind != SYNC:
        return f"{KIND_TITLES[hit.kind]} interrupted the {party.world}{vmid} at {where}"
    try:
        with live_stop() as stop:
            summary, symbol = _summary(stop), None if elr is None else stop.symbol(elr)
    except GdbhypError as error:
        esr = hit.get("ESR_EL2")
        shown = "" if esr is None else f"ESR_EL2 = {esr:#x}, "
        summary, symbol = f"a synchronous exception ({shown}{error})", None
    return f"{summary}, from {where}{f' <{symbol}>' if symbol else ''}{vmid}"


def _summary(stop: Stop) -> str:
    from gdbhyp.analyses.exception import last_exception

    return last_exception(stop).summary


class Catcher:
    """The catches of this GDB."""

    def __init__(self) -> None:
        self._catches: list[Catch] = []
        self._listening = False

    def add(self, wanted: Wanted, *, condition: str | None, ignore: int, temporary: bool) -> CatchReport:
        """Make a catch.

        :raises UsageError: if the condition is no expression.
        :raises NoTarget: if the vectors of EL2 cannot be found.
        """
        _check_condition(condition)
        with live_stop() as stop:
            catch = _quietly(lambda: Catch(wanted, temporary=temporary))
            try:
                catch.condition = condition
                catch.ignore_count = ignore
                vectors().join(catch, stop)
            except BaseException:
                catch.delete()
                raise
        self._catches.append(catch)
        self._listen()
        return self._report([catch], made=True)

    def list(self) -> CatchReport:
        """Return all catches."""
        return self._report(self._catches, made=False)

    def _report(self, catches: Sequence[Catch], *, made: bool) -> CatchReport:
        watched = vectors()
        return CatchReport(
            made,
            tuple(catch.row() for catch in catches if catch.is_valid()),
            tuple(VA(base) for base in watched.bases),
            tuple(watched.notes),
        )

    def _deleted(self, breakpoint_: gdb.Breakpoint) -> None:
        for catch in [catch for catch in self._catches if catch is breakpoint_]:
            self._catches.remove(catch)
            vectors().leave(catch, in_event=True)

    def _modified(self, breakpoint_: gdb.Breakpoint) -> None:
        if any(catch is breakpoint_ for catch in self._catches):
            vectors().refresh(in_event=True)

    def _listen(self) -> None:
        if not self._listening:
            self._listening = True
            gdb.events.breakpoint_deleted.connect(self._deleted)
            gdb.events.breakpoint_modified.connect(self._modified)


def _check_condition(condition: str | None) -> None:
    """Refuse what is no expression; one that cannot be evaluated now may be so at the exit."""
    try:
        if condition is not None:
            gdb.parse_and_eval(condition)
    except gdb.error as error:
        if re.search("syntax error|[Jj]unk|Invalid|Unmatched|[Mm]issing", str(error)):
            raise UsageError(f"'{condition}' is no condition: {error}") from error


_makers: list[Callable[[], Catch]] = []
_made: list[Catch] = []


def _quietly(make: Callable[[], Catch]) -> Catch:
    """Make a catch without what GDB says of a breakpoint that has no address."""
    _makers.append(make)
    try:
        said = gdb.execute("python import gdbhyp.plugin.catch; gdbhyp.plugin.catch.make()", to_string=True)
    finally:
        _makers.clear()
    if not _made:
        raise NoTarget(f"GDB makes no breakpoint of it: {said}")
    return _made.pop()


def make() -> None:
    """Make what ``_quietly`` was asked for; GDB calls this, so that its output can be caught."""
    _made.append(_makers[0]())


_catcher: list[Catcher] = []


def catcher() -> Catcher:
    """Return the one catcher of this GDB."""
    if not _catcher:
        _catcher.append(Catcher())
    return _catcher[0]
