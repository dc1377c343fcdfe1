"""What changed between two maps: ranges that came, went, moved to another output, or have other attributes.

Both are streams in ascending order, as a map yields them, and are read side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from gdbhyp.analyses.find import rights_words
from gdbhyp.arch.spaces import Address
from gdbhyp.engine.mapped import MappedRange

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
    for change in _pieces(iter(before), iter(after)):
        joined = _joined(last, change) if last is not None else None
        if joined is None and last is not None:
            yield last
        last = joined or change
    if last is not None:
        yield last


def _pieces(before: Iterator[MappedRange], after: Iterator[MappedRange]) -> Iterator[Change]:
    """Yield differences piece by piece, each piece inside one range of either side."""
    one, other = next(before, None), next(after, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one.start < other.start):
            assert one is not None
            end = one.end if other is None else min(one.end, other.start)
            yield Change("removed", one.start, end, _side(one), None, ())
            one = _rest(one, end) or next(before, None)
        elif one is None or other.start < one.start:
            end = other.end if one is None else min(other.end, one.start)
            yield Change("added", other.start, end, None, _side(other), ())
            other = _rest(other, end) or next(after, None)
        else:
            end = min(one.end, other.end)
            yield from _both(one, other, end)
            one = _rest(one, end) or next(before, None)
            other = _rest(other, end) or next(after, None)


def _both(one: MappedRange, other: MappedRange, end: Address) -> Iterator[Change]:
    """Yield the difference of two mappings of the same inputs, up to ``end``."""
    single = end - one.start <= min(one.page_size or 1, other.page_size or 1)
    alike = one.output == other.output and (one.constant == other.constant or single)
    if alike and one.shape == other.shape:
        return
    first, second = _side(one), _side(other)
    what = tuple(name for name in _COMPARED if getattr(first, name) != getattr(second, name))
    if single:
        what = tuple(name for name in what if name != "constant")
    if what:
        yield Change("changed" if alike else "moved", one.start, end, first, second, what)


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


def _rest(found: MappedRange, start: Address) -> MappedRange | None:
    if start >= found.end:
        return None
    output = found.output if found.constant else Address(found.output + start - found.start)
    return found._replace(start=start, output=output)


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
