"""Symbols at the addresses where code runs, for whoever can use them: GDB, or a file."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gdbhyp.arch.regimes import Regime
from gdbhyp.arch.spaces import VA
from gdbhyp.engine.walk import setup

CODE = "tTwW"
"""The types, as ``nm`` prints them, that functions have."""

_SAFE = re.compile(r"[A-Za-z_$.][A-Za-z0-9_$.]{0,511}")


class Listed(NamedTuple):
    """A symbol as an image lists it, at any address; ``kind`` is its type as ``nm`` prints it."""

    name: str
    address: int
    kind: str


class RunSymbol(NamedTuple):
    """A symbol where it runs, with its size in bytes; ``section`` counts sections from 0."""

    name: str
    address: VA
    size: int
    section: int
    code: bool
    local: bool


@dataclass(frozen=True)
class Section:
    """``start`` to ``end`` (exclusive) of memory that symbols stand in; ``image`` is where the image has it.

    ``bits`` is the size of virtual addresses there.
    """

    name: str
    start: VA
    end: VA
    executable: bool
    image: VA
    bits: int


@dataclass(frozen=True)
class CodeRange:
    """Code from ``start`` to ``end`` (exclusive), whose functions begin at ``functions``, ascending.

    ``bits`` is the size of its addresses: what is above them in a return address is a pointer's signature.
    """

    start: int
    end: int
    functions: tuple[int, ...]
    bits: int


@dataclass(frozen=True)
class SymbolSet:
    """Symbols and the sections they are in; ``how`` says where they come from, ``problems`` what is missing."""

    sections: tuple[Section, ...]
    symbols: tuple[RunSymbol, ...]
    how: tuple[str, ...]
    problems: tuple[str, ...] = ()

    def code(self) -> Iterator[CodeRange]:
        """Yield the sections that hold code, with where their functions begin."""
        functions: dict[int, list[int]] = {}
        for symbol in self.symbols:
            if symbol.code and symbol.size:
                functions.setdefault(symbol.section, []).append(symbol.address)
        for number, section in enumerate(self.sections):
            if section.executable and number in functions:
                yield CodeRange(section.start, section.end, tuple(functions[number]), section.bits)


def virtual_bits(get: Callable[[str], int | None], regime: Regime, *, upper: bool) -> int:
    """Return the size in bits of the virtual addresses of a regime's lower or upper range."""
    return 64 - setup(get, regime).half(upper=upper).txsz


def placed(
    listed: Sequence[Listed],
    sections: Iterable[Section],
    first: int = 0,
    suffix: str = "",
    *,
    sized_data: bool = True,
) -> Iterator[RunSymbol]:
    """Yield ``listed`` symbols, in ascending order, where the sections have them.

    A symbol ends where the next one begins, or with its section; of several at one address, the first has the size, as
    the image prefers it, and the others none. Where the list is known to lack data, ``sized_data`` is False and data
    has one byte, so that what follows is not taken for a part of it. Sections count from ``first``; ``suffix`` goes
    behind each name. Names that are no identifiers are left out: they come from a target's memory.
    """
    addresses = [row.address for row in listed]
    for number, section in enumerate(sections, first):
        behind = section.image + section.end - section.start
        position, before = bisect_left(addresses, section.image), None
        while position < len(listed) and addresses[position] < behind:
            name, address, kind = listed[position]
            position += 1
            if not _SAFE.fullmatch(name):
                continue
            where = VA(section.start + address - section.image)
            code = kind in CODE
            size = 0
            if address != before:
                size = _end(addresses, position, address, behind) - address if code or sized_data else 1
            before = address
            yield RunSymbol(name + suffix, where, size, number, code, kind.islower())


def _end(addresses: Sequence[int], position: int, address: int, limit: int) -> int:
    """Return the first address from ``position`` on that is behind ``address``, or ``limit``."""
    while position < len(addresses) and addresses[position] == address:
        position += 1
    return min(addresses[position], limit) if position < len(addresses) else limit


def joined(first: SymbolSet, second: SymbolSet) -> SymbolSet:
    """Return the symbols of both; the second's sections count on."""
    shift = len(first.sections)
    moved = (symbol._replace(section=symbol.section + shift) for symbol in second.symbols)
    return SymbolSet(
        (*first.sections, *second.sections),
        (*first.symbols, *moved),
        (*first.how, *second.how),
        (*first.problems, *second.problems),
    )
