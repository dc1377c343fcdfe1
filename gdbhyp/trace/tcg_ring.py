"""The ring of records that our TCG plugin (tcg_plugin.c) fills: how it is read while it is written, and switched.

A record's number says its place in the stream, from 1; it is 0 while the record is being written. Who reads takes the
records that are whole, in order, and learns from the numbers how many were overwritten before.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from gdbhyp.errors import BadInput
from gdbhyp.trace.events import Event, Lost, Maintained, Returned, Taken

MAGIC = b"GDBHYPTR"
LAYOUT = 1

_HEADER = 4096
_IDENTITY = struct.Struct("<8sII4QII")
_BEGUN = struct.Struct("<Q")
_BEGUN_AT = 24
_CONTROL = struct.Struct("<4I2Q2I")
_CONTROL_AT = _IDENTITY.size
_OWNER = struct.Struct("<I")
_OWNER_AT = _CONTROL_AT + _CONTROL.size - _OWNER.size
RECORD = struct.Struct("<QQHBBI11Q")

NO_EL2, ONE_THREAD = 2, 3
"""Why the plugin records nothing: the header's ``ready``."""

_TAKEN, _RETURNED = 1, 2
_ANY_VMID = 0xFFFF_FFFF
_ALL = 0xFFFF_FFFF_FFFF_FFFF
_INTERRUPTS = 0b1110

_ESR, _FAR, _HPFAR, _VTCR, _X0 = 1 << 0, 1 << 1, 1 << 2, 1 << 8, 1 << 9

_BATCH = 8192


@dataclass(frozen=True)
class Choice:
    """What the plugin is to record; None is everything. ``classes`` are those of synchronous exceptions."""

    returns: bool = True
    maintenance: bool = True
    interrupts: bool = True
    vmid: int | None = None
    cpus: frozenset[int] | None = None
    classes: frozenset[int] | None = None

    def control(self, owner: int) -> bytes:
        """Return the words by which the plugin is switched on."""
        return _CONTROL.pack(
            True,
            self.returns,
            self.maintenance,
            _ANY_VMID if self.vmid is None else self.vmid,
            _bits(self.classes),
            _bits(self.cpus),
            _INTERRUPTS if self.interrupts else 0,
            owner,
        )


def _bits(wanted: frozenset[int] | None) -> int:
    return _ALL if wanted is None else sum(1 << bit for bit in wanted if bit < 64)


