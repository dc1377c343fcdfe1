"""What a measurement is, and the table of them: ratios to the floor first."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from tabulate import tabulate

MS, RATE = "ms", "/s"
RATES = (RATE, "/s of CPU", "times")
"""What is better when there is more of it."""


@dataclass(frozen=True)
class Row:
    """A measurement: a cost or a rate, what is wanted of it, and its floor, the same reads with nothing done.

    ``value`` is the median of several rounds and ``least`` the best of them. Over the wire went packets that read
    ``registers``, ``reads`` of physical memory, and ``other`` ones: three switch the stub to physical memory and back,
    and GDB itself looks at the code around the PC, as after every stop. ``traffic`` are the bytes both ways.
    """

    name: str
    value: float
    unit: str
    wanted: float | None = None
    floor: float | None = None
    registers: int | None = None
    reads: int | None = None
    other: int | None = None
    traffic: int | None = None
    least: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times the floor it costs."""
        if not self.floor or not self.value:
            return None
        return self.floor / self.value if self.more_is_better else self.value / self.floor

    @property
    def missed(self) -> bool:
        """Whether it is not what is wanted."""
        if self.wanted is None:
            return False
        return self.value < self.wanted if self.more_is_better else self.value > self.wanted

    @property
    def more_is_better(self) -> bool:
        return self.unit in RATES


def timed(
    work: Callable[[], object], rounds: int, clock: Callable[[], float] = time.process_time
) -> list[float]:
    """Return the seconds that each of several rounds took, by ``clock``."""
    times = []
    for _ in range(rounds):
        start = clock()
        work()
        times.append(clock() - start)
    return times


def median(work: Callable[[], object], rounds: int) -> float:
    """Return the median processor time of several rounds, in seconds."""
    return statistics.median(timed(work, rounds))


def children_time() -> float:
    """Return the processor time of child processes that have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def show(rows: list[Row], older: dict[str, float]) -> str:
    """Return the table."""
    headers = ["x floor", "", "measured", "best", "wanted", "floor", "registers", "reads", "other", "bytes"]
    cells = []
    for row in rows:
        bound = "" if row.wanted is None else (">= " if row.more_is_better else "<= ") + number(row.wanted)
        cell = [
            "" if row.ratio is None else f"{row.ratio:.2f}",
            row.name,
            f"{number(row.value)} {row.unit}",
            "" if row.least is None else number(row.least),
            bound + (" MISSED" if row.missed else ""),
            "" if row.floor is None else number(row.floor),
            *("" if n is None else f"{n:,}" for n in (row.registers, row.reads, row.other, row.traffic)),
        ]
        if older:
            before = older.get(row.name)
            cell += (
                ["", ""] if before is None else [number(before), f"{100 * (row.value / before - 1):+.0f} %"]
            )
        cells.append(cell)
    if older:
        headers += ["before", "change"]
    align = ["right", "left"] + ["right"] * (len(headers) - 2)
    return tabulate(cells, headers, tablefmt="simple", colalign=align, disable_numparse=True)


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
