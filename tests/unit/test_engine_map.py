"""Whole tables: what the map says of an address is what a single walk says."""

from __future__ import annotations

from itertools import islice, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.pagetables import AF, EVERYTHING, MAIR, Format, SparseMemory, Tables, stage1_tcr, stage2_vtcr

from gdbhyp.arch.attributes import shareability_words
from gdbhyp.engine.machine import Machine
from gdbhyp.engine.map import Budget, MappedRange, Problem, map_both, map_stage
from gdbhyp.engine.translate import Regime, translate

RW2 = AF | 0b11 << 6 | 0b1111 << 2
FORMATS = [
    Format(12),
    Format(12, ds=True),
    Format(14),
    Format(14, ds=True),
    Format(16, lpa=True),
]


def stage2_machine(tables: Tables, bits: int, start: int) -> Machine:
    vtcr = stage2_vtcr(tables.form, bits, start)
    return Machine(EVERYTHING | {"VTCR_EL2": vtcr, "VTTBR_EL2": tables.ttbr()}, tables.memory)


def stage1_machine(tables: Tables, bits: int, **extra: int) -> Machine:
    regs = EVERYTHING | {"TCR_EL1": stage1_tcr(tables.form, bits), "TTBR0_EL1": tables.ttbr()}
    return Machine(regs | {"SCTLR_EL1": 5, "MAIR_EL1": MAIR} | extra, tables.memory)


def ranges(items: object) -> list[MappedRange]:
    return [item for item in items if isinstance(item, MappedRange)]  # type: ignore[attr-defined]


def problems(items: object) -> list[Problem]:
    return [item for item in items if isinstance(item, Problem)]  # type: ignore[attr-defined]


def test_neighbours_join_over_tables() -> None:
    tables = Tables(SparseMemory(), Format(12), 39, 1)
    for page in range(0x1FE, 0x203):
        tables.map(page << 12, (0x80000 + page) << 12, 3, RW2)
    (only,) = map_stage(stage2_machine(tables, 39, 1), Regime.EL10, 2)
    assert isinstance(only, MappedRange)
    assert (only.start, only.end, only.output) == (0x1FE000, 0x203000, 0x801FE000)
    assert (only.read, only.write, only.execute, only.exec) == (True, True, True, "EL1+EL0")
    assert (only.level, only.page_size, only.memory) == (3, 4096, "Normal Write-Back")


def test_differences_keep_apart() -> None:
    """Another right, memory type, size, output or shareability ends a range."""
    tables = Tables(SparseMemory(), Format(12), 39, 1)
    attributes = [RW2, RW2, AF | 1 << 6 | 0xF << 2, RW2 & ~(0xF << 2), RW2 | 3 << 8, RW2 | 2 << 53]
    for page, bits in enumerate(attributes):
        tables.map(page << 12, 0x4000_0000 + (page << 12), 3, bits)
    tables.map(6 << 12, 0x7000_0000, 3, RW2 | 2 << 53)
    tables.map(2 << 21, 0x4040_0000, 2, RW2)
    found = ranges(map_stage(stage2_machine(tables, 39, 1), Regime.EL10, 2))
    assert [(r.start >> 12, r.end >> 12) for r in found] == [
        (0, 2),
        (2, 3),
        (3, 4),
        (4, 5),
        (5, 6),
        (6, 7),
        (0x400, 0x600),
    ]
    assert [r.exec for r in found][-3:] == ["never", "never", "EL1+EL0"]


def test_software_bits_do_not_keep_apart() -> None:
    tables = Tables(SparseMemory(), Format(12), 39, 1)
    tables.map(0x1000, 0x9000, 3, RW2)
    tables.map(0x2000, 0xA000, 3, RW2 | 0b11 << 56)
    tables.map(0x3000, 0xB000, 3, RW2)
    assert len(list(map_stage(stage2_machine(tables, 39, 1), Regime.EL10, 2))) == 1


