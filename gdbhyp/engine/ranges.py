"""Sets of addresses, as ascending lists of ranges (start, end) that neither touch nor overlap; ends are exclusive.

>>> intersection([(0, 4), (6, 9)], [(2, 7)])
[(2, 4), (6, 7)]
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Range = tuple[int, int]
Ranges = list[Range]


def union(items: Iterable[Range]) -> Ranges:
    """Return the addresses that are in any of ``items``, which may come in any order and overlap; each once."""
    return joined(sorted(items))


def joined(items: Iterable[Range]) -> Ranges:
    """Return the same for ranges that come in the order of their starts."""
    found: Ranges = []
    first = last = -1
    for start, end in items:
        if start <= last:
            last = max(last, end)
        elif start < end:
            if last > first:
                found.append((first, last))
            first, last = start, end
    if last > first:
        found.append((first, last))
    return found


def intersection(first: Sequence[Range], second: Sequence[Range]) -> Ranges:
    """Return the addresses that are in both."""
    found = []
    i = j = 0
    while i < len(first) and j < len(second):
        start = max(first[i][0], second[j][0])
        end = min(first[i][1], second[j][1])
        if start < end:
            found.append((start, end))
        if first[i][1] < second[j][1]:
            i += 1
        else:
            j += 1
    return found


def difference(first: Sequence[Range], second: Sequence[Range]) -> Ranges:
    """Return the addresses of ``first`` that are not in ``second``."""
    found = []
    j = 0
    for start, end in first:
        at = start
        while j < len(second) and second[j][1] <= at:
            j += 1
        k = j
        while k < len(second) and second[k][0] < end:
            if second[k][0] > at:
                found.append((at, second[k][0]))
            at = max(at, second[k][1])
            k += 1
        if at < end:
            found.append((at, end))
    return found


def total(items: Iterable[Range]) -> int:
    """Return how many bytes there are."""
    return sum(end - start for start, end in items)
