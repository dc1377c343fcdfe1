"""ESR_EL1, ESR_EL2 and ESR_EL3 in words: every field, the trapped instruction, and one line that says what
happened.

The encodings are data in ``gdbhyp.arch.syndrome_tables``; the sentences are made in
``gdbhyp.arch.syndrome_summary``.

>>> decode_esr(0x93c58045).summary
'guest write of 8 bytes from x5 (stage-2 translation fault, level 1)'
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from gdbhyp.arch.spaces import Word
from gdbhyp.arch.syndrome_context import NOTHING_KNOWN, SyndromeContext
from gdbhyp.arch.syndrome_summary import Abort, explain
from gdbhyp.arch.syndrome_tables import (
    CLASSES,
    EC,
    IL,
    ISS2_LAYOUTS,
    LAYOUTS,
    RESERVED_CLASS,
    ClassInfo,
    Field,
    layout_key,
)

__all__ = ["Abort", "ExceptionClass", "FieldValue", "Syndrome", "SyndromeContext", "decode_esr"]


@dataclass(frozen=True)
class FieldValue:
    """A field as decoded: bits [msb:lsb] of the ESR hold ``value``, which means ``text``.

    Bits that no field names and that are not zero have the name "RES0".
    """

    name: str
    msb: int
    lsb: int
    value: int
    text: str
    long_name: str


@dataclass(frozen=True)
class ExceptionClass:
    """ESR_ELx.EC: its number and what it is called."""

    value: int
    name: str


@dataclass(frozen=True)
class Syndrome:
    """A decoded ESR_EL<el>.

    ``fields`` holds every field of the encoding in force, of ISS2, EC, IL and ISS, in descending bit order;
    ``encoding`` names the ISS encoding ("DABT", "SYS64", …). ``instruction`` is what was executed where the
    syndrome says it. ``system_register`` is the register or system instruction of a trapped access,
    ``call`` the SMCCC function or hypervisor's own call of an HVC or SMC, ``immediate`` that of SVC, HVC,
    SMC, BRK or BKPT.
    """

    esr: Word
    el: int
    ec: ExceptionClass
    il: int
    iss: Word
    iss2: Word
    encoding: str
    fields: tuple[FieldValue, ...]
    summary: str
    instruction: str | None = None
    system_register: str | None = None
    call: str | None = None
    immediate: int | None = None
    abort: Abort | None = None

    def field(self, name: str) -> int | None:
        """Return the value of the field ``name``, None when the encoding in force has none of that name."""
        return next((each.value for each in self.fields if each.name == name), None)


def decode_esr(value: int, *, el: int = 2, context: SyndromeContext | None = None) -> Syndrome:
    """Decode ``value`` of ESR_EL<el>, any 64-bit number; reserved and unallocated encodings are shown as
    such.

    :raises ValueError: if ``value`` is not a 64-bit number or ``el`` is not 1, 2 or 3.
    """
    if not 0 <= value < 1 << 64 or not 1 <= el <= 3:
        raise ValueError(f"not a value of ESR_EL1, ESR_EL2 or ESR_EL3: {value:#x} at EL{el}")
    number = value >> 26 & 0x3F
    info = CLASSES.get(number, RESERVED_CLASS)
    layout = _layout(number, layout_key(info.encoding, value & 0x1FF_FFFF), el)
    facts = explain(value, el, info, context or NOTHING_KNOWN)
    return Syndrome(
        esr=Word(value),
        el=el,
        ec=layout.exception_class,
        il=value >> 25 & 1,
        iss=Word(value & 0x1FF_FFFF),
        iss2=Word(value >> 32 & 0xFF_FFFF),
        encoding=info.encoding,
        fields=layout.decode(value),
        summary=facts.summary,
        instruction=facts.instruction,
        system_register=facts.system_register,
        call=facts.call,
        immediate=facts.immediate,
        abort=facts.abort,
    )


_CACHED_WIDTH = 6


class _Layout:
    """The fields of one encoding, ready to be applied; the values of narrow fields are made once and kept."""

    def __init__(self, exception_class: ExceptionClass, fields: tuple[Field, ...]) -> None:
        self.exception_class = exception_class
        self._fields = [
            (field, field.lsb, (1 << field.msb - field.lsb + 1) - 1, self._store(field)) for field in fields
        ]
        self._reserved = (1 << 64) - 1
        for _, lsb, mask, _ in self._fields:
            self._reserved &= ~(mask << lsb)

    @staticmethod
    def _store(field: Field) -> dict[int, FieldValue] | None:
        return {} if field.msb - field.lsb < _CACHED_WIDTH else None

    def decode(self, value: int) -> tuple[FieldValue, ...]:
        found = []
        for field, lsb, mask, made in self._fields:
            number = value >> lsb & mask
            if made is None:
                found.append(_field_value(field, number))
                continue
            known = made.get(number)
            if known is None:
                known = made[number] = _field_value(field, number)
            found.append(known)
        if value & self._reserved:
            found.extend(_reserved_bits(value, self._reserved))
            found.sort(key=lambda each: -each.msb)
        return tuple(found)


def _field_value(field: Field, value: int) -> FieldValue:
    meaning = field.meaning
    if meaning is None:
        text = f"{value:#x}"
    elif callable(meaning):
        text = meaning(value)
    else:
        text = meaning.get(value, "reserved or newer than this table")
    return FieldValue(field.name, field.msb, field.lsb, value, text, field.long_name)


def _reserved_bits(value: int, reserved: int) -> Iterator[FieldValue]:
    """Yield the runs of ``reserved`` bits in which ``value`` is not zero."""
    lsb = 0
    while reserved >> lsb:
        if not reserved >> lsb & 1:
            lsb += 1
            continue
        msb = lsb
        while reserved >> msb + 1 & 1:
            msb += 1
        number = value >> lsb & (1 << msb - lsb + 1) - 1
        if number:
            text = f"{number:#x}: reserved, should be zero, or newer than this table"
            yield FieldValue("RES0", msb, lsb, number, text, "Reserved")
        lsb = msb + 1


@cache
def _layout(number: int, key: str, el: int) -> _Layout:
    info: ClassInfo = CLASSES.get(number, RESERVED_CLASS)
    name = info.name if str(el) in info.levels else f"{info.name} (not possible at EL{el})"
    fields = (
        *ISS2_LAYOUTS.get(info.encoding, ()),
        EC._replace(meaning={number: name}),
        *(IL, *LAYOUTS[key]),
    )
    return _Layout(ExceptionClass(number, name), fields)
