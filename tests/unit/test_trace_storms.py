"""Refault storms: faults that are repeated without progress."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from gdbhyp.trace.events import Event, Returned, Taken
from gdbhyp.trace.statistics import Statistics

HCR, VTTBR = 1, 3 << 48 | 0x1000
FAULT = 0x24 << 26 | 0x07
PC, FAR = 0x9000, 0x5000


WALK = FAULT | 1 << 7
"""The same on a walk of the guest's stage 1: S1PTW."""


def fault(seq: int, *, pc: int = PC, far: int = FAR, esr: int = FAULT, hpfar: int | None = None) -> Taken:
    return Taken(seq, 0, 0x2400, 1, seq * 1000, esr, far, hpfar, pc, hcr=HCR, vttbr=VTTBR)


def back(seq: int, pc: int = PC) -> Returned:
    return Returned(seq, 0, 1, pc, hcr=HCR, vttbr=VTTBR)


def storms(events: Iterable[Event]) -> list[tuple[int, int, int]]:
    statistics = Statistics("test")
    statistics.extend(events)
    return [(row.faults, row.runs, row.longest) for row in statistics.report().storms]


def again(times: int, pc_of_return: int = PC) -> list[Event]:
    return [event for n in range(times) for event in (fault(2 * n), back(2 * n + 1, pc_of_return))]


@pytest.mark.parametrize(("times", "found"), [(2, []), (3, [(3, 1, 3)]), (50, [(50, 1, 50)])])
def test_no_progress(times: int, found: list[tuple[int, int, int]]) -> None:
    assert storms(again(times)) == found


def test_polling_is_progress() -> None:
    """EL2 emulates the load and returns behind it; the guest's loop comes round again."""
    assert storms(again(50, PC + 4)) == []


def test_unknown_returns_are_no_evidence() -> None:
    assert storms([event for event in again(50) if isinstance(event, Taken)]) == []


def test_two_storms_at_one_place() -> None:
    assert storms([*again(4), fault(100, pc=PC + 8), back(101), *again(5)]) == [(9, 2, 5)]


def test_another_address_is_progress() -> None:
    pairs = [(fault(2 * n, far=FAR + 8 * n), back(2 * n + 1)) for n in range(10)]
    assert storms(event for pair in pairs for event in pair) == []


def walk(tables: Iterable[int | None]) -> list[Event]:
    """A walk whose tables fault one after another, with the same FAR_EL2."""
    pairs = [(fault(2 * n, esr=WALK, hpfar=table), back(2 * n + 1)) for n, table in enumerate(tables)]
    return [event for pair in pairs for event in pair]


def test_each_table_of_a_walk_is_progress() -> None:
    """A stage-1 walk has up to five tables, each of which may be missing from stage 2."""
    assert storms(walk([0x100, 0x200, 0x300, 0x400])) == []
    assert storms(walk([0x100] * 4)) == [(4, 1, 4)]


def test_walk_without_hpfar_may_have_progressed() -> None:
    """A log says nothing of the table, so only more faults than tables are a storm."""
    assert storms(walk([None] * 6)) == []
    assert storms(walk([None] * 7)) == [(7, 1, 7)]


def test_rate() -> None:
    statistics = Statistics("test")
    statistics.extend(again(5))
    (row,) = statistics.report().storms
    # Four more faults in eight microseconds.
    assert row.per_second == 500_000


def test_who_and_where() -> None:
    statistics = Statistics("test")
    statistics.extend(again(3))
    (row,) = statistics.report().storms
    assert (row.world, row.vmid, row.cpu, row.pc, row.far, row.esr) == ("guest", 3, 0, PC, FAR, FAULT)
