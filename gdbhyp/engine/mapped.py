"""What a table maps, as ranges: what a range is, what could not be followed, and how neighbours join."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from gdbhyp.arch.attributes import shareability_words
from gdbhyp.arch.permissions import EXECUTE, READ, WRITE
from gdbhyp.arch.spaces import Address, Word


class Shape(NamedTuple):
    """Everything about a range but where it is: equal shapes merge, and ranges with the same one share it.

    ``privileged`` and ``unprivileged`` are sets of rights (see ``gdbhyp.arch.permissions``), the latter None in a
    regime without EL0; ``own`` is the privileged level. ``level`` is None and ``page_size`` 0 when translation is off.
    ``attr`` is the MAIR attribute byte, or MemAttr[3:0] of stage 2 alone; ``sh`` the SH field.
    """

    input_space: str
    output_space: str
    own: str
    level: int | None
    page_size: int
    privileged: int
    unprivileged: int | None
    memory: str
    attr: int
    sh: int
    contiguous: bool
    access_flag: bool
    space: str


class MappedRange(NamedTuple):
    """``start`` to ``end`` (exclusive) is mapped from ``output`` on, all of it with the same attributes.

    ``constant`` says that every page of the range maps to the same ``output`` page. The rest is the shape's, by which
    a fragmented table of hundreds of thousands of ranges needs one object of attributes, not as many: ``read``,
    ``write`` and ``execute`` are privileged rights, the ``el0_`` ones those of EL0 (None in a regime without it);
    ``exec`` says in words who may execute. With ``access_flag`` False an access faults all the same.
    """

    start: Address
    end: Address
    output: Address
    constant: bool
    shape: Shape

    @property
    def input_space(self) -> str:
        return self.shape.input_space

    @property
    def output_space(self) -> str:
        return self.shape.output_space

    @property
    def level(self) -> int | None:
        return self.shape.level

    @property
    def page_size(self) -> int:
        return self.shape.page_size

    @property
    def read(self) -> bool:
        return bool(self.shape.privileged & READ)

    @property
    def write(self) -> bool:
        return bool(self.shape.privileged & WRITE)

    @property
    def execute(self) -> bool:
        return bool(self.shape.privileged & EXECUTE)

    @property
    def el0_read(self) -> bool | None:
        return self._unprivileged(READ)

    @property
    def el0_write(self) -> bool | None:
        return self._unprivileged(WRITE)

    @property
    def el0_execute(self) -> bool | None:
        return self._unprivileged(EXECUTE)

    def _unprivileged(self, right: int) -> bool | None:
        return None if self.shape.unprivileged is None else bool(self.shape.unprivileged & right)

    @property
    def exec(self) -> str:
        who = [self.shape.own] if self.execute else []
        if self.el0_execute:
            who.append("EL0")
        return "+".join(who) or "never"

    @property
    def memory(self) -> str:
        return self.shape.memory

    @property
    def shareability(self) -> str:
        return shareability_words(self.shape.sh)

    @property
    def contiguous(self) -> bool:
        return self.shape.contiguous

    @property
    def access_flag(self) -> bool:
        return self.shape.access_flag

    @property
    def space(self) -> str:
        return self.shape.space

    @property
    def attr(self) -> int:
        return self.shape.attr


@dataclass(frozen=True, slots=True)
class Problem:
    """``start`` to ``end`` (exclusive) of the input could not be followed, and why.

    ``kind`` is "unreadable" (a table), "reserved" (a descriptor), "address_size" (a descriptor that points
    beyond the output size), "registers" (they allow no walk) or "budget" (the rest was not looked at).
    ``address`` is that of the table or descriptor, in ``address_space``; ``descriptor`` its value if there is
    one.
    """

    kind: str
    start: Address
    end: Address
    level: int | None
    address: Address | None
    address_space: str
    descriptor: Word | None
    text: str


Found = MappedRange | Problem
Batch = Sequence[Found]
"""Some of what is found, in ascending order, of which no two neighbours can be joined any more."""


class Budget:
    """How many tables may still be looked at; None for as many as there are."""

    def __init__(self, tables: int | None = None) -> None:
        self.left = tables

    def spend(self) -> bool:
        """Take one table from the budget; False when there is none left."""
        if self.left is None:
            return True
        self.left -= 1
        return self.left >= 0


def join(last: Found, item: Found) -> Found | None:
    """Return two neighbours as one if they are one, else None."""
    if isinstance(last, MappedRange):
        if not isinstance(item, MappedRange):
            return None
        return join_line(last, item) or _join_constant(last, item)
    if isinstance(item, Problem) and (item.kind, item.level, item.start) == (last.kind, last.level, last.end):
        return replace(last, end=item.end)
    return None


def join_line(last: Found, item: Found) -> MappedRange | None:
    """Return two neighbours as one if the outputs of the second follow on those of the first."""
    if not isinstance(last, MappedRange) or not isinstance(item, MappedRange):
        return None
    start, end, output, constant, shape = last
    if item.start != end or item.shape is not shape or constant or item.constant:
        return None
    if item.output != output + end - start:
        return None
    return MappedRange(start, item.end, output, False, shape)


def _join_constant(last: MappedRange, item: MappedRange) -> MappedRange | None:
    """Return two neighbours as one if all pages of both map to the same one."""
    start, end, output, constant, shape = last
    page = shape.page_size
    if item.start != end or item.shape is not shape or item.output != output or not page:
        return None
    if not (constant or end - start == page) or not (item.constant or item.end - item.start == page):
        return None
    return MappedRange(start, item.end, output, True, shape)


def joined(items: Iterable[Found], how: Callable[[Found, Found], Found | None] = join) -> Iterator[Found]:
    """Join neighbours that are one by ``how``."""
    last: Found | None = None
    for item in items:
        both = None if last is None else how(last, item)
        if both is None:
            if last is not None:
                yield last
            last = item
        else:
            last = both
    if last is not None:
        yield last


def joined_batches(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Join the ends of batches that continue each other; what is inside of them stays as it is."""
    last: Found | None = None
    for batch in batches:
        if not batch:
            continue
        both = None if last is None else join(last, batch[0])
        if both is None:
            if last is not None:
                yield (last,)
        elif len(batch) == 1:
            last = both
            continue
        else:
            yield (both,)
            batch = batch[1:]
        last = batch[-1]
        if len(batch) > 1:
            yield batch[:-1]
    if last is not None:
        yield (last,)