def test_upper_half_is_canonical_and_last() -> None:
    tables = Tables(SparseMemory(), Format(12), 39, 1)
    tables.map(0x5000, 0x9000)
    regs = dict(stage1_machine(tables, 39).registers)  # type: ignore[call-overload]
    tcr = 25 | 25 << 16 | 0b10 << 30 | 5 << 32
    regs |= {"TCR_EL1": tcr, "TTBR1_EL1": tables.ttbr()}
    found = ranges(map_stage(Machine(regs, tables.memory), Regime.EL10, 1))
    assert [r.start for r in found] == [0x5000, 0xFFFF_FF80_0000_5000]
    top = ranges(map_stage(Machine(regs, tables.memory), Regime.EL10, 1, start=1 << 63))
    assert [(r.start, r.end, r.output) for r in top] == [
        (0xFFFF_FF80_0000_5000, 0xFFFF_FF80_0000_6000, 0x9000)
    ]


@pytest.mark.parametrize("indirect", [False, True])
def test_e0pd_leaves_nothing_to_el0(indirect: bool) -> None:
    """TCR_EL1.E0PD0 makes every access from EL0 fault; the rights of EL1 stay those that the descriptor gives."""
    tables = Tables(SparseMemory(), Format(12), 39, 1)
    tables.map(0x1000, 0x9000, 3, AF if indirect else AF | 0b01 << 6)
    extra = {}
    if indirect:
        enabled = {"SCR_EL3": 1 << 43 | 1 << 38 | 1, "HCRX_EL2": 1 << 14, "TCR2_EL1": 1 << 1}
        extra = enabled | {"PIR_EL1": 0x5555_5555_5555_5555, "PIRE0_EL1": 0x5555_5555_5555_5555}
    (open_to_el0,) = ranges(map_stage(stage1_machine(tables, 39, **extra), Regime.EL10, 1))
    e0pd0 = {"TCR_EL1": stage1_tcr(tables.form, 39) | 1 << 55}
    closed = stage1_machine(tables, 39, **extra | e0pd0)
    (row,) = ranges(map_stage(closed, Regime.EL10, 1))
    assert (open_to_el0.el0_read, open_to_el0.el0_write) == (True, True)
    assert (row.el0_read, row.el0_write, row.el0_execute) == (False, False, False)
    assert (row.read, row.write, row.execute) == (
        open_to_el0.read,
        open_to_el0.write,
        open_to_el0.execute,
    )
    walk = translate(closed, 0x1000, Regime.EL10, stages="1")
    assert walk.permissions is not None
    assert (walk.permissions.read, walk.permissions.el0_read) == (True, False)


def test_pruning_cuts_and_does_not_read() -> None:
    tables = Tables(SparseMemory(), Format(12), 39, 1)
    for block in range(64):
        for page in (0, 1, 2):
            at = (block << 21) + (page << 12)
            tables.map(at, 0x1_0000_0000 + at, 3, RW2)
    machine = stage2_machine(tables, 39, 1)
    tables.memory.reads = 0
    found = ranges(map_stage(machine, Regime.EL10, 2, start=(5 << 21) + 0x800, end=(5 << 21) + 0x1800))
    assert [(r.start, r.end, r.output) for r in found] == [
        ((5 << 21) + 0x800, (5 << 21) + 0x1800, 0x1_0000_0000 + (5 << 21) + 0x800)
    ]
    assert tables.memory.reads == 3


def test_unreadable_table_takes_nothing_with_it() -> None:
    tables = Tables(SparseMemory(), Format(12), 39, 1)
    tables.map(0, 0x9000, 3, RW2)
    tables.map(3 << 21, 0xA000, 3, RW2)
    # A table pointer into nowhere between the two.
    tables.put(tables.slot(1 << 21, 2), 0x7777_0000 | 3)
    found = list(map_stage(stage2_machine(tables, 39, 1), Regime.EL10, 2))
    assert [type(item) for item in found] == [MappedRange, Problem, MappedRange]
    problem = problems(found)[0]
    assert (problem.kind, problem.start, problem.end) == ("unreadable", 1 << 21, 2 << 21)
    assert (problem.level, problem.address, problem.address_space) == (3, 0x7777_0000, "PA")


