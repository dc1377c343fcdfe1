"""System registers by field: what a value says, bit by bit, and what it traps.

The layouts are text, ``data/registers.txt``, which says its own format and sources. It is read when the first
register is described, and only the registers that are asked for are parsed.

>>> describe("HCR_EL2", 1 << 27).notable[0].long_name
'Trap General Exceptions'
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from gdbhyp.arch import data, registers_kinds, registers_notes
from gdbhyp.arch.spaces import Word
from gdbhyp.errors import UsageError


@dataclass(frozen=True)
class RegisterField:
    """Bits [msb:lsb] of a register hold ``value``, which means ``text``; "" where the table has no words
    for it.

    ``default`` is the value that asks for nothing special: what the field holds when nobody set it.
    ``feature`` is the extension that adds the field, "" where that is the base architecture or not known.
    Bits that no field names and that are not zero have the name "RES0".
    """

    name: str
    msb: int
    lsb: int
    value: int
    text: str
    long_name: str
    default: int
    feature: str


@dataclass(frozen=True)
class RegisterView:
    """A register's value by field, in descending bit order; every bit that is not zero is in a field.

    ``layout`` says which of several layouts was used ("E2H" for HCR_EL2.E2H = 1), "" where there is one;
    ``note`` says in a line what the fields say together, "" where that is nothing more.
    """

    name: str
    value: Word
    long_name: str
    layout: str
    note: str
    fields: tuple[RegisterField, ...]

    @property
    def notable(self) -> tuple[RegisterField, ...]:
        """The fields that do not hold their default."""
        return tuple(field for field in self.fields if field.value != field.default)


@dataclass(frozen=True)
class FieldLayout:
    """A field as the table declares it.

    ``meanings`` maps values to words and ``traps`` values to what they trap; ``kind`` names a function of
    ``registers_kinds`` that makes the words instead, "" where there is none.
    """

    name: str
    msb: int
    lsb: int
    long_name: str
    feature: str
    default: int
    kind: str
    meanings: Mapping[int, str]
    traps: Mapping[int, str]

    @property
    def mask(self) -> int:
        """The field's bits, at their place in the register."""
        return (1 << self.msb + 1) - (1 << self.lsb)

    def of(self, value: int) -> int:
        """Return this field of a register's value."""
        return (value & self.mask) >> self.lsb

    def text(self, value: int, register: int) -> str:
        """Return what the field's value means in a register that holds ``register``."""
        if value in self.traps:
            return f"traps {self.traps[value]}"
        if value in self.meanings:
            return self.meanings[value]
        if self.kind:
            return registers_kinds.words(self.kind, value, register)
        return "reserved" if len(self.meanings) > 2 else ""


@dataclass(frozen=True)
class RegisterLayout:
    """A register as the table declares it; ``fields`` are in descending bit order."""

    name: str
    layout: str
    long_name: str
    groups: tuple[str, ...]
    fields: tuple[FieldLayout, ...]


def describe(name: str, value: int, *, e2h: bool = False) -> RegisterView:
    """Return ``value`` of the register ``name`` by field.

    ``name`` is the architectural one in any case, or an alias (``TCR_EL12``); ``e2h`` is HCR_EL2.E2H, which
    chooses between the layouts of CPTR_EL2, TCR_EL2 and CNTHCTL_EL2. A register that exists and has no
    fields in the table is shown as one.

    :raises UsageError: if no register is called so, or ``value`` does not fit 64 bits.
    """
    if not 0 <= value < 1 << 64:
        raise UsageError(f"{value:#x} is not the value of a 64-bit register")
    register = layout_of(name, value, e2h=e2h)
    fields = []
    rest = value
    for field in register.fields:
        number = field.of(value)
        rest &= ~field.mask
        fields.append(
            RegisterField(
                *(field.name, field.msb, field.lsb, number, field.text(number, value)),
                *(field.long_name, field.default, field.feature),
            )
        )
    fields.extend(_reserved(rest))
    fields.sort(key=lambda each: -each.msb)
    note = registers_notes.note(register.name, value)
    return RegisterView(register.name, Word(value), register.long_name, register.layout, note, tuple(fields))


