"""Memory of any world, in the way of GDB's ``x``: of a guest, of EL1 while EL2 runs, by VA, IPA or PA."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from gdbhyp.analyses.walk import assumed_features, assumed_regime, machine_for, regime_of
from gdbhyp.arch.examine import Format, string_text, unit_text
from gdbhyp.arch.regimes import Regime
from gdbhyp.arch.spaces import Address
from gdbhyp.engine.machine import Reader
from gdbhyp.engine.stop import Stop
from gdbhyp.engine.translate import Stage2Reader
from gdbhyp.engine.virtual import VirtualReader
from gdbhyp.errors import MemoryUnavailable

Disassemble = Callable[[bytes, int], "list[str] | None"]
Space = Literal["VA", "IPA", "PA"]

_LONGEST_STRING = 200
_READ_AHEAD = 64


@dataclass(frozen=True)
class Row:
    """Units that stand at ``address`` and behind; ``values`` are as the format shows them."""

    address: Address
    values: tuple[str, ...]


@dataclass(frozen=True)
class ExamineReport:
    """What memory holds; ``problems`` say from where on it could not be read."""

    kind: ClassVar[str] = "examine"
    csv_rows: ClassVar[str] = "rows"

    space: str
    regime: Regime | None
    format: str
    rows: tuple[Row, ...]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Question:
    """``format`` of what is at ``address`` of ``space``; ``regime`` None is the current one, and is that of VAs."""

    address: int
    format: Format
    space: Space = "VA"
    regime: Regime | None = None


def examine(stop: Stop, question: Question, disassemble: Disassemble) -> ExamineReport:
    """Read memory through the tables of a stopped CPU.

    :raises MemoryUnavailable: if not even the first unit can be read.
    :raises RegisterUnavailable: if a register is not shown without which a translation would be a guess.
    """
    regime = (question.regime or regime_of(stop)) if question.space == "VA" else None
    memory = _memory(stop, question.space, regime)
    rows: list[Row] = []
    problems = _assumed(stop, question, regime)
    try:
        rows.extend(_rows(memory, question, disassemble))
    except _Cut as cut:
        if not cut.before:
            raise cut.error from None
        rows.extend(cut.before)
        problems.append(str(cut.error))
    return ExamineReport(question.space, regime, question.format.letter, tuple(rows), tuple(problems))


def _assumed(stop: Stop, question: Question, regime: Regime | None) -> list[str]:
    """Return in sentences what is taken for granted of the translation."""
    if question.space == "PA":
        return []
    current = question.space == "VA" and question.regime is None
    stages = "both" if question.space == "VA" else "2"
    features = assumed_features(stop.machine, regime or Regime.EL10, stages)
    return [*filter(None, (assumed_regime(stop) if current else None, features))]


def _memory(stop: Stop, space: Space, regime: Regime | None) -> Reader:
    if space == "PA":
        return stop.machine.memory
    if space == "IPA":
        return Stage2Reader(machine_for(stop.machine, Regime.EL10, "2"))
    assert regime is not None
    return VirtualReader(machine_for(stop.machine, regime, "both"), regime)


class _Cut(Exception):
    """Memory ended; ``before`` is what could be read."""

    def __init__(self, before: list[Row], error: MemoryUnavailable) -> None:
        self.before = before
        self.error = error


def _rows(memory: Reader, question: Question, disassemble: Disassemble) -> list[Row]:
    if question.format.letter == "s":
        return _whole(_strings(memory, question))
    units = _units(memory, question)
    size, columns = question.format.size, question.format.columns
    values = _values(b"".join(units), question, disassemble)
    rows = [
        Row(Address(question.address + size * at), tuple(values[at : at + columns]))
        for at in range(0, len(values), columns)
    ]
    if len(values) < question.format.count:
        missing = question.address + size * len(values)
        try:
            memory.read(missing, size)
        except MemoryUnavailable as error:
            raise _Cut(rows, error) from None
    return rows


def _units(memory: Reader, question: Question) -> Iterator[bytes]:
    """Yield units as far as memory goes; what is in one piece is read in one."""
    size, count = question.format.size, question.format.count
    try:
        yield memory.read(question.address, size * count)
        return
    except MemoryUnavailable:
        pass
    for number in range(count):
        try:
            unit = memory.read(question.address + size * number, size)
        except MemoryUnavailable:
            return
        yield unit


def _values(data: bytes, question: Question, disassemble: Disassemble) -> list[str]:
    size, letter = question.format.size, question.format.letter
    if letter == "i":
        lines = disassemble(data, question.address) if data else []
        if lines is not None:
            return lines
        return [f".inst {unit_text(data[at : at + 4], 'x')}" for at in range(0, len(data), 4)]
    return [unit_text(data[at : at + size], letter) for at in range(0, len(data), size)]


def _strings(memory: Reader, question: Question) -> Iterator[Row]:
    at = question.address
    for _ in range(question.format.count):
        text = _string(memory, at)
        yield Row(Address(at), (string_text(text) + ("..." if len(text) == _LONGEST_STRING else ""),))
        at += len(text) + (len(text) < _LONGEST_STRING)


def _string(memory: Reader, at: int) -> bytes:
    text = bytearray()
    while len(text) < _LONGEST_STRING:
        part = _some(memory, at + len(text))
        end = part.find(0)
        if end >= 0:
            return bytes(text + part[:end])[:_LONGEST_STRING]
        text += part
    return bytes(text[:_LONGEST_STRING])


def _some(memory: Reader, at: int) -> bytes:
    """Return bytes from ``at`` up to the next multiple of what is read at a time."""
    return memory.read(at, _READ_AHEAD - at % _READ_AHEAD)


def _whole(rows: Iterator[Row]) -> list[Row]:
    """Return all rows; what goes before a row that cannot be read is not lost."""
    found: list[Row] = []
    try:
        for row in rows:
            found.append(row)  # noqa: PERF402 a comprehension would lose what was read before an error
    except MemoryUnavailable as error:
        raise _Cut(found, error) from None
    return found