def test_half_a_table() -> None:
    """A 64 KiB table of which a page is missing: the pages before and after it are mapped as ever."""
    form = Format(16)
    tables = Tables(SparseMemory(), form, 42, 2)
    regs = {"VTCR_EL2": stage2_vtcr(form, 42, 2), "VTTBR_EL2": tables.ttbr()}
    for page in range(0, 8192, 64):
        tables.map(page << 16, page << 16, 3, RW2)
    leaf = tables.slot(0, 3)
    del tables.memory.pages[(leaf >> 12) + 5]
    machine = Machine(EVERYTHING | {"ID_AA64MMFR0_EL1": 5} | regs, tables.memory)
    found = list(map_stage(machine, Regime.EL10, 2))
    hole = problems(found)
    assert [(p.start, p.end) for p in hole] == [(5 * 512 << 16, 6 * 512 << 16)]
    assert len(ranges(found)) == 128 - 8


def test_reserved_and_too_large_are_said() -> None:
    tables = Tables(SparseMemory(), Format(12), 39, 1)
    tables.map(0, 0x9000, 3, RW2)
    tables.put(tables.slot(0x1000, 3), 0x1234_5001)  # a block at level 3
    tables.put(tables.slot(0x2000, 3), 0x1234_5002)  # invalid: nobody's business
    tables.map(0x3000, 1 << 45, 3, RW2)
    regs = {"VTCR_EL2": stage2_vtcr(tables.form, 39, 1, ps=44), "VTTBR_EL2": tables.ttbr()}
    found = list(map_stage(Machine(EVERYTHING | regs, tables.memory), Regime.EL10, 2))
    assert [(p.kind, p.start) for p in problems(found)] == [("reserved", 0x1000), ("address_size", 0x3000)]
    assert problems(found)[0].descriptor == 0x1234_5001


def test_self_references_end() -> None:
    """Every entry of the root points to the root: the budget ends what the levels alone would not."""
    tables = Tables(SparseMemory(), Format(12), 48, 0)
    for index in range(512):
        tables.memory.write_word(tables.root + 8 * index, tables.root | AF | 0b11 << 6 | 3)
    machine = stage2_machine(tables, 48, 0)
    # All entries being equal, the whole space is one page over and over, and is found to be.
    (only,) = map_stage(machine, Regime.EL10, 2)
    assert isinstance(only, MappedRange)
    assert (only.start, only.end, only.output, only.constant) == (0, 1 << 48, tables.root, True)
    # One other entry, and it has to be unfolded.
    tables.memory.write_word(tables.root + 8, 0)
    found = list(map_stage(machine, Regime.EL10, 2, budget=Budget(50)))
    assert found[-1] == problems(found)[-1]
    assert problems(found)[-1].kind == "budget"
    assert problems(found)[-1].end == 1 << 48


def test_endless_tables_stream() -> None:
    tables = Tables(SparseMemory(), Format(12), 48, 0)
    for index in range(0, 512, 2):
        tables.memory.write_word(tables.root + 8 * index, tables.root | AF | 0b11 << 6 | 3)
    first = list(islice(map_stage(stage2_machine(tables, 48, 0), Regime.EL10, 2), 5))
    assert [item.start for item in first] == [0, 0x2000, 0x4000, 0x6000, 0x8000]


def test_stage1_off_is_flat() -> None:
    tables = Tables(SparseMemory(), Format(12), 39, 1)
    (only,) = map_stage(stage1_machine(tables, 39, SCTLR_EL1=0), Regime.EL10, 1)
    assert isinstance(only, MappedRange)
    assert (only.start, only.end, only.output, only.level) == (0, 1 << 52, 0, None)
    assert only.memory == "Device-nGnRnE"


