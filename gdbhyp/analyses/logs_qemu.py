"""The syndromes in QEMU's ``-d int`` log, line by line.

A record is ``Taking exception 4 [Data Abort] on CPU 1``, ``...from EL1 to EL2``, ``...with ESR 0x24/0x93840005``,
``...with FAR``, ``...with SPSR``, ``...with ELR``, and ends with ``...to EL2 PC`` or ``...handled as``. For an
interrupt the ESR is what an older exception left, so it is none. Only the first line names a CPU, and the lines of
several CPUs interleave: what could then belong to more than one record is attributed to none.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from gdbhyp.analyses.logs import Found

_LINE = re.compile(
    rb"Taking exception ([0-9]{1,3}) \[[^\]\n]{0,60}\](?: on CPU ([0-9]{1,6}))?"
    rb"|\.\.\.from EL([0-3]) to EL([0-3])"
    rb"|\.\.\.with (ESR) 0x[0-9a-f]{1,2}/0x([0-9a-f]{1,16})(?![0-9a-zA-Z_])"
    rb"|\.\.\.with (FAR|SPSR|ELR) 0x([0-9a-f]{1,16})(?![0-9a-zA-Z_])"
    rb"|\.\.\.(to EL[0-3] PC|handled as) "
)
_NUMBER, _CPU, _FROM, _TO, _ESR, _ESR_VALUE, _NAME, _VALUE, _END = range(1, 10)

# QEMU's numbers of interrupts, real and virtual.
_INTERRUPTS = frozenset((5, 6, 14, 15))
# A record is a handful of lines; so many lines later it has lost its end.
_TOO_OLD = 64


class Step(NamedTuple):
    """What a line of the log brought: a syndrome, or the end of a record that has none."""

    found: tuple[Found, ...] = ()
    discarded: bool = False


class _Record:
    """An exception of which the last line has not come."""

    __slots__ = ("cpu", "esr", "interrupt", "since", "values")

    def __init__(self, number: int, cpu: int, since: int) -> None:
        self.interrupt = number in _INTERRUPTS
        self.cpu = cpu
        self.since = since
        self.esr: Found | None = None
        self.values: dict[str, int] = {}

    def complete(self) -> tuple[Found, ...]:
        """Return the syndrome with all that is known of it, if there is one."""
        if self.esr is None or self.interrupt:
            return ()
        values = self.values
        return (self.esr._replace(far=values.get("FAR"), elr=values.get("ELR"), spsr=values.get("SPSR")),)


class QemuRecords:
    """Takes the lines of a log, whatever else is between them."""

    def __init__(self) -> None:
        self._open: list[_Record] = []
        # Of the records since none was open: whether they overlap, have interrupts among them, and their levels.
        self._mixed = False
        self._interrupts = False
        self._levels: set[tuple[int, int]] = set()

    @property
    def busy(self) -> bool:
        """Whether a record is open."""
        return bool(self._open)

    def line(self, text: bytes, number: int, offset: int) -> Step | None:
        """Take a line; None if it is not of this log."""
        match = _LINE.search(text)
        if match is None:
            return self._expire(number)
        if match[_NUMBER]:
            return self._begin(_Record(int(match[_NUMBER]), int(match[_CPU] or 0), number))
        if match[_TO]:
            self._levels.add((int(match[_FROM]), int(match[_TO])))
            return Step()
        if match[_VALUE]:
            if len(self._open) == 1 and not self._mixed:
                self._open[0].values[match[_NAME].decode()] = int(match[_VALUE], 16)
            return Step()
        if match[_END]:
            return self._end()
        start, value = match.start(_ESR), int(match[_ESR_VALUE], 16)
        said = text[start : match.end()].decode()
        return self._syndrome(Found(number, offset + start, said, "qemu", value, None))

    def pause(self) -> tuple[Found, ...]:
        """Return the syndromes that have come, with what is known of them so far."""
        found = tuple(found for record in self._open for found in record.complete())
        # A record without its ESR stays: if it is an interrupt's, the ESR that comes must not be taken for a syndrome.
        self._open = [record for record in self._open if record.esr is None]
        self._settle()
        return found

    def finish(self) -> tuple[Found, ...]:
        """Return the syndromes of records that have no end."""
        found = self.pause()
        self._open.clear()
        self._settle()
        return found

    def _begin(self, record: _Record) -> Step:
        unfinished = [other for other in self._open if other.cpu == record.cpu]
        self._open = [other for other in self._open if other.cpu != record.cpu]
        self._settle()
        self._open.append(record)
        self._mixed |= len(self._open) > 1
        self._interrupts |= record.interrupt
        return Step(tuple(found for other in unfinished for found in other.complete()))

    def _settle(self) -> None:
        """Forget what is common to overlapping records when none is open."""
        if not self._open:
            self._mixed = self._interrupts = False
            self._levels.clear()

    def _syndrome(self, found: Found) -> Step:
        if len(self._levels) == 1:
            ((from_el, to_el),) = self._levels
            found = found._replace(from_el=from_el, level=to_el or None)
        if not self._mixed and self._open:
            self._open[0].esr = found
            return Step()
        # An interrupt among the records makes it possible that this is the interrupt's stale value.
        return Step(() if self._interrupts else (found,))

    def _end(self) -> Step:
        if not self._open:
            return Step()
        found = self._open.pop(0).complete()
        self._settle()
        return Step(found, discarded=not found and not self._open)

    def _expire(self, number: int) -> Step | None:
        """Give up on records that have lost their ends."""
        if self._open and number - self._open[-1].since >= _TOO_OLD:
            found = self.finish()
            return Step(found) if found else None
        return None
