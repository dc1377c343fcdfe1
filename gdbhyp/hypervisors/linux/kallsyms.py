"""kallsyms: the table of symbols that a Linux kernel carries in its read-only data.

The kernel's build writes it (scripts/kallsyms.c). A name is a length and that many tokens; a token stands for a string
of ``kallsyms_token_table``; the first character of an expanded name is the symbol's type as ``nm`` prints it. Each
array begins at a multiple of eight. Their order depends on the version:

* 5.0 to 6.1: offsets, relative_base, num_syms, names, markers, token_table, token_index
* 6.2 to 6.4: the same with seqs_of_names behind markers
* since 6.5: num_syms, names, markers, token_table, token_index, offsets, relative_base, seqs_of_names

Without CONFIG_KALLSYMS_BASE_RELATIVE (an option until 6.10), 64-bit addresses stand in place of offsets and
relative_base. With CONFIG_KALLSYMS_ABSOLUTE_PERCPU, an offset that is negative as a signed number counts down from
relative_base, and the others are absolute. Nothing points to the table, so it is recognised by what it must contain:
the digits are tokens of their own, token_index holds where each token begins, and markers hold where the name of every
256th symbol begins. A table of no more than 256 symbols, as no kernel has, is not found.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from gdbhyp.errors import BadInput

_DIGITS = b"".join(b"%d\0" % digit for digit in range(10))
_TOKENS = 256
_ALIGNMENT = 8
_LONGEST_TOKEN = 512
# Names between two markers.
_PER_MARKER = 256
# A name takes at least its length and one token, and no more than KSYM_NAME_LEN (512) with its length.
_SHORTEST_NAME, _LONGEST_NAME = 2, 514
_MOST_SYMBOLS = 1 << 22
# A kernel image is smaller than this, and so are offsets in it.
_LARGEST_IMAGE = 1 << 31


class Symbol(NamedTuple):
    """A symbol: its virtual address, and its type as ``nm`` prints it ("T", "t", "D", …)."""

    name: str
    address: int
    type: str


@dataclass(frozen=True)
class Kallsyms:
    """The symbols in ascending order of their addresses.

    ``entries`` are type and name in one string; ``offsets`` are their addresses less ``base``, or the addresses
    themselves where ``base`` is 0. ``base_offset`` is where the table holds the base itself, None where it holds none:
    the kernel relocates that word, and nothing else of the table.
    """

    entries: Sequence[str]
    offsets: Sequence[int]
    base: int
    base_offset: int | None = None
    _by_name: dict[str, int] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Symbol]:
        for entry, offset in zip(self.entries, self.offsets, strict=True):
            yield Symbol(entry[1:], self.base + offset, entry[:1])

    def address(self, name: str) -> int | None:
        """Return the address of ``name``, of the first where static symbols share it; None if there is none."""
        if not self._by_name:
            pairs = zip(self.entries, self.offsets, strict=True)
            self._by_name.update({entry[1:]: offset for entry, offset in reversed(list(pairs))})
        offset = self._by_name.get(name)
        return None if offset is None else self.base + offset

    def at(self, address: int) -> tuple[Symbol, int] | None:
        """Return the last symbol at or below ``address``, and how far behind it the address is."""
        position = bisect_right(self.offsets, address - self.base) - 1
        if position < 0:
            return None
        found = self.offsets[position]
        while position and self.offsets[position - 1] == found:
            position -= 1
        entry = self.entries[position]
        return Symbol(entry[1:], self.base + found, entry[:1]), address - self.base - found

    @cached_property
    def first(self) -> int:
        """The lowest address."""
        return self.base + self.offsets[0]


def find(data: bytes) -> Kallsyms:
    """Return the table that is somewhere in ``data``, which begins at a multiple of eight.

    :raises BadInput: if there is none, or none that is whole.
    """
    at = data.find(_DIGITS)
    while at >= 0:
        tokens = _tokens(data, at)
        found = _table(data, tokens) if tokens is not None else None
        if found is not None:
            return found
        at = data.find(_DIGITS, at + 1)
    raise BadInput("no table of symbols (kallsyms) was found")


def token_tables(data: bytes) -> Iterator[int]:
    """Yield where tables of tokens begin in ``data``, which begins at a multiple of eight: each is one of a kernel."""
    at = data.find(_DIGITS)
    while at >= 0:
        tokens = _tokens(data, at)
        if tokens is not None:
            yield tokens.start
        at = data.find(_DIGITS, at + 1)


@dataclass(frozen=True)
class _Tokens:
    """The tokens by number; ``start`` is where the token table begins, ``end`` where the index behind it ends."""

    strings: list[str]
    start: int
    end: int


def _tokens(data: bytes, digits: int) -> _Tokens | None:
    """Return the token table that holds "0" at ``digits``, None if the index that must follow does not agree."""
    start = digits
    for _ in range(ord("0")):
        before = data.rfind(b"\0", max(0, start - _LONGEST_TOKEN), start - 1)
        if before < 0:
            return None
        start = before + 1
    # What goes before the first token can end without a zero byte.
    start = -(-start // _ALIGNMENT) * _ALIGNMENT
    strings, begins = [], []
    at = start
    for _ in range(_TOKENS):
        end = data.find(b"\0", at, at + _LONGEST_TOKEN)
        if end < 0:
            return None
        strings.append(data[at:end].decode("latin-1"))
        begins.append(at - start)
        at = end + 1
    if begins[-1] > 0xFFFF:
        return None
    index = struct.pack(f"<{_TOKENS}H", *begins)
    where = data.find(index, at, at + _ALIGNMENT + len(index))
    return None if where < 0 else _Tokens(strings, start, where + len(index))


def _table(data: bytes, tokens: _Tokens) -> Kallsyms | None:
    for markers_at in _markers_before(data, tokens.start):
        for names_at, count in _names_before(data, markers_at, tokens.start):
            entries = _entries(data, names_at, count, markers_at, tokens.strings)
            if entries is None:
                continue
            addresses = _offsets_before(data, names_at - 8, count) or _offsets_behind(data, tokens.end, count)
            if addresses is not None:
                return Kallsyms(entries, *addresses)
    return None


def _markers_before(data: bytes, end: int) -> Iterator[int]:
    """Yield where the array of markers may begin: a zero, and then values that rise as names of 256 symbols do.

    It ends at the token table, or a seqs_of_names of three bytes a symbol before it.
    """
    at = end
    lowest = max(0, end - 4 * _MOST_SYMBOLS)
    while at > lowest:
        at = data.rfind(b"\0\0\0\0", lowest, at - 4)
        if at < 0:
            return
        at -= at % _ALIGNMENT
        first, second = struct.unpack_from("<2I", data, at)
        if first == 0 and _rises(first, second):
            yield at


def _rises(before: int, value: int) -> bool:
    return _SHORTEST_NAME * _PER_MARKER <= value - before <= _LONGEST_NAME * _PER_MARKER


def _marker_count(data: bytes, at: int, end: int) -> int:
    """Return how many values rise as markers do; the array may be shorter by what happens to follow it."""
    values = array("I", data[at : at + (end - at) // 4 * 4])
    _little(values)
    for position in range(1, len(values)):
        if not _rises(values[position - 1], values[position]):
            return position
    return len(values)


_CHANCE = 3
"""How many values behind the markers may look like one more: each does by a chance of a few in 65,536."""


def _names_before(data: bytes, markers: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield where the names may begin and how many there are: the count stands before them, the markers behind."""
    found = _marker_count(data, markers, end)
    for count in range(found, max(0, found - _CHANCE), -1):
        last = struct.unpack_from("<I", data, markers + 4 * (count - 1))[0]
        latest = markers - last - _SHORTEST_NAME
        latest -= latest % _ALIGNMENT
        earliest = max(_ALIGNMENT, latest - _LONGEST_NAME * _PER_MARKER)
        for names in range(latest, earliest - 1, -_ALIGNMENT):
            symbols, padding = struct.unpack_from("<2I", data, names - 8)
            if padding == 0 and (count - 1) * _PER_MARKER < symbols <= count * _PER_MARKER:
                yield names, symbols