@pytest.mark.parametrize("value", [64 - 53, 64 - 12])
def test_registers_that_allow_no_walk(value: int) -> None:
    tables = Tables(SparseMemory(), Format(12), 39, 1)
    regs = {"VTCR_EL2": stage2_vtcr(tables.form, 39, 1) & ~63 | value, "VTTBR_EL2": tables.ttbr()}
    (only,) = map_stage(Machine(EVERYTHING | regs, tables.memory), Regime.EL10, 2)
    assert isinstance(only, Problem)
    assert only.kind == "registers"


def test_a_table_in_a_protected_granule() -> None:
    """The granule protection table gives the gigabyte of the level 3 table to Root."""
    memory = SparseMemory()
    tables = Tables(memory, Format(12), 39, 1, 0x10_0000)
    tables.slot(0, 2)
    tables.next_free = 0x4000_0000
    tables.map(0x5000, 0x9000)
    memory.write_word(0x2_0000, 0x91)  # the first gigabyte is Non-secure
    memory.write_word(0x2_0008, 0xA1)
    rme = {"ID_AA64PFR0_EL1": 1 << 36 | 1 << 52, "SCR_EL3": 1}
    gpt = {"GPCCR_EL3": 1 << 16 | 2 | 3 << 12 | 1 << 10 | 1 << 8, "GPTBR_EL3": 0x20}
    machine = stage1_machine(tables, 39, **rme, **gpt)
    (only,) = map_stage(machine, Regime.EL10, 1)
    assert isinstance(only, Problem)
    assert (only.kind, only.level, only.address) == ("unreadable", 3, 0x4000_0000)
    assert "granule protection (fail at level 0)" in only.text
    fault = translate(machine, 0x5000, Regime.EL10).fault
    assert fault is not None
    assert (fault.kind, fault.level) == ("granule_protection", 3)


def test_a_table_that_stage2_does_not_let_be_read() -> None:
    """Stage 2 maps the level 3 table without the right to read: a walk faults there, and so does the map."""
    memory = SparseMemory()
    tables = Tables(memory, Format(12), 39, 1, 0x10_0000)
    tables.map(0x5000, 0x9000)
    leaf_table = tables.slot(0x5000, 3) & ~0xFFF
    second = Tables(memory, Format(12), 39, 1, 0x40_0000)
    for page in (tables.root, tables.slot(0, 2) & ~0xFFF, 0x9000):
        second.map(page, page, 3, RW2)
    second.map(leaf_table, leaf_table, 3, AF | 2 << 6 | 0b1111 << 2)
    two = {"VTCR_EL2": stage2_vtcr(Format(12), 39, 1), "VTTBR_EL2": second.ttbr(), "HCR_EL2": 1}
    machine = stage1_machine(tables, 39, **two)
    fault = translate(machine, 0x5000, Regime.EL10).fault
    assert fault is not None
    assert (fault.kind, fault.s1ptw) == ("permission", True)
    (only,) = map_stage(machine, Regime.EL10, 1)
    assert isinstance(only, Problem)
    assert (only.kind, only.level, only.address_space) == ("unreadable", 3, "IPA")
    assert "stage 2 has a permission fault at level 3" in only.text