def cut_batches(batches: Iterable[Batch], low: int, high: int) -> Iterator[Batch]:
    """Cut what is found to the input from ``low`` to ``high`` (exclusive)."""
    for batch in batches:
        if batch and batch[0].start >= low and batch[-1].end <= high:
            yield batch
        elif batch:
            # What is wrong with the registers of one VA range says nothing about the other.
            yield [
                piece
                for item in batch
                if item.start < high and item.end > low
                for piece in cut(item, low, high)
            ]


def cut(item: Found, low: int, high: int) -> Iterator[Found]:
    """Yield an item from ``low`` to ``high`` (exclusive), of which it holds at least a byte.

    It is one piece, but for pages that all map to the same one: of a page that is cut, the rest is a piece of its own.
    """
    start, end = Address(max(item.start, low)), Address(min(item.end, high))
    if isinstance(item, Problem):
        yield replace(item, start=start, end=end)
        return
    if not item.constant:
        yield item._replace(start=start, end=end, output=Address(item.output + start - item.start))
        return
    page = item.shape.page_size
    first = Address(min(end, -(-start // page) * page))
    last = Address(max(first, end // page * page))
    if start < first:
        yield _in_page(item, start, first)
    if first < last:
        yield item._replace(start=first, end=last, constant=last - first > page)
    if last < end:
        yield _in_page(item, last, end)


def unfolded(items: Iterable[Found], page: int) -> Iterator[Found]:
    """Yield pages one by one where several larger than ``page`` all map to the same one."""
    for item in items:
        if isinstance(item, Problem) or not item.constant or item.shape.page_size <= page:
            yield item
            continue
        size = item.shape.page_size
        for start in range(item.start, item.end, size):
            yield _in_page(item, Address(start), Address(start + size))


def _in_page(item: MappedRange, start: Address, end: Address) -> MappedRange:
    """Return a page, or a part of it, of pages that all map to the same one."""
    offset = start % item.shape.page_size
    return item._replace(start=start, end=end, output=Address(item.output + offset), constant=False)


def moved(batch: Batch, distance: int) -> list[Found]:
    """Return the same further up: what one table maps, when it is used once more."""
    return [
        item._replace(start=Address(item.start + distance), end=Address(item.end + distance))
        if isinstance(item, MappedRange)
        else replace(item, start=Address(item.start + distance), end=Address(item.end + distance))
        for item in batch
    ]