def _reserved(rest: int) -> list[RegisterField]:
    """Return the runs of set bits that no field has."""
    found = []
    while rest:
        lsb = (rest & -rest).bit_length() - 1
        msb = lsb
        while rest >> msb + 1 & 1:
            msb += 1
        number = (1 << msb - lsb + 1) - 1
        rest &= ~(number << lsb)
        found.append(RegisterField("RES0", msb, lsb, number, _RES0, "Reserved", 0, ""))
    return found


_RES0 = "reserved, or newer than this table"


def compose(name: str, value: int, fields: Mapping[str, int], *, e2h: bool = False) -> int:
    """Return ``value`` of a register with some fields, by name in any case, replaced.

    >>> hex(compose("HCR_EL2", 0x1, {"TGE": 1, "VM": 0}))
    '0x8000000'

    :raises UsageError: if the register has no such field, or a value does not fit it.
    """
    layout = layout_of(name, value, e2h=e2h)
    for wanted, number in fields.items():
        field = next((each for each in layout.fields if each.name.upper() == wanted.upper()), None)
        if field is None:
            raise UsageError(f"{layout.name} has no field {wanted}")
        if not 0 <= number <= field.mask >> field.lsb:
            raise UsageError(
                f"{layout.name}.{field.name} has {field.msb - field.lsb + 1} bits, {number:#x} does not fit"
            )
        value = value & ~field.mask | number << field.lsb
    return value


def trapped_by(name: str, value: int, *, e2h: bool = False) -> list[str]:
    """Return what this value of a trap register traps to EL2, a sentence a field, from the highest bit down.

    >>> trapped_by("ICH_HCR_EL2", 1 << 14)
    ['TDIR: writes of ICC_DIR_EL1 at EL1']

    :raises UsageError: as ``describe``.
    """
    found = []
    for field in layout_of(name, value, e2h=e2h).fields:
        number = field.of(value)
        if number in field.traps:
            condition = f" (with {field.feature})" if number == 0 and field.feature else ""
            found.append(f"{field.name}: {field.traps[number]}{condition}")
    return found


def register_names(group: str | None = None) -> tuple[str, ...]:
    """Return the names of the registers that the table has by field, of one group or all, in the table's
    order.

    An array of registers is one name, ``"ICH_LR<n>_EL2"``.
    """
    names = (header.name for header in _headers().values() if not group or group in header.groups)
    return tuple(dict.fromkeys(names))


def groups() -> tuple[str, ...]:
    """Return the names of the groups."""
    return tuple(dict.fromkeys(group for header in _headers().values() for group in header.groups))


def layout_of(name: str, value: int = 0, *, e2h: bool = False) -> RegisterLayout:
    """Return the layout of a register; ``value`` chooses where the layout depends on it (PAR_EL1.F).

    :raises UsageError: if no register is called so.
    """
    upper = name.strip().upper()
    for candidate in _candidates(upper):
        for variant in _variants(candidate, value, e2h):
            if variant in _headers():
                return _renamed(_parse(variant), upper)
    return _without_fields(upper)


def _variants(name: str, value: int, e2h: bool) -> list[str]:
    if name == "PAR_EL1" and value & 1:
        return [f"{name}/fault"]
    if name in ("SPSR_EL1", "SPSR_EL2", "SPSR_EL3", "CPSR") and value & 0x10:
        return [f"{name}/aarch32"]
    if name == "CCSIDR_EL1" and value >> 32:
        return [f"{name}/CCIDX"]
    return [f"{name}/E2H", name] if e2h else [name]


# Accessors of EL1 and EL0 registers from EL2 with HCR_EL2.E2H = 1 end in EL12 and EL02.
_ALIASES = (("_EL12", "_EL1"), ("_EL02", "_EL0"))