LEAF_ATTRIBUTES = st.sampled_from([RW2, AF | 1 << 6, RW2 | 2 << 53, RW2 | 1 << 52, RW2 & ~AF, RW2 | 1 << 51])


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Tables, int, int, list[int]]:
    """Tables with clusters of leaves of all levels, and broken descriptors; returns addresses of interest."""
    form = draw(st.sampled_from(FORMATS))
    bits = draw(st.integers(34, 44))
    start = form.start_level(bits)
    tables = Tables(SparseMemory(), form, bits, start)
    marks = [0, (1 << bits) - 1]
    for _ in range(draw(st.integers(1, 6))):
        level = draw(st.sampled_from([level for level in form.leaf_levels() if level >= start]))
        size = 1 << form.size_bits(level)
        address = draw(st.integers(0, (1 << bits) - 1)) // size * size
        output = draw(st.integers(0, (1 << form.output_bits) - 1)) // size * size
        attributes = draw(LEAF_ATTRIBUTES)
        step = draw(st.sampled_from([0, 1, 1, 1]))
        for number in range(draw(st.integers(1, 5))):
            at = address + number * size
            to = output + number * size * step
            if at < 1 << bits and to < 1 << form.output_bits and not _blocked(tables, at, level):
                tables.map(at, to, level, attributes)
                marks += [at, at + size - 1, at + size, at - 1]
    if draw(st.booleans()):
        slot, at = draw(st.sampled_from([(tables.slot(marks[2] if len(marks) > 2 else 0, start), marks[0])]))
        tables.put(slot, draw(st.sampled_from([0x7777_0000 | 3, 1, 2, 0])))
        marks.append(at)
    return tables, bits, start, [mark & ((1 << bits) - 1) for mark in marks]


def _blocked(tables: Tables, address: int, level: int) -> bool:
    """Whether a block stands where a table would have to be, or a table where the leaf would be."""
    for at in range(tables.start, level):
        slot = tables.slot(address, at)
        if tables.memory.word(slot) and not tables.memory.word(slot) & 2:
            return True
    slot = tables.slot(address, level)
    return level < 3 and bool(tables.memory.word(slot) & 2)


@settings(max_examples=150, deadline=None)
@given(worlds(), st.sampled_from([1, 2]))
def test_map_and_walk_agree(world: tuple[Tables, int, int, list[int]], stage: int) -> None:
    tables, bits, start, marks = world
    machine = stage1_machine(tables, bits) if stage == 1 else stage2_machine(tables, bits, start)
    merged = list(map_stage(machine, Regime.EL10, stage))
    apart = list(map_stage(machine, Regime.EL10, stage, merge=False))
    for items in (merged, apart):
        for one, other in pairwise(items):
            assert one.end <= other.start, "ascending, and nothing twice"
    for address in marks:
        found = translate(machine, address, Regime.EL10, stages=str(stage))
        for items in (merged, apart):
            covering = [item for item in items if item.start <= address < item.end]
            assert len(covering) <= 1
            item = covering[0] if covering else None
            if item is None:
                assert found.fault is not None
                assert found.fault.kind == "translation"
            elif isinstance(item, Problem):
                assert found.fault is not None
                expected = {"unreadable": "external_abort", "reserved": "translation"}
                assert found.fault.kind == expected.get(item.kind, item.kind)
                assert found.fault.level == item.level
            elif not item.access_flag:
                assert found.fault is not None
                assert found.fault.kind == "access_flag"
            else:
                offset = address - item.start
                assert found.output == item.output + (offset % item.page_size if item.constant else offset)
                assert (found.level, found.page_size) == (item.level, item.page_size)
                assert found.contiguous == item.contiguous
                assert found.permissions is not None
                assert found.attributes is not None
                permissions = found.permissions
                assert (permissions.read, permissions.write) == (item.read, item.write)
                assert (permissions.execute, permissions.el0_execute) == (item.execute, item.el0_execute)
                assert (found.attributes.memory, found.attributes.attr) == (item.memory, item.attr)


