"""A translation as a few bands, to be drawn to scale: what lies close together and looks alike is one band."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

from gdbhyp.analyses.find import rights_words
from gdbhyp.analyses.map import MapReport, MapRow
from gdbhyp.arch.spaces import Address
from gdbhyp.engine.map import MappedRange, Problem

Look = Literal["code", "data", "constant", "writable code", "device", "no access", "several"]
"""What a range is to an eye: executable, writable, only readable, writable and executable, device memory (whatever its
rights), neither; "several" where ranges of different looks are drawn as one."""


@dataclass(frozen=True, slots=True)
class Band:
    """``start`` to ``end`` (exclusive) holds ``ranges`` merged ranges, of which ``mapped`` bytes in all are mapped.

    ``output`` is where ``start`` leads if it is one range, else None; so are ``rights`` and ``memory`` None where the
    ranges differ in them.
    """

    start: Address
    end: Address
    output: Address | None
    ranges: int
    mapped: int
    look: Look
    rights: str | None
    memory: str | None


@dataclass(frozen=True)
class Drawing:
    """One tree of tables by bands, ascending: ``ranges`` and ``mapped`` bytes in all, and what could not be read.

    ``label`` names the tree; ``coarse`` says that some bands hold several ranges. ``stretches`` are the parts of the
    address space, (start, end), that have something in them.
    """

    label: str
    input_space: str
    output_space: str
    ranges: int
    mapped: int
    coarse: bool
    bands: tuple[Band, ...]
    stretches: tuple[tuple[Address, Address], ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class BarsReport:
    """A map drawn to scale: a bar for each stretch of addresses with something in it."""

    kind: ClassVar[str] = "bars"

    drawing: Drawing
    problems: tuple[str, ...]


# Bands that a terminal's bars are drawn from.
_BANDS_OF_BARS = 4_000


def bars(report: MapReport) -> BarsReport:
    """Draw what is mapped."""
    which = {"1": "stage 1", "2": "stage 2", "both": "both stages"}[report.stages]
    drawing = draw(f"{report.regime.value} regime, {which}", report.rows, _BANDS_OF_BARS)
    return BarsReport(drawing, tuple(report.problems))


def draw(label: str, items: Iterable[MappedRange | MapRow | Problem], most: int) -> Drawing:
    """Draw what a tree maps with at most ``most`` bands, in memory that does not grow with the tree."""
    problems: list[str] = []
    spaces = "VA", "PA"
    bands: list[Band] = []
    ranges = mapped = 0
    for item in items:
        if isinstance(item, Problem):
            problems.append(f"{item.start:#x} to {item.end:#x}: {item.text}")
            continue
        spaces = item.input_space, item.output_space
        band = _of_row(item) if isinstance(item, MapRow) else _of_range(item)
        ranges += 1
        mapped += band.mapped
        bands.append(band)
        if len(bands) >= 4 * most:
            bands = coarser(bands, 2 * most)
    bands = coarser(bands, most)
    coarse = any(band.ranges > 1 for band in bands)
    return Drawing(
        label,
        *spaces,
        ranges,
        mapped,
        coarse,
        tuple(bands),
        stretches(bands),
        tuple(problems[:_MOST_PROBLEMS]),
    )


_MOST_PROBLEMS = 100


def _of_range(item: MappedRange) -> Band:
    look = look_of(
        item.memory,
        item.read or bool(item.el0_read),
        item.write or bool(item.el0_write),
        item.execute or bool(item.el0_execute),
        item.access_flag,
    )
    size = item.end - item.start
    return Band(item.start, item.end, item.output, 1, size, look, rights_words(item), item.memory)


def _of_row(row: MapRow) -> Band:
    look = look_of(
        row.memory,
        row.read or bool(row.el0_read),
        row.write or bool(row.el0_write),
        row.exec != "never",
        row.access_flag,
    )
    return Band(row.start, row.end, row.pa, 1, row.size, look, row.rights, row.memory)


def look_of(memory: str, read: bool, write: bool, execute: bool, access_flag: bool) -> Look:
    """Return what a range is to an eye; the rights are those that anybody has."""
    if memory.startswith("Device"):
        return "device"
    if not access_flag or not (read or write or execute):
        return "no access"
    if execute:
        return "writable code" if write else "code"
    return "data" if write else "constant"


def coarser(bands: list[Band], most: int) -> list[Band]:
    """Join neighbours until there are at most ``most``: first those whose union is shortest."""
    while len(bands) > most:
        spans = [right.end - left.start for left, right in pairwise(bands)]
        # Half of the surplus a round at least, for every other neighbour can be joined with the one before it.
        limit = sorted(spans)[min(len(bands) - most, len(spans)) - 1]
        bands = list(_joined(bands, limit, len(bands) - most))
    return bands


def _joined(bands: Iterable[Band], limit: int, surplus: int) -> Iterator[Band]:
    held: Band | None = None
    joined = False
    for band in bands:
        if held is None:
            held = band
        elif surplus and not joined and band.end - held.start <= limit:
            held, joined = _union(held, band), True
            surplus -= 1
        else:
            yield held
            held, joined = band, False
    if held is not None:
        yield held


def _union(left: Band, right: Band) -> Band:
    return Band(
        left.start,
        right.end,
        None,
        left.ranges + right.ranges,
        left.mapped + right.mapped,
        left.look if left.look == right.look else "several",
        left.rights if left.rights == right.rights else None,
        left.memory if left.memory == right.memory else None,
    )


def stretches(bands: Sequence[Band]) -> tuple[tuple[Address, Address], ...]:
    """Return the stretches of addresses that something is mapped in, without the wide emptiness between them.

    A stretch is parted at its widest gap as long as that is a quarter of it, and there are not too many.
    """
    parts = [(0, len(bands))] if bands else []
    whole: list[tuple[int, int]] = []
    while parts:
        first, end = parts.pop(0)
        at = max(range(first + 1, end), key=lambda n: bands[n].start - bands[n - 1].end, default=first)
        gap = bands[at].start - bands[at - 1].end if at > first else 0
        parting = (
            4 * gap >= bands[end - 1].end - bands[first].start
            and len(parts) + len(whole) + 2 <= _MOST_STRETCHES
        )
        if gap > 0 and parting:
            parts += [(first, at), (at, end)]
        else:
            whole.append((first, end))
    return tuple((bands[first].start, bands[end - 1].end) for first, end in sorted(whole))


_MOST_STRETCHES = 48
