"""QEMU's ``-d int`` log as events, incrementally and fast.

QEMU (7.2 to 10.0, ``target/arm``) writes an exception as several lines and a return as one:

    Taking exception 4 [Data Abort] on CPU 1
    ...from EL1 to EL2
    ...with ESR 0x24/0x93840005
    ...with FAR 0x555500000018          (aborts)
    ...with SPSR 0x3c5                  (since 9.0)
    ...with ELR 0xffffffc01200006c
    ...to EL2 PC 0x6e0000200400 PSTATE 0x3c9
    Exception return from AArch64 EL2 to AArch64 EL1 PC 0xffff8000080007e8

Only the first line names a CPU, and each line is written on its own, so the lines of several CPUs interleave. The last
line is the one that says what really happened: a call that QEMU answers itself as PSCI firmware never reaches it.
There is no time, no HPFAR_EL2 and no VTTBR_EL2 in the log, and for an IRQ the ESR is what an older exception left.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from gdbhyp.trace.events import Event, Lost, Returned, Taken

FIRST_LINE = b"Taking exception "
RETURN_LINE = b"Exception return from "

_ITEM = re.compile(
    rb"Taking exception (\d{1,3}) \[[^]\n]*\] on CPU (\d{1,3})\n"
    rb"\.\.\.from EL(\d) to EL\d\n"
    rb"\.\.\.with ESR 0x[0-9a-f]+/0x([0-9a-f]{1,16})\n"
    rb"(?:\.\.\.with FAR 0x([0-9a-f]{1,16})\n)?"
    rb"(?:\.\.\.with SPSR 0x([0-9a-f]{1,16})\n)?"
    rb"\.\.\.with ELR 0x([0-9a-f]{1,16})\n"
    rb"\.\.\.to EL(\d) PC 0x([0-9a-f]{1,16}) PSTATE 0x[0-9a-f]+\n"
    rb"|Exception return from AArch\d\d EL(\d) to AArch\d\d EL(\d) PC 0x([0-9a-f]{1,16})\n"
    rb"|([^\n]*)\n"
)
_HEAD = re.compile(rb"Taking exception (\d{1,3}) \[[^]\n]*\] on CPU (\d{1,3})")
_LINE = re.compile(
    rb"\.\.\.(?:from EL(\d) to EL\d"
    rb"|with ESR 0x[0-9a-f]+/0x([0-9a-f]{1,16})"
    rb"|with FAR 0x([0-9a-f]{1,16})"
    rb"|with SPSR 0x([0-9a-f]{1,16})"
    rb"|with ELR 0x([0-9a-f]{1,16})"
    rb"|to EL(\d) PC 0x([0-9a-f]{1,16}) PSTATE 0x[0-9a-f]+"
    rb"|(handled as .*))"
)
_RETURN = re.compile(rb"Exception return from AArch\d\d EL(\d) to AArch\d\d EL(\d) PC 0x([0-9a-f]{1,16})")

# The place of a line in its record, which is also the number of its group in _LINE.
_FROM, _ESR, _FAR, _SPSR, _ELR, _TO, _PC, _HANDLED = range(1, 9)

# Classes that are reported only with this one of QEMU's exception numbers.
_NUMBER_OF = {0x11: 2, 0x15: 2, 0x20: 3, 0x21: 3, 0x24: 4, 0x25: 4, 0x12: 11, 0x16: 11}
_ABORTS = frozenset((3, 4))
# Interrupts, real and virtual: their ESR is that of an older exception.
_INTERRUPTS = frozenset((5, 6, 14, 15))

_LONGEST_LINE = 4096


class _Open:
    """A record of which not all lines have arrived."""

    __slots__ = ("cpu", "elr", "esr", "far", "from_el", "number", "spsr", "stage")

    def __init__(self, number: int, cpu: int) -> None:
        self.number = number
        self.cpu = cpu
        self.stage = 0
        self.from_el = 0
        self.esr: int | None = None
        self.far: int | None = None
        self.spsr: int | None = None
        self.elr: int | None = None

    def takes(self, stage: int) -> bool:
        """Return whether a line of this stage can be the next of this record."""
        if stage == _FROM:
            return self.stage == 0
        if stage == _ESR:
            return self.stage == _FROM
        if stage == _FAR:
            return self.stage == _ESR
        if stage == _SPSR:
            return self.stage in (_ESR, _FAR)
        if stage == _ELR:
            return self.stage in (_ESR, _FAR, _SPSR)
        if stage == _HANDLED:
            return self.stage == _ESR
        return self.stage == _ELR

    def likely(self, stage: int, value: int) -> bool:
        """Return whether a line that other records take as well looks like one of this record."""
        if stage == _ESR:
            return (
                self.number in _INTERRUPTS or _NUMBER_OF.get(value >> 26 & 0x3F, self.number) == self.number
            )
        if stage == _FAR:
            return self.number in _ABORTS
        if stage in (_SPSR, _ELR):
            return self.stage != _ESR or self.number not in _ABORTS
        return True


@dataclass
class LogCounts:
    """What the parser came across besides events.

    ``others`` are exceptions taken to another EL and returns from one; ``interleaved`` lines were between lines of
    another CPU, ``ambiguous`` ones of those could have belonged to more than one; ``foreign`` lines are not of this
    log; ``incomplete`` records had no end or no beginning.
    """

    lines: int = 0
    others: int = 0
    interleaved: int = 0
    ambiguous: int = 0
    foreign: int = 0
    incomplete: int = 0


class QemuLogParser:
    """Turns bytes of a log into events; ``feed`` may be called with any cut, ``finish`` at the end."""

    def __init__(self) -> None:
        self.counts = LogCounts()
        self._rest = b""
        self._open: list[_Open] = []
        self._seq = 0

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that ``data`` completes."""
        data = self._rest + data
        end = data.rfind(b"\n") + 1
        self._rest = data[end:]
        if len(self._rest) > _LONGEST_LINE:
            self.counts.foreign += 1
            self._rest = b"\0" if b"\0" in self._rest else b""
        if not end:
            return []
        whole = data[:end]
        holes = self._holes(whole)
        if holes:
            whole = whole.replace(b"\0", b"")
        self.counts.lines += whole.count(b"\n")
        if b"\r" in whole:
            whole = whole.replace(b"\r\n", b"\n")
        return [*holes, *self._items(whole)]

    def _holes(self, text: bytes) -> list[Event]:
        """Return the gap that NUL bytes are: of a file that was emptied while QEMU went on writing behind them."""
        if b"\0" not in text:
            return []
        self._open.clear()
        return [self._lost(1, "the log was emptied while it was written")]

    def finish(self) -> list[Event]:
        """Return what the end of the log leaves: a gap if it ends within a record."""
        events = self.feed(b"\n") if self._rest else []
        if self._open:
            events.append(self._lost(len(self._open), "the log ends within a record"))
            self._open.clear()
        return events

    def _items(self, text: bytes) -> Iterator[Event]:
        seq = self._seq
        open_records = self._open
        others = 0
        for item in _ITEM.finditer(text):
            number, cpu, from_el, esr, far, spsr, elr, to_el, pc, ret_from, ret_to, ret_pc, _ = item.groups()
            if number is not None and not open_records:
                if to_el != b"2":
                    others += 1
                    continue
                yield Taken(
                    seq,
                    int(cpu),
                    int(pc, 16),
                    int(from_el),
                    None,
                    int(esr, 16),
                    None if far is None else int(far, 16),
                    None,
                    int(elr, 16),
                    None if spsr is None else int(spsr, 16),
                )
                seq += 1
            elif ret_from is not None:
                if ret_from != b"2":
                    others += 1
                    continue
                yield Returned(seq, None, int(ret_to), int(ret_pc, 16))
                seq += 1
            else:
                self._seq = seq
                for line in item[0].splitlines():
                    yield from self._line(line)
                seq = self._seq
        self._seq = seq
        self.counts.others += others

    def _line(self, line: bytes) -> Iterator[Event]:
        """Take one line by itself: a record in pieces, or something else."""
        head = _HEAD.fullmatch(line)
        if head is not None:
            yield from self._begin(_Open(int(head[1]), int(head[2])))
            return
        match = _LINE.fullmatch(line)
        if match is None:
            self.counts.foreign += bool(line)
            return
        stage = match.lastindex or 0
        if stage == _PC:
            yield from self._end(int(match[_TO]), int(match[_PC], 16))
        elif stage == _HANDLED:
            record = self._owner(_HANDLED, 0)
            if record is not None:
                self._open.remove(record)
        else:
            value = int(match[stage], 16)
            record = self._owner(stage, value)
            if record is not None:
                record.stage = stage
                setattr(record, _FIELDS[stage], value)

    def _begin(self, record: _Open) -> Iterator[Event]:
        for other in self._open:
            if other.cpu == record.cpu:
                self._open.remove(other)
                yield self._lost(1, "a record has no end", other.cpu)
                break
        self._open.append(record)

    def _end(self, to_el: int, pc: int) -> Iterator[Event]:
        record = self._owner(_PC, pc)
        if record is None:
            if to_el == 2:
                yield self._lost(1, "a record has no beginning")
            return
        self._open.remove(record)
        if to_el != 2:
            self.counts.others += 1
            return
        yield Taken(
            self._next(),
            record.cpu,
            pc,
            record.from_el,
            None,
            record.esr,
            record.far,
            None,
            record.elr,
            record.spsr,
        )

    def _owner(self, stage: int, value: int) -> _Open | None:
        """Return the open record that a line belongs to; the oldest if several fit, None if none does."""
        self.counts.interleaved += len(self._open) > 1
        fitting = [record for record in self._open if record.takes(stage)]
        if len(fitting) > 1:
            fitting = [record for record in fitting if record.likely(stage, value)] or fitting
            self.counts.ambiguous += len(fitting) > 1
        return fitting[0] if fitting else None

    def _lost(self, count: int, reason: str, cpu: int | None = None) -> Lost:
        self.counts.incomplete += count
        return Lost(self._next(), count, reason, cpu)

    def _next(self) -> int:
        self._seq += 1
        return self._seq - 1


_FIELDS = {_FROM: "from_el", _ESR: "esr", _FAR: "far", _SPSR: "spsr", _ELR: "elr"}


def looks_like_log(beginning: bytes) -> bool:
    """Return whether the beginning of a file has lines of this log."""
    return FIRST_LINE in beginning or RETURN_LINE in beginning or b"\n...with ESR 0x" in beginning