@settings(max_examples=60, deadline=None)
@given(worlds(), st.integers(0, 1 << 44), st.integers(1, 1 << 40), st.booleans())
def test_pruned_map_is_the_map_cut(
    world: tuple[Tables, int, int, list[int]], start_at: int, size: int, at_mark: bool
) -> None:
    tables, bits, start, marks = world
    machine = stage2_machine(tables, bits, start)
    low = marks[-1] if at_mark else start_at
    high = low + size
    whole = ranges(map_stage(machine, Regime.EL10, 2))
    pruned = ranges(map_stage(machine, Regime.EL10, 2, start=low, end=high))
    assert sum(r.end - r.start for r in pruned) == sum(
        min(r.end, high) - max(r.start, low) for r in whole if r.start < high and r.end > low
    )
    for item in pruned:
        assert low <= item.start < item.end <= high
        (origin,) = [r for r in whole if r.start <= item.start < r.end]
        assert item.shape == origin.shape
        edges = {item.start, item.end - 1, min(item.start + item.page_size, item.end - 1)}
        assert [output(item, at) for at in edges] == [output(origin, at) for at in edges]


def output(item: MappedRange, address: int) -> int:
    """Return what a range maps an address to."""
    offset = address - item.start
    return item.output + (offset % item.page_size if item.constant else offset)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0x20_0000, 0x80_0000, [(0x20_0000, 0x80_0000, 0x4000_0000, True)]),
        (0x30_1000, 0x80_0000, [(0x30_1000, 0x40_0000, 0x4010_1000, False), (0x40_0000, 0x80_0000, 0x4000_0000, True)]),
        (0x30_1000, 0x60_0001, [
            (0x30_1000, 0x40_0000, 0x4010_1000, False),
            (0x40_0000, 0x60_0000, 0x4000_0000, False),
            (0x60_0000, 0x60_0001, 0x4000_0000, False),
        ]),
        (0x30_1000, 0x30_2000, [(0x30_1000, 0x30_2000, 0x4010_1000, False)]),
    ],
)  # fmt: skip
def test_a_cut_through_blocks_that_all_lead_to_one(
    low: int, high: int, expected: list[tuple[int, int, int, bool]]
) -> None:
    tables = Tables(SparseMemory(), Format(12), 39, 1)
    for block in range(1, 4):
        tables.map(block << 21, 0x4000_0000, 2, RW2)
    found = ranges(map_stage(stage2_machine(tables, 39, 1), Regime.EL10, 2, start=low, end=high))
    assert [(r.start, r.end, r.output, r.constant) for r in found] == expected


def test_both_stages() -> None:
    """VA 0x5000 is IPA 0x9000 to 0xb000; stage 2 has two of the three pages elsewhere, and not in a row."""
    memory = SparseMemory()
    tables = Tables(memory, Format(12), 39, 1, 0x10_0000)
    for page in range(3):
        tables.map(0x5000 + (page << 12), 0x9000 + (page << 12), 3, AF | 3 << 8 | 1 << 54)
    second = Tables(memory, Format(16, lpa=True), 42, 2, 0x40_0000)
    second.map(0x10_0000, 0x10_0000, 3, RW2)
    second.map(0, 0x7_0001_0000_0000, 3, AF | 1 << 6 | 0b0101 << 2)
    regs = stage1_machine(tables, 39).registers
    form = second.form
    two = {"VTCR_EL2": stage2_vtcr(form, 42, 2), "VTTBR_EL2": second.ttbr(), "HCR_EL2": 1}
    machine = Machine({**regs, **two}, memory)  # type: ignore[dict-item]
    (only,) = map_both(machine)
    assert isinstance(only, MappedRange)
    assert (only.start, only.end, only.output) == (0x5000, 0x8000, 0x7_0001_0000_9000)
    assert (only.input_space, only.output_space, only.page_size) == ("VA", "PA", 4096)
    assert (only.read, only.write, only.exec) == (True, False, "EL1")
    assert only.memory == "Normal Non-cacheable"
    assert only.shareability == shareability_words(2)
    found = translate(machine, 0x6123, Regime.EL10)
    assert found.output == only.output + 0x1123
    assert found.attributes is not None
    assert found.attributes.memory == only.memory