def _candidates(name: str) -> list[str]:
    """Return the table's names that may hold a register: itself, the one it is an alias of, its array."""
    found = [name]
    for ending, original in _ALIASES:
        if name.endswith(ending):
            found.append(name.removesuffix(ending) + original)
    found.extend(re.sub(r"\d+(?=_EL\d$)", "<N>", each) for each in tuple(found))
    return found


def _renamed(layout: RegisterLayout, name: str) -> RegisterLayout:
    return RegisterLayout(name, layout.layout, layout.long_name, layout.groups, layout.fields)


def _without_fields(name: str) -> RegisterLayout:
    from gdbhyp.arch import sysregs

    if sysregs.encoding_of(name) is None:
        raise UsageError(f"no system register is called {name}{_suggestion(name)}")
    field = FieldLayout(name, 63, 0, "", "", 0, "hex", {}, {})
    return RegisterLayout(name, "", "", (), (field,))


def _suggestion(name: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, register_names(), n=1)
    return f"; perhaps {close[0]} is meant" if close else ""


@cache
def _text() -> str:
    return data.text("registers.txt")


class _Header(NamedTuple):
    """Where a block of the table starts, and what its first line says."""

    start: int
    name: str
    groups: tuple[str, ...]


@cache
def _headers() -> dict[str, _Header]:
    """Return the first line of each block, by ``NAME`` or ``NAME/LAYOUT`` with the name in upper case."""
    found = {}
    for match in re.finditer(r"^= ([^ ]+) \|[^|\n]*\|([^\n]*)$", _text(), re.MULTILINE):
        name, slash, layout = match[1].partition("/")
        groups = tuple(match[2].replace(",", " ").split())
        found[name.upper() + slash + layout] = _Header(match.start(), name, groups)
    return found


@cache
def macros() -> dict[str, str]:
    """Return the meanings that the table shares between fields, by their name."""
    return dict(re.findall(r"^@(\w+) (.+)$", _text(), re.MULTILINE))


@cache
def _parse(key: str) -> RegisterLayout:
    start, _, members = _headers()[key]
    text = _text()
    end = text.find("\n\n", start)
    header, *lines = text[start : end if end >= 0 else len(text)].splitlines()
    name, long_name, _ = (part.strip() for part in header[2:].split("|", 2))
    name, _, layout = name.partition("/")
    fields = [_parse_field(line, name) for line in lines if line[0] not in "#%"]
    taken = sum(field.mask for field in fields)
    for line in lines:
        if line.startswith("%"):
            fields.extend(field for field in _parse(line[1:]).fields if not field.mask & taken)
    fields.sort(key=lambda each: -each.msb)
    return RegisterLayout(name, layout, long_name, members, tuple(fields))


def _parse_field(line: str, register: str) -> FieldLayout:
    """Parse ``BITS NAME[=DEFAULT] [| LONG NAME [| MEANINGS [| FEATURE]]]``."""
    head, long_name, words, feature = (part.strip() for part in (line + "|||").split("|")[:4])
    bits, name = head.split(None, 1)
    name, _, default = name.partition("=")
    msb, _, lsb = bits.partition(":")
    kind, meanings, traps = _parse_meanings(words)
    if not words and (rule := registers_kinds.trap_rule(register)):
        long_name, traps = rule(name)
    return FieldLayout(
        *(name, int(msb), int(lsb or msb), long_name, feature, int(default or "0", 0), kind, meanings, traps)
    )


def _parse_meanings(words: str) -> tuple[str, dict[int, str], dict[int, str]]:
    """Parse ``VALUE=MEANING; VALUE!WHAT IT TRAPS; …``, ``~KIND`` or ``@MACRO`` to kind, meanings, traps."""
    if words.startswith("@"):
        words = macros()[words[1:]]
    if words.startswith("~"):
        return words[1:], {}, {}
    meanings: dict[int, str] = {}
    traps: dict[int, str] = {}
    for item in filter(None, (part.strip() for part in words.split(";"))):
        values = item[: len(item) - len(item.lstrip("0123456789,"))]
        target = traps if item[len(values)] == "!" else meanings
        for number in values.split(","):
            target[int(number)] = item[len(values) + 1 :]
    return "", meanings, traps