def _entries(data: bytes, start: int, count: int, markers: int, tokens: list[str]) -> list[str] | None:
    """Expand ``count`` names, None unless each marker is where its names begin and the last one ends at the markers."""
    entries = []
    at = start
    expand = tokens.__getitem__
    for position in range(count):
        if not position % _PER_MARKER:
            marker = struct.unpack_from("<I", data, markers + position // _PER_MARKER * 4)[0]
            if at - start != marker:
                return None
        if at >= markers:
            return None
        length = data[at]
        at += 1
        if length & 0x80:
            # Long names ("big" symbols) have seven more bits in a second byte.
            length = length & 0x7F | data[at] << 7
            at += 1
        entries.append("".join(map(expand, data[at : at + length])))
        at += length
    return entries if markers - _ALIGNMENT < at <= markers else None


def _offsets_before(data: bytes, end: int, count: int) -> tuple[Sequence[int], int, int | None] | None:
    """Read offsets and relative_base, or addresses, that end where the count of symbols stands."""
    base_at = end - 8
    found = _relative(data, base_at - -(-4 * count // _ALIGNMENT) * _ALIGNMENT, count, base_at)
    return found or _absolute(data, end - 8 * count, count)


def _offsets_behind(data: bytes, start: int, count: int) -> tuple[Sequence[int], int, int | None] | None:
    """Read offsets and relative_base, or addresses, that begin behind the index of tokens."""
    start = -(-start // _ALIGNMENT) * _ALIGNMENT
    found = _relative(data, start, count, start + -(-4 * count // _ALIGNMENT) * _ALIGNMENT)
    return found or _absolute(data, start, count)


def _relative(data: bytes, at: int, count: int, base_at: int) -> tuple[Sequence[int], int, int] | None:
    if at < 0 or base_at + 8 > len(data):
        return None
    base = struct.unpack_from("<Q", data, base_at)[0]
    signed = array("i", data[at : at + 4 * count])
    _little(signed)
    if not _is_base(base) or signed[0] == signed[-1]:
        return None
    if signed[-1] >= 0 and _ascending(signed):
        return signed, base, base_at
    # Absolute ones of per-CPU data go first, then the relative ones, whose distance grows.
    addresses = [offset if offset >= 0 else base - 1 - offset for offset in signed]
    if min(signed) < 0 and _ascending(addresses):
        return [address - base for address in addresses], base, base_at
    return None


def _is_base(value: int) -> bool:
    """Return whether a word can be relative_base: an address of the kernel's half, or 0 before it is relocated."""
    return value == 0 or value >> 63 == 1


def _absolute(data: bytes, at: int, count: int) -> tuple[Sequence[int], int, None] | None:
    if at < 0 or at + 8 * count > len(data):
        return None
    addresses = array("Q", data[at : at + 8 * count])
    _little(addresses)
    in_image = addresses[-1] >> 63 and 0 < addresses[-1] - addresses[count // 2] < _LARGEST_IMAGE
    return (addresses, 0, None) if in_image and _ascending(addresses) else None


def _ascending(values: Sequence[int]) -> bool:
    return all(map(int.__le__, values[:-1], values[1:]))


def _little(values: array[int]) -> None:
    if sys.byteorder == "big":
        values.byteswap()
