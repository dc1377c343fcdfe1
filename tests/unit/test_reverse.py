"""The reverse index and the arithmetic of ranges, against what a look at every range says."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.pagetables import AF, EVERYTHING, Format, SparseMemory, Tables, stage2_vtcr

from gdbhyp.arch.regimes import Regime
from gdbhyp.engine.machine import Machine
from gdbhyp.engine.map import MappedRange, map_stage
from gdbhyp.engine.ranges import Ranges, difference, intersection, total, union
from gdbhyp.engine.reverse import ReverseMap

RW2 = AF | 0b11 << 6 | 0b1111 << 2
RO2 = AF | 0b01 << 6 | 0b1111 << 2


def machine(tables: Tables) -> Machine:
    registers = {"VTCR_EL2": stage2_vtcr(tables.form, 39, 1), "VTTBR_EL2": tables.ttbr()}
    return Machine(EVERYTHING | registers, tables.memory)


def tree() -> Tables:
    return Tables(SparseMemory(), Format(12), 39, 1)


def reverse(tables: Tables) -> ReverseMap:
    return ReverseMap(map_stage(machine(tables), Regime.EL10, 2))


PAGE = 0x1000
mappings = st.lists(st.tuples(st.integers(0, 2047), st.integers(0, 63), st.booleans()), max_size=40)


def pages(items: Iterable[MappedRange]) -> set[tuple[int, int, bool]]:
    """Every page of ranges by itself: input, output, whether it is writable."""
    return {
        (at, item.output if item.constant else item.output + at - item.start, item.write)
        for item in items
        for at in range(item.start, item.end, PAGE)
    }


@given(mappings, mappings, st.integers(0, 0x50), st.integers(1, 9))
def test_finds_what_a_look_at_every_page_finds(
    small: list[tuple[int, int, bool]], large: list[tuple[int, int, bool]], first: int, count: int
) -> None:
    tables = tree()
    for page, output, writable in small:
        tables.map(page * PAGE, output * PAGE, 3, RW2 if writable else RO2)
    for block, output, writable in large:
        tables.map((1 << 30) + block % 512 * 0x20_0000, output * 0x20_0000, 2, RW2 if writable else RO2)
    start, end = first * PAGE, (first + count) * PAGE
    everything = [r for r in map_stage(machine(tables), Regime.EL10, 2) if isinstance(r, MappedRange)]
    expected = {page for page in pages(everything) if start <= page[1] < end}
    assert pages(reverse(tables).find(start, end)) == expected


def test_constant_ranges_come_whole() -> None:
    tables = tree()
    for page in range(512):
        tables.map(page << 12, 0x9000, 3, RW2)
    (found,) = reverse(tables).find(0x9010, 0x9011)
    assert (found.start, found.end, found.output, found.constant) == (0, 0x20_0000, 0x9000, True)
    assert reverse(tables).find(0xA000, 0xB000) == []


def test_a_large_range_does_not_hide_small_ones() -> None:
    tables = tree()
    tables.map(1 << 30, 1 << 30, 1, RW2)
    tables.map(0x1000, (1 << 30) + 0x5000, 3, RO2)
    found = reverse(tables).find((1 << 30) + 0x5800, (1 << 30) + 0x5900)
    assert [(item.start, item.end, item.write) for item in found] == [
        (0x1800, 0x1900, False),
        ((1 << 30) + 0x5800, (1 << 30) + 0x5900, True),
    ]


def test_covered_and_offsets() -> None:
    tables = tree()
    tables.map(0x3000, 0x9000, 3, RW2)
    tables.map(0x1000, 0xA000, 3, RW2)
    tables.map(0x2000, 0xA000, 3, RO2)
    found = reverse(tables)
    assert found.covered(lambda kind: kind.write) == [(0x9000, 0xB000)]
    assert found.covered(lambda kind: not kind.write) == [(0xA000, 0xB000)]
    assert found.offsets(lambda kind: kind.write) == {
        0x3000 - 0x9000: [(0x9000, 0xA000)],
        0x1000 - 0xA000: [(0xA000, 0xB000)],
    }


def test_problems_are_counted() -> None:
    tables = tree()
    tables.put(tables.slot(0x1000, 3), 0x9000 | AF | 1)
    tables.map(0x2000, 0xA000, 3, RW2)
    found = reverse(tables)
    assert [problem.kind for problem in found.problems] == ["reserved"]
    assert (found.problem_count, len(found)) == (1, 1)


def test_too_many_ranges_are_a_problem() -> None:
    tables = tree()
    for page in range(6):
        tables.map(page * PAGE, (20 - 2 * page) * PAGE, 3, RW2)
    found = ReverseMap(map_stage(machine(tables), Regime.EL10, 2), most=4)
    assert (len(found), found.problem_count) == (4, 1)
    (problem,) = found.problems
    assert (problem.kind, problem.start, problem.text) == (
        "budget",
        4 * PAGE,
        "there are more ranges than are looked at",
    )


sets = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=8)


def members(ranges: Ranges) -> set[int]:
    return {number for start, end in ranges for number in range(start, end)}


@pytest.mark.parametrize("name", ["union", "intersection", "difference"])
@given(a=sets, b=sets)
def test_ranges_are_sets(name: str, a: Ranges, b: Ranges) -> None:
    first, second = union(a), union(b)
    assert members(first) == members(a)
    result = {
        "union": union([*first, *second]),
        "intersection": intersection(first, second),
        "difference": difference(first, second),
    }[name]
    expected = {
        "union": members(a) | members(b),
        "intersection": members(a) & members(b),
        "difference": members(a) - members(b),
    }[name]
    assert members(result) == expected
    assert total(result) == len(expected)
    assert all(start < end for start, end in result)
    if name == "union":
        assert all(before[1] < after[0] for before, after in pairwise(result))