class Ring:
    """A ring that is mapped; ``position`` is how many records of its stream have been read or given up.

    :raises BadInput: if it is none.
    """

    def __init__(self, memory: mmap.mmap | bytes, where: str) -> None:
        self._memory = memory
        self.where = where
        if len(memory) < _HEADER or memory[: len(MAGIC)] != MAGIC:
            raise BadInput(f"{where} is not a ring of gdbhyp's TCG plugin")
        _, layout, size, capacity, _, _, self.loaded, self.cpus, ready = _IDENTITY.unpack_from(memory)
        if (layout, size) != (LAYOUT, RECORD.size):
            raise BadInput(
                f"{where} is of a TCG plugin of another version (layout {layout}, this gdbhyp reads {LAYOUT}): build "
                "the plugin again with 'gdbhyp trace plugin --build'"
            )
        if not capacity or capacity & (capacity - 1):
            raise BadInput(f"{where} has a header that is not valid: a ring of {capacity} records")
        self.capacity: int = capacity
        self.ready = ready
        # A copy of a file may be cut off.
        self._present = (len(memory) - _HEADER) // RECORD.size
        self.position = 0

    @property
    def begun(self) -> int:
        """How many records there have been."""
        return int(_BEGUN.unpack_from(self._memory, _BEGUN_AT)[0])

    @property
    def passed(self) -> int:
        """How many exceptions and returns a filter has left out."""
        return int(_IDENTITY.unpack_from(self._memory)[5])

    @property
    def enabled(self) -> bool:
        """Whether the plugin records."""
        return bool(_CONTROL.unpack_from(self._memory, _CONTROL_AT)[0])

    @property
    def owner(self) -> int:
        """The process that switched the plugin on, 0 if none did."""
        return int(_OWNER.unpack_from(self._memory, _OWNER_AT)[0])

    @property
    def filling(self) -> float:
        """How full the ring is with what was not read, from 0 to 1, or more when records were overwritten."""
        return float(self.begun - self.position) / self.capacity

    def switch_on(self, choice: Choice, owner: int) -> None:
        """Let the plugin record from now on; what it had recorded before is passed by."""
        assert isinstance(self._memory, mmap.mmap)
        self.position = self.begun
        self._memory[_CONTROL_AT : _CONTROL_AT + _CONTROL.size] = choice.control(owner)

    def switch_off(self) -> None:
        """Let the plugin record no more."""
        assert isinstance(self._memory, mmap.mmap)
        self._memory[_CONTROL_AT : _CONTROL_AT + 4] = b"\0\0\0\0"
        self._memory[_OWNER_AT : _OWNER_AT + _OWNER.size] = b"\0\0\0\0"

    def read(self, *, final: bool = False, pause: int = 0) -> Iterator[list[Event]]:
        """Yield the events since the last reading, in batches, up to a record that is still being written.

        With ``final`` nobody writes any more: a record that was never finished is lost. ``pause`` is taken from all
        times: the nanoseconds for which the machine had stood before.
        """
        while batch := self._batch(final, pause):
            yield batch

    def _batch(self, final: bool, pause: int) -> list[Event]:
        events: list[Event] = []
        begun = self.begun
        lost = begun - self.capacity - self.position
        if lost > 0:
            self._give_up(lost, "they were overwritten before they were read", events)
        slot = self.position & (self.capacity - 1)
        count = min(begun - self.position, self.capacity - slot, _BATCH)
        if count <= 0:
            return events
        count = min(count, self._present - slot)
        if count <= 0:
            self._give_up(begun - self.position, "the file is cut off", events)
            return events
        start = _HEADER + slot * RECORD.size
        data = self._memory[start : start + count * RECORD.size]
        whole = self._whole(data, count)
        # What was overwritten while it was copied may be half of one record and half of another.
        torn = min(max(self.begun - self.capacity - self.position, 0), count)
        if torn:
            self._give_up(torn, "they were overwritten before they were read", events)
            whole = max(whole, torn)
        events.extend(decode(data[torn * RECORD.size : whole * RECORD.size], pause))
        self.position += whole - torn
        if whole < count and final:
            self._give_up(1, "it was never finished", events)
        return events

    def _whole(self, data: bytes, count: int) -> int:
        """Return how many records from the first are whole."""
        numbers = memoryview(data).cast("Q")[:: RECORD.size // 8].tolist()
        expected = range(self.position + 1, self.position + 1 + count)
        if numbers == [*expected]:
            return count
        return next(n for n, (is_, wanted) in enumerate(zip(numbers, expected, strict=True)) if is_ != wanted)

    def _give_up(self, count: int, reason: str, events: list[Event]) -> None:
        events.append(Lost(self.position, count, reason))
        self.position += count


def decode(data: bytes, pause: int = 0) -> Iterator[Event]:
    """Yield the events of whole records, ``pause`` nanoseconds earlier."""
    make = tuple.__new__
    for (
        number, time, cpu, kind, el, has, pc, esr, far, hpfar, elr, spsr, hcr, vttbr, vbar, vtcr, x0,
    ) in RECORD.iter_unpack(data):  # fmt: skip
        if kind == _TAKEN:
            yield make(
                Taken,
                (
                    number - 1,
                    cpu,
                    pc,
                    el,
                    time - pause,
                    esr if has & _ESR else None,
                    far if has & _FAR else None,
                    hpfar if has & _HPFAR else None,
                    elr,
                    spsr,
                    hcr,
                    vttbr,
                    vtcr if has & _VTCR else None,
                    x0 if has & _X0 else None,
                    None,
                    None,
                ),
            )
        elif kind == _RETURNED:
            yield make(
                Returned,
                (
                    number - 1,
                    cpu,
                    el,
                    elr,
                    time - pause,
                    hcr,
                    vttbr,
                    vtcr if has & _VTCR else None,
                    vbar,
                    None,
                ),
            )
        else:
            yield Maintained(
                number - 1, cpu, pc, esr, time - pause, x0, hcr, vttbr, vtcr if has & _VTCR else None
            )
