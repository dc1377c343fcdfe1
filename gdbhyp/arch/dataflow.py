"""What straight A64 code loads from where and stores where, in terms of constants, its arguments and its stack.

A compiled function tells where the fields are that it uses. ``ldr x1, [x0, #16]; ldr x2, [x1, #568]; msr vttbr_el2,
x2`` says that its argument points to an object whose pointer at 16 leads to another one, which holds VTTBR_EL2 at 568;
``mrs x0, vbar_el1; str x0, [x19, #784]`` that VBAR_EL1 is saved at 784 of what x19 points to.
Code is read from the first instruction to the last, whatever it branches to, so that what is found is a candidate:
whoever uses it has to check it on data.

Source of encodings: Arm ARM (DDI 0487), C4.1 "A64 instruction set encoding".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gdbhyp.arch.fields import Bits, bit


@dataclass(frozen=True)
class Value:
    """``origin`` plus ``offset``; a constant without origin."""

    origin: Origin | None
    offset: int

    @property
    def constant(self) -> int | None:
        """The value itself, None if it depends on an argument or on memory."""
        return self.offset if self.origin is None else None

    def plus(self, distance: int) -> Value:
        return Value(self.origin, self.offset + distance)


@dataclass(frozen=True)
class Argument:
    """What register ``number`` held when the function began."""

    number: int


@dataclass(frozen=True)
class Loaded:
    """What ``size`` bytes of memory at ``address`` hold."""

    address: Value
    size: int


@dataclass(frozen=True)
class Element:
    """An element of ``size`` bytes of an array: its index is not known."""

    array: Value
    size: int


@dataclass(frozen=True)
class Stack:
    """What SP held when the function began."""


@dataclass(frozen=True)
class SystemRead:
    """What ``MRS`` read; ``encoding`` is (op0, op1, CRn, CRm, op2)."""

    encoding: tuple[int, int, int, int, int]


Origin = Argument | Loaded | Element | Stack | SystemRead


@dataclass(frozen=True)
class Stored:
    """``size`` bytes of ``value`` (None where it is not known) go to memory at ``address``."""

    address: Value
    size: int
    value: Value | None


@dataclass(frozen=True)
class SystemWrite:
    """``MSR register, value``; ``encoding`` is (op0, op1, CRn, CRm, op2)."""

    encoding: tuple[int, int, int, int, int]
    value: Value | None


@dataclass(frozen=True)
class Call:
    """``BL target``; also ``B``, which ends a function that calls another one at last."""

    target: int


Fact = Loaded | Element | Stored | SystemWrite | Call

_RD, _RN, _RM, _RT2 = Bits(4, 0), Bits(9, 5), Bits(20, 16), Bits(14, 10)
_IMM12, _IMM16, _IMM19, _IMM26, _IMM9 = Bits(21, 10), Bits(20, 5), Bits(23, 5), Bits(25, 0), Bits(20, 12)
_IMMLO, _HW, _SHIFT12, _SIZE, _WIDE = Bits(30, 29), Bits(22, 21), bit(22), Bits(31, 30), bit(31)
_LOAD, _EXCLUSIVE_STATUS = bit(22), Bits(20, 16)
_ZERO = 31
# The procedure call standard lets a called function change these.
_CALLER_SAVED = range(19)


def facts(code: bytes, address: int) -> Iterator[Fact]:
    """Yield what the instructions of ``code``, which stands at ``address``, load, write to registers, and call."""
    registers = _Registers()
    for at in range(0, len(code) // 4 * 4, 4):
        word = int.from_bytes(code[at : at + 4], "little")
        yield from _step(registers, word, address + at)


class _Registers:
    """Values by number; what 31 is, the zero register or SP (``address``), an instruction says."""

    def __init__(self) -> None:
        self._values: dict[int, Value | None] = {n: Value(Argument(n), 0) for n in range(31)}
        self._stack: Value | None = Value(Stack(), 0)

    def get(self, number: int) -> Value | None:
        return Value(None, 0) if number == _ZERO else self._values.get(number)

    def set(self, number: int, value: Value | None) -> None:
        if number != _ZERO:
            self._values[number] = value

    def address(self, number: int) -> Value | None:
        """Return a register that 31 means SP for: the base of a load or store, or an operand of ADD and SUB."""
        return self._stack if number == _ZERO else self._values.get(number)

    def set_address(self, number: int, value: Value | None) -> None:
        if number == _ZERO:
            self._stack = value
        else:
            self._values[number] = value


def _step(registers: _Registers, word: int, pc: int) -> Iterator[Fact]:
    group = word >> 25 & 0xF
    if group in (0b1000, 0b1001):
        set_value = registers.set_address if _adds(word) or _is_logical(word) else registers.set
        set_value(_RD(word), _immediate(registers, word, pc))
    elif group in (0b0101, 0b1101):
        registers.set(_RD(word), _moved(registers, word))
    elif group in (0b1010, 0b1011):
        yield from _branch(registers, word, pc)
    elif group & 0b0101 == 0b0100:
        yield from _memory(registers, word, pc)


def _adds(word: int) -> bool:
    """Return whether this is ADD or SUB with an immediate, which can write SP; those that set flags cannot."""
    return word & 0x3F80_0000 == 0x1100_0000


def _is_logical(word: int) -> bool:
    """Return whether this is AND, ORR or EOR with an immediate, which can write SP; ANDS cannot."""
    return word & 0x1F80_0000 == 0x1200_0000 and word >> 29 & 3 != 3


def _immediate(registers: _Registers, word: int, pc: int) -> Value | None:
    """Data processing with an immediate: ADR, ADRP, ADD, SUB, MOVZ, MOVN and MOVK."""
    if word & 0x1F00_0000 == 0x1000_0000:
        distance = _signed(_IMM19(word) << 2 | _IMMLO(word), 21)
        page = bool(_WIDE(word))
        return Value(None, (pc & ~0xFFF) + (distance << 12) if page else pc + distance)
    if word & 0xBF80_0000 == 0x9100_0000:
        distance = _IMM12(word) << (12 if _SHIFT12(word) else 0)
        source = registers.address(_RN(word))
        return None if source is None else source.plus(-distance if bit(30)(word) else distance)
    if word & 0x1F80_0000 == 0x1280_0000:
        return _wide_move(registers, word)
    return None


def _wide_move(registers: _Registers, word: int) -> Value | None:
    shift, immediate, kind = 16 * _HW(word), _IMM16(word), _IMMLO(word)
    limit = (1 << 64) - 1 if _WIDE(word) else (1 << 32) - 1
    if kind == 0b10:
        return Value(None, immediate << shift)
    if kind == 0b00:
        return Value(None, ~(immediate << shift) & limit)
    before = registers.get(_RD(word))
    if before is None or before.constant is None:
        return None
    return Value(None, (before.constant & ~(0xFFFF << shift) | immediate << shift) & limit)


def _moved(registers: _Registers, word: int) -> Value | None:
    """Data processing with registers: only MOV (ORR Xd, XZR, Xm) keeps a value."""
    if word & 0xFFE0_FFE0 == 0xAA00_03E0:
        return registers.get(_RM(word))
    return None


def _branch(registers: _Registers, word: int, pc: int) -> Iterator[Fact]:
    if word & 0x7C00_0000 == 0x1400_0000:
        yield Call(pc + (_signed(_IMM26(word), 26) << 2))
    if word & 0xFC00_0000 == 0x9400_0000 or word & 0xFFFF_FC1F == 0xD63F_0000:
        for number in (*_CALLER_SAVED, 30):
            registers.set(number, None)
    elif word & 0xFFF0_0000 == 0xD510_0000:
        yield SystemWrite(_encoding(word), registers.get(_RD(word)))
    elif word & 0xFFF0_0000 == 0xD530_0000:
        registers.set(_RD(word), Value(SystemRead(_encoding(word)), 0))
    elif word & 0xFFF0_0000 == 0xD520_0000:
        registers.set(_RD(word), None)


def _encoding(word: int) -> tuple[int, int, int, int, int]:
    """Return what MSR or MRS names: bits [19:5] are op0[0], op1, CRn, CRm, op2."""
    first = 2 + Bits(19, 19)(word), Bits(18, 16)(word)
    return (*first, Bits(15, 12)(word), Bits(11, 8)(word), Bits(7, 5)(word))


def _memory(registers: _Registers, word: int, pc: int) -> Iterator[Fact]:
    """Loads and stores: of general-purpose registers, the others by what they may change alone."""
    if word & 0x3B00_0000 == 0x1800_0000:
        if not bit(26)(word):
            size = 8 if _SIZE(word) == 1 else 4
            yield from _load(registers, _RD(word), Value(None, pc + (_signed(_IMM19(word), 19) << 2)), size)
    elif word & 0x3A00_0000 == 0x2800_0000:
        yield from _pair(registers, word)
    elif word & 0x3800_0000 == 0x3800_0000:
        yield from _single(registers, word)
    elif word & 0x3F00_0000 == 0x0800_0000 and not bit(26)(word):
        # Exclusives and acquire or release: a load's result, or a store's status.
        registers.set(_RD(word) if _LOAD(word) else _EXCLUSIVE_STATUS(word), None)


def _pair(registers: _Registers, word: int) -> Iterator[Fact]:
    base, mode = registers.address(_RN(word)), Bits(24, 23)(word)
    size = 4 << (_SIZE(word) >> 1)
    distance = _signed(Bits(21, 15)(word), 7) * size
    start = None if base is None else base if mode == 0b01 else base.plus(distance)
    for number, at in ((_RD(word), 0), (_RT2(word), size)) if not bit(26)(word) else ():
        address = None if start is None else start.plus(at)
        if _LOAD(word):
            yield from _load(registers, number, address, size)
        elif address is not None:
            yield Stored(address, size, registers.get(number))
    if mode in (0b01, 0b11):
        registers.set_address(_RN(word), None if base is None else base.plus(distance))


def _single(registers: _Registers, word: int) -> Iterator[Fact]:
    size, vector, operation = 1 << _SIZE(word), bit(26)(word), Bits(23, 22)(word)
    loads = operation != 0 and not vector and not (size == 8 and operation == 0b10)
    stores = operation == 0 and not vector
    base = registers.address(_RN(word))
    if bit(24)(word):
        address = None if base is None else base.plus(_IMM12(word) * size)
        if loads:
            yield from _load(registers, _RD(word), address, size)
        elif stores and address is not None:
            yield Stored(address, size, registers.get(_RD(word)))
        return
    kind = Bits(11, 10)(word)
    if bit(21)(word):
        if kind == 0b10 and loads:
            yield from _element(registers, word, size)
        elif kind == 0b00 and not vector:
            registers.set(_RD(word), None)  # an atomic operation returns what was there
        return
    distance = _signed(_IMM9(word), 9)
    address = None if base is None else base if kind == 0b01 else base.plus(distance)
    if loads:
        yield from _load(registers, _RD(word), address, size)
    elif stores and address is not None:
        yield Stored(address, size, registers.get(_RD(word)))
    if kind in (0b01, 0b11):
        registers.set_address(_RN(word), None if base is None else base.plus(distance))


def _element(registers: _Registers, word: int, size: int) -> Iterator[Fact]:
    array = registers.address(_RN(word))
    if array is None:
        registers.set(_RD(word), None)
        return
    found = Element(array, size)
    registers.set(_RD(word), Value(found, 0))
    yield found


def _load(registers: _Registers, number: int, address: Value | None, size: int) -> Iterator[Fact]:
    if address is None:
        registers.set(number, None)
        return
    found = Loaded(address, size)
    registers.set(number, Value(found, 0))
    yield found


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> bits - 1 else value
