"""Refault storms: faults that are repeated without progress."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from gdbhyp.trace.events import Event, Returned, Taken
from gdbhyp.trace.statistics import Statistics

HCR, VTTBR = 1, 3 << 48 | 0x1000
FAULT = 0x24 << 26 | 0x07
PC, FAR = 0x9000, 0x5000


def fault(seq: int, *, pc: int = PC, far: int = FAR) -> Taken:
    return Taken(seq, 0, 0x2400, 1, esr=FAULT, elr=pc, far=far, hcr=HCR, vttbr=VTTBR)


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


def test_who_and_where() -> None:
    statistics = Statistics("test")
    statistics.extend(again(3))
    (row,) = statistics.report().storms
    assert (row.world, row.vmid, row.cpu, row.pc, row.far, row.esr) == ("guest", 3, 0, PC, FAR, FAULT)
