"""Translation tables decoded whole: one table is one large integer, and its descriptors are compared at once.

A table is read as a little-endian integer of 64 bits a descriptor. Multiplied by ``repeat``, which has a 1 in each of
them, a descriptor or a mask stands in all of them. So a table of consecutive pages is known by one subtraction, and
equal attributes by one mask; only where ranges begin is looked at one by one. Everything unusual (a reserved
descriptor, an address beyond the output size, a carry out of the address) goes the plain way, a descriptor after the
other, which is the rule that the fast ways have to agree with.

Memory use does not grow with the tables: one table a level is held, and what it maps is handed out in batches. The
depth is bounded by the levels, so tables that point to themselves end; how much such tables can unfold is bounded by
the budget.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import chain, compress, islice, repeat
from operator import and_, eq, ne, sub
from typing import NamedTuple

from gdbhyp.arch import stage1
from gdbhyp.arch.fields import Bits
from gdbhyp.arch.granules import DESCRIPTOR_BITS, FINAL_LEVEL, Format, Level
from gdbhyp.arch.regimes import Space
from gdbhyp.arch.spaces import Address, Word
from gdbhyp.arch.stage1 import Stage1Params
from gdbhyp.arch.stage2 import Stage2Params
from gdbhyp.engine.mapped import Batch, Budget, Found, MappedRange, Problem, Shape, join_line, joined, moved
from gdbhyp.errors import MemoryUnavailable

_VALID = 0b1
_TYPE = 0b11
_TABLE = 0b11
_PAGE = 0b11
_BLOCK = 0b01
_WORD = (1 << 64) - 1

_HIERARCHICAL = Bits(63, 59).in_place
_SHAPE_LIMIT = 4096
_LEAVES_LIMIT = 64
_SHARED_LIMIT = 256
_SHARED_SIZE = 64
"""What a table maps is kept for the next entry that points to it, if it is no more than this many ranges."""

_PROBE = 4096
"""Memory comes and goes in pages: a page that cannot be read at either end is not tried in between."""

_UNKNOWN = object()

ShapeOf = Callable[[int, int, int, Space], Shape]
Read = Callable[[int, int, Space], bytes]

_range = partial(tuple.__new__, MappedRange)
"""A MappedRange of a tuple, made in C."""


class Table(NamedTuple):
    """A table to decode: where it is, where its input starts, and what the tables above it say."""

    depth: int
    address: int
    base: int
    tables: int
    space: Space


@lru_cache(maxsize=32)
def _repeat(count: int) -> int:
    """A 1 in each of ``count`` 64-bit words."""
    return ((1 << 64 * count) - 1) // _WORD


@lru_cache(maxsize=32)
def _ramp(count: int, step: int) -> int:
    """0, ``step``, 2 * ``step``, ... in ``count`` 64-bit words."""
    return int.from_bytes(struct.pack(f"<{count}Q", *range(0, count * step, step)), "little")


@lru_cache(maxsize=256)
def _filled(mask: int, count: int) -> int:
    """A mask in each of ``count`` 64-bit words."""
    return mask * _repeat(count)


@lru_cache(maxsize=32)
def _words(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}Q")


class _Leaves:
    """How the leaf descriptors of one level read, below tables that say the same.

    ``leaf`` are the address bits that stand in place and ``fixed`` all others, ``too_high`` those that hold address
    bits beyond the output size. ``key`` are the bits that a shape depends on, and the type; ``significant`` all bits
    that mean something. ``shapes`` holds a shape by ``key`` bits, None for what is no leaf. ``reserved`` says that a
    descriptor was seen that is neither leaf nor invalid, ``alike`` that different bits had the same shape.
    """

    __slots__ = (
        "alike",
        "fixed",
        "key",
        "leaf",
        "make",
        "reserved",
        "shapes",
        "significant",
        "step",
        "too_high",
        "type",
    )

    def __init__(self, level: Level, form: Format, beyond: int, ignored: int, make: Callable[[int], Shape]):
        self.type = _PAGE if level.level == FINAL_LEVEL else _BLOCK if level.block else None
        self.step = level.offset_mask + 1
        self.leaf = level.leaf_mask
        self.fixed = _WORD & ~level.leaf_mask
        self.too_high = beyond & level.leaf_mask | beyond >> form.high_shift & form.high
        self.key = _WORD & ~(ignored | form.in_place | form.high)
        self.significant = self.key | level.leaf_mask | form.high
        self.make = make
        self.shapes = _Shapes(self)
        self.reserved = False
        self.alike = False


class _Shapes(dict[int, "Shape | None"]):
    """Shapes by the bits of a descriptor that they depend on, made when first asked for."""

    def __init__(self, leaves: _Leaves) -> None:
        super().__init__()
        self._leaves = leaves
        self._made: set[int] = set()

    def __missing__(self, key: int) -> Shape | None:
        leaves = self._leaves
        if len(self) >= _SHAPE_LIMIT:
            self.clear()
        shape = None
        if key & _TYPE == leaves.type:
            shape = leaves.make(key)
            leaves.alike |= id(shape) in self._made
            self._made.add(id(shape))
        elif key & _VALID:
            leaves.reserved = True
        self[key] = shape
        return shape


class Mapper:
    """Decodes the tables of one stage and one input range.

    ``ignored`` are the leaf bits that mean nothing, ``shape`` what the others mean; ``read(address, size, space)``
    reads tables, whose addresses are of ``table_space``. ``interned`` holds a shape for each equal one.
    """

    def __init__(
        self,
        stage: int,
        params: Stage1Params | Stage2Params,
        read: Read,
        shape: ShapeOf,
        ignored: int,
        table_space: str,
        interned: dict[Shape, Shape],
        budget: Budget,
    ) -> None:
        self._stage = stage
        self._levels = params.levels
        self._beyond = params.beyond
        self._format = params.format
        self._in_place, self._high, self._high_shift = params.format
        self._big_endian = params.ee
        self._read = read
        self._shape = shape
        self._ignored = ignored
        self._table_space = table_space
        self._interned = interned
        self._budget = budget
        self._leaves: dict[tuple[int, int, Space], _Leaves] = {}
        self._shared: dict[tuple[int, int, int, Space], tuple[int, Batch] | None] = {}

    def batches(self, table: Table, low: int, high: int) -> Iterator[Batch]:
        """Yield what a table and those below it map, as far as they cover the input from ``low`` to ``high``."""
        window = _Window(low, high)
        open_tables = [self._items(table, window)]
        while open_tables:
            for item in open_tables[-1]:
                if isinstance(item, Table):
                    open_tables.append(self._items(item, window))
                    break
                yield item
            else:
                open_tables.pop()

    def _items(self, table: Table, window: _Window) -> Iterator[Batch | Table]:
        """Decode one table; those below it that point to more tables come as they are."""
        level = self._levels[table.depth]
        if level.level == FINAL_LEVEL:
            yield self._final(table, window)
            return
        for base, address, data in self._pieces(table, level, window):
            if isinstance(data, Problem):
                yield (data,)
            elif value := int.from_bytes(data, "little"):
                if value & value >> 1 & _repeat(len(data) // 8):
                    yield from self._mixed(table, base, address, data, window)
                else:
                    yield self._decode(table, base, address, data, value)

    def _final(self, table: Table, window: _Window) -> Batch:
        """Decode a table of the final level."""
        found: list[Found] = []
        pieces = self._pieces(table, self._levels[table.depth], window)
        for base, address, data in pieces:
            if isinstance(data, Problem):
                found.append(data)
            elif value := int.from_bytes(data, "little"):
                batch = self._decode(table, base, address, data, value)
                if len(pieces) == 1:
                    return batch
                found += batch
        return list(joined(found))

    def _mixed(
        self, table: Table, base: int, address: int, data: bytes, window: _Window
    ) -> Iterator[Batch | Table]:
        """Decode descriptors some of which point to tables."""
        depth = table.depth + 1
        final = self._levels[depth].level == FINAL_LEVEL
        leaves = self._leaves_of(table)
        step = leaves.step
        entries = _words(len(data) // 8).unpack(data)
        pointers = [descriptor for descriptor in entries if descriptor & _TYPE == _TABLE]
        repeated = final or len(set(pointers)) < len(pointers)
        plain: list[Found] = []
        for index, descriptor in enumerate(entries):
            if not descriptor & _VALID:
                continue
            at = base + index * step
            if descriptor & _TYPE != _TABLE:
                plain.append(self._leaf(leaves, table, at, address + index * 8, descriptor))
                continue
            below = descriptor & self._in_place | (descriptor & self._high) << self._high_shift
            if below & self._beyond:
                plain.append(self._too_far(table, at, address + index * 8, descriptor))
                continue
            if plain:
                yield list(joined(plain))
                plain = []
            space = table.space
            if space is Space.SECURE and descriptor & stage1.NS_TABLE.in_place and self._stage == 1:
                space = Space.NON_SECURE
            child = Table(depth, below, at, table.tables | descriptor & _HIERARCHICAL, space)
            if repeated and at >= window.low and at + step <= window.high:
                yield from self._kept(child, window, final)
            else:
                yield self._final(child, window) if final else child
        if plain:
            yield list(joined(plain))

    def _kept(self, table: Table, window: _Window, final: bool) -> Iterator[Batch | Table]:
        """Decode a table that others may point to as well, or take what it was found to map before."""
        depth, address, base, tables, space = table
        key = (depth, address, tables, space)
        known = self._shared.get(key, _UNKNOWN)
        if isinstance(known, tuple):
            if self._budget.spend():
                yield moved(known[1], base - known[0])
            else:
                yield (self._exhausted(table, base, base + self._levels[depth - 1].offset_mask + 1),)
            return
        if final:
            batch = self._final(table, window)
            if len(batch) <= _SHARED_SIZE:
                self._keep(key, (base, batch))
            yield batch
            return
        if known is _UNKNOWN:
            below = joined(chain.from_iterable(self.batches(table, *window)))
            batch = list(islice(below, _SHARED_SIZE + 1))
            if len(batch) <= _SHARED_SIZE:
                self._keep(key, (base, batch))
                yield batch
                return
            self._keep(key, None)
        yield table

    def _keep(self, key: tuple[int, int, int, Space], found: tuple[int, Batch] | None) -> None:
        if len(self._shared) >= _SHARED_LIMIT:
            self._shared.clear()
        self._shared[key] = found

    def _leaves_of(self, table: Table) -> _Leaves:
        key = (table.depth, table.tables, table.space)
        leaves = self._leaves.get(key)
        if leaves is None:
            if len(self._leaves) >= _LEAVES_LIMIT:
                self._leaves.clear()
            level, tables, space = self._levels[table.depth], table.tables, table.space

            def make(descriptor: int) -> Shape:
                shape = self._shape(level.level, descriptor, tables, space)
                return self._interned.setdefault(shape, shape)

            leaves = _Leaves(level, self._format, self._beyond, self._ignored, make)
            self._leaves[key] = leaves
        return leaves

    def _decode(self, table: Table, base: int, address: int, data: bytes, value: int) -> Batch:
        """Decode descriptors none of which points to a table; ``value`` is ``data`` as an integer, not 0."""
        leaves = self._leaves_of(table)
        count = len(data) // 8
        whole = self._whole(leaves, base, count, value)
        if whole is None:
            meaning = value & _filled(leaves.significant, count)
            if meaning != value:
                whole = self._whole(leaves, base, count, meaning)
            if whole is None:
                whole = self._parts(leaves, base, count, meaning)
            if whole is None:
                whole = self._each(leaves, table, base, address, data)
        return whole

    def _whole(self, leaves: _Leaves, base: int, count: int, value: int) -> Batch | None:
        """Decode descriptors of which each is the next page, or all the same; None if they are not."""
        first = value & _WORD
        difference = value - first * _repeat(count)
        if not difference:
            last = first
        elif difference == _ramp(count, leaves.step):
            last = first + (count - 1) * leaves.step
        else:
            return None
        shape = leaves.shapes[first & leaves.key]
        if shape is None:
            return None if first & _VALID else ()
        if (first ^ last) & leaves.fixed or (first | last) & leaves.too_high:
            return None
        output = first & leaves.leaf | (first & self._high) << self._high_shift
        end = base + count * leaves.step
        return (
            MappedRange(Address(base), Address(end), Address(output), first == last and count > 1, shape),
        )

    def _parts(self, leaves: _Leaves, base: int, count: int, value: int) -> Batch | None:
        """Decode descriptors that are valid leaves or invalid; None if they are anything else."""
        if value & _filled(leaves.too_high, count):
            return None
        entries = _words(count).unpack(value.to_bytes(8 * count, "little"))
        key = entries[0] & leaves.key
        if value & _filled(leaves.key, count) == key * _repeat(count):
            shape = leaves.shapes[key]
            if shape is not None:
                return self._alike(leaves, shape, base, entries)
        elif not entries[0] or not entries[-1]:
            first = ((value & -value).bit_length() - 1) // 64
            entries = entries[first : (value.bit_length() + 63) // 64]
            base += first * leaves.step
        return self._various(leaves, base, entries)

    def _alike(self, leaves: _Leaves, shape: Shape, base: int, entries: tuple[int, ...]) -> Batch:
        """Decode leaves that all have the same attributes, whose addresses cannot carry into anything."""
        step, count = leaves.step, len(entries)
        end = base + count * step
        differences = list(map(sub, islice(entries, 1, None), entries))
        firsts: Sequence[int] = entries
        starts: Sequence[int] = range(base, end, step)
        ends: Sequence[int] = range(base + step, end + step, step)
        if step in differences:
            begins = [0, *(at for at, difference in enumerate(differences, 1) if difference != step)]
            firsts = [entries[at] for at in begins]
            starts = [base + at * step for at in begins]
            ends = [*starts[1:], end]
        found = list(
            map(_range, zip(starts, ends, self._outputs(leaves, firsts), repeat(False), repeat(shape)))
        )
        return list(joined(found)) if 0 in differences else found

    def _outputs(self, leaves: _Leaves, descriptors: Sequence[int]) -> list[int]:
        leaf, high, high_shift = leaves.leaf, self._high, self._high_shift
        if not high:
            return [descriptor & leaf for descriptor in descriptors]
        return [descriptor & leaf | (descriptor & high) << high_shift for descriptor in descriptors]

    def _various(self, leaves: _Leaves, base: int, entries: tuple[int, ...]) -> Batch | None:
        """Decode leaves with different attributes and invalid descriptors; None if there is anything else."""
        step, count = leaves.step, len(entries)
        differences = list(map(sub, islice(entries, 1, None), entries))
        if step in differences:
            return self._runs(leaves, base, entries)
        found = list(map(leaves.shapes.__getitem__, map(and_, entries, repeat(leaves.key))))
        if leaves.reserved and _any_reserved(entries, found):
            return None
        starts, ends = (
            range(base, base + count * step, step),
            range(base + step, base + count * step + step, step),
        )
        columns = zip(starts, ends, self._outputs(leaves, entries), repeat(False), found)
        batch = list(map(_range, columns if all(found) else compress(columns, found)))
        return list(joined(batch)) if leaves.alike or 0 in differences else batch

    def _runs(self, leaves: _Leaves, base: int, entries: tuple[int, ...]) -> Batch | None:
        """Do the same where there are pages in a row.

        What is left of a descriptor without its offset is the same all over a run.
        """
        step, count = leaves.step, len(entries)
        rest = [
            entry and entry - offset
            for entry, offset in zip(entries, range(0, count * step, step), strict=True)
        ]
        begins = [0, *compress(range(1, count), map(ne, islice(rest, 1, None), rest))]
        firsts = [entries[at] for at in begins]
        key, fixed = leaves.key, leaves.fixed
        found = [leaves.shapes[first & key] for first in firsts]
        if leaves.reserved and _any_reserved(firsts, found):
            return None
        lasts = [entries[end - 1] for end in islice(begins, 1, None)]
        lasts.append(entries[-1])
        if any((first ^ last) & fixed for first, last in zip(firsts, lasts, strict=True)):
            return None
        starts = [base + at * step for at in begins]
        ends = [*starts[1:], base + count * step]
        columns = zip(starts, ends, self._outputs(leaves, firsts), repeat(False), found)
        batch = list(map(_range, columns if all(found) else compress(columns, found)))
        if leaves.alike or any(map(eq, islice(firsts, 1, None), firsts)):
            return list(joined(batch))
        return batch

    def _each(self, leaves: _Leaves, table: Table, base: int, address: int, data: bytes) -> Batch:
        """Decode descriptors one after the other: whatever they are, and what the other ways must agree with."""
        found = (
            self._leaf(leaves, table, base + index * leaves.step, address + index * 8, descriptor)
            for index, descriptor in enumerate(_words(len(data) // 8).unpack(data))
            if descriptor & _VALID
        )
        # Pages in a row are one range even where the first of them is mapped twice, as in all other ways.
        return list(joined(joined(found, join_line)))

    def _leaf(self, leaves: _Leaves, table: Table, at: int, address: int, descriptor: int) -> Found:
        """Decode one valid descriptor that points to no table."""
        shape = leaves.shapes[descriptor & leaves.key]
        if shape is None:
            return self._reserved(table, at, address, descriptor)
        output = descriptor & leaves.leaf | (descriptor & self._high) << self._high_shift
        if output & self._beyond:
            return self._too_far(table, at, address, descriptor)
        return MappedRange(Address(at), Address(at + leaves.step), Address(output), False, shape)

    def _pieces(self, table: Table, level: Level, window: _Window) -> list[_Piece]:
        """Read a table as far as the window goes: one piece, unless a part of it cannot be read."""
        bits = level.shift + DESCRIPTOR_BITS
        first, last = 0, (level.index_mask >> DESCRIPTOR_BITS) + 1
        if table.base < window.low or table.base + (last << bits) > window.high:
            first = max(first, window.low - table.base >> bits)
            last = min(last, (window.high - table.base + level.offset_mask) >> bits)
            if first >= last:
                return []
        base = table.base + (first << bits)
        address = table.address + first * 8
        if not self._budget.spend():
            return [(base, address, self._exhausted(table, base, table.base + (last << bits)))]
        return self._readable(table, base, address, (last - first) * 8)

    def _readable(self, table: Table, base: int, address: int, size: int) -> list[_Piece]:
        """Read a part of a table, in halves where not all of it can be read."""
        try:
            data = self._read(address, size, table.space)
        except MemoryUnavailable as error:
            reason = error.reason
        else:
            return [(base, address, _swapped(data) if self._big_endian else data)]
        span = self._levels[table.depth].offset_mask + 1
        if size <= 8 or (size <= _PROBE and not self._ends_readable(address, size, table.space)):
            end = base + size // 8 * span
            text = f"table not readable: {reason}"
            return [(base, address, self._problem("unreadable", base, end, table, text, address))]
        half = size // 16 * 8
        return [
            *self._readable(table, base, address, half),
            *self._readable(table, base + half // 8 * span, address + half, size - half),
        ]

    def _ends_readable(self, address: int, size: int, space: Space) -> bool:
        for at in (address, address + size - 8):
            try:
                self._read(at, 8, space)
            except MemoryUnavailable:
                continue
            return True
        return False

    def _problem(
        self,
        kind: str,
        start: int,
        end: int,
        table: Table,
        text: str,
        address: int,
        descriptor: int | None = None,
    ) -> Problem:
        return Problem(
            kind,
            Address(start),
            Address(end),
            self._levels[table.depth].level,
            Address(address),
            self._table_space,
            None if descriptor is None else Word(descriptor),
            text,
        )

    def _exhausted(self, table: Table, start: int, end: int) -> Problem:
        return self._problem("budget", start, end, table, "the budget is used up", table.address)

    def _too_far(self, table: Table, at: int, address: int, descriptor: int) -> Problem:
        end = at + self._levels[table.depth].offset_mask + 1
        text = "the address in the descriptor is beyond the output address size"
        return self._problem("address_size", at, end, table, text, address, descriptor)

    def _reserved(self, table: Table, at: int, address: int, descriptor: int) -> Problem:
        level = self._levels[table.depth]
        text = f"reserved descriptor encoding at level {level.level}"
        return self._problem("reserved", at, at + level.offset_mask + 1, table, text, address, descriptor)


class _Window(NamedTuple):
    """The input that is asked for, ``high`` exclusive."""

    low: int
    high: int


_Piece = tuple[int, int, "bytes | Problem"]
"""A part of a table: where its input starts, its address, and its descriptors, little-endian."""


def _any_reserved(descriptors: Sequence[int], shapes: Sequence[Shape | None]) -> bool:
    """Whether a descriptor is valid, and none of a leaf."""
    return any(
        shape is None and descriptor & _VALID for descriptor, shape in zip(descriptors, shapes, strict=True)
    )


def _swapped(data: bytes) -> bytes:
    """Return big-endian descriptors as little-endian ones."""
    words = array("Q", data)
    words.byteswap()
    return words.tobytes()
