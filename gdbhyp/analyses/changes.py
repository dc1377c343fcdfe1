"""What changed between two maps: ranges that came, went, moved to another output, or have other attributes.

Both are streams in ascending order, as a map yields them, and are read side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from gdbhyp.analyses.find import rights_words
from gdbhyp.arch.spaces import Address
from gdbhyp.engine.mapped import MappedRange, cut

Kind = Literal["added", "removed", "moved", "changed"]


@dataclass(frozen=True)
class Side:
    """How a range is mapped on one side: from ``pa`` on (``constant``: all of it to the page at ``pa``)."""

    pa: Address
    rights: str
    exec: str
    memory: str
    shareability: str
    page_size: int
    contiguous: bool
    access_flag: bool
    constant: bool
    space: str


@dataclass(frozen=True)
class Change:
    """Inputs ``start`` to ``end`` (exclusive) are mapped otherwise.

    They are "added" (``before`` is None), "removed" (``after`` is None), "moved" to another output, or "changed" where
    they are. ``what`` names the keys of both sides that differ, the output (``pa``) among them.
    """

    kind: Kind
    start: Address
    end: Address
    before: Side | None
    after: Side | None
    what: tuple[str, ...]


def changes(before: Iterable[MappedRange], after: Iterable[MappedRange]) -> Iterator[Change]:
    """Yield what is different, merged, in ascending order."""
    last: Change | None = None
    for change in _pieces(before, after):
        joined = _joined(last, change) if last is not None else None
        if joined is None and last is not None:
            yield last
        last = joined or change
    if last is not None:
        yield last


def _pieces(before: Iterable[MappedRange], after: Iterable[MappedRange]) -> Iterator[Change]:
    """Yield differences piece by piece, each piece inside one range of either side."""
    one, other = _Ranges(before), _Ranges(after)
    while one.head is not None or other.head is not None:
        if other.head is None or (one.head is not None and one.head.start < other.head.start):
            found = one.take(None if other.head is None else other.head.start)
            yield Change("removed", found.start, found.end, _side(found), None, ())
        elif one.head is None or other.head.start < one.head.start:
            found = other.take(None if one.head is None else one.head.start)
            yield Change("added", found.start, found.end, None, _side(found), ())
        else:
            yield from _both(*_overlap(one, other))


class _Ranges:
    """The ranges of one side, the first of which, ``head``, can be split."""

    def __init__(self, ranges: Iterable[MappedRange]) -> None:
        self._ahead = iter(ranges)
        self._cut: list[MappedRange] = []
        self.head = next(self._ahead, None)

    def split(self, end: int) -> None:
        """Let the head end at ``end``, or before: of a page that leads where its neighbours do, a part is a range."""
        head = self.head
        if head is None or end >= head.end:
            return
        pieces = [*cut(head, head.start, end), *cut(head, end, head.end)]
        self._cut.extend(reversed([piece for piece in pieces if isinstance(piece, MappedRange)]))
        self.head = self._cut.pop()

    def take(self, end: int | None = None) -> MappedRange:
        """Return the head, up to ``end`` or before."""
        if end is not None:
            self.split(end)
        found = self.head
        assert found is not None
        self.head = self._cut.pop() if self._cut else next(self._ahead, None)
        return found


def _overlap(one: _Ranges, other: _Ranges) -> tuple[MappedRange, MappedRange]:
    """Take from two heads that start together what ends together, and of which all pages or none lead elsewhere."""
    while one.head is not None and other.head is not None:
        end = min(one.head.end, other.head.end, _parting(one.head, other.head))
        if one.head.end == other.head.end == end:
            break
        one.split(end)
        other.split(end)
    return one.take(), other.take()


def _parting(one: MappedRange, other: MappedRange) -> int:
    """Return where the comparison of two ranges that start together changes, at most the greatest address.

    Pages in a row and pages that all lead to one agree in one page at most.
    """
    if one.constant and other.constant and one.page_size != other.page_size:
        return one.start + max(one.page_size, other.page_size)
    if one.constant == other.constant:
        return 1 << 64
    row, repeated = (other, one) if one.constant else (one, other)
    ahead = repeated.output - row.output
    if ahead < 0 or ahead % repeated.page_size:
        return 1 << 64
    return row.start + (ahead or repeated.page_size)


def _both(one: MappedRange, other: MappedRange) -> Iterator[Change]:
    """Yield the difference of two mappings of the same inputs."""
    alike = (one.output, one.constant) == (other.output, other.constant)
    if alike and one.shape == other.shape:
        return
    first, second = _side(one), _side(other)
    what = tuple(name for name in _COMPARED if getattr(first, name) != getattr(second, name))
    if what:
        yield Change("changed" if alike else "moved", one.start, one.end, first, second, what)


_COMPARED = (
    "pa",
    "rights",
    "exec",
    "memory",
    "shareability",
    "page_size",
    "contiguous",
    "access_flag",
    "constant",
    "space",
)


def _side(found: MappedRange) -> Side:
    return Side(
        pa=found.output,
        rights=rights_words(found),
        exec=found.exec,
        memory=found.memory,
        # Without MAIR_ELx neither is known.
        shareability="unknown" if found.memory == "unknown" else found.shareability,
        page_size=found.page_size,
        contiguous=found.contiguous,
        access_flag=found.access_flag,
        constant=found.constant,
        space=found.space,
    )


def _joined(last: Change, new: Change) -> Change | None:
    """Return two changes as one where the second continues the first on both sides."""
    if (last.kind, last.end, last.what) != (new.kind, new.start, new.what):
        return None
    size = last.end - last.start
    if not (_continues(last.before, new.before, size) and _continues(last.after, new.after, size)):
        return None
    return replace(last, end=new.end)


def _continues(last: Side | None, new: Side | None, size: int) -> bool:
    if last is None or new is None:
        return last is new
    ahead = 0 if last.constant else size
    return new.pa == last.pa + ahead and replace(new, pa=last.pa) == last
