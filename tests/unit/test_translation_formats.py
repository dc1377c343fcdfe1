"""Every granule, format, start level and leaf level of both stages: what is built is what is found."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from unit.pagetables import (
    AF,
    EVERYTHING,
    MAIR,
    Format,
    SparseMemory,
    Tables,
    single_tcr,
    stage1_tcr,
    stage2_vtcr,
)

from gdbhyp.engine.machine import Machine
from gdbhyp.engine.translate import Regime, translate

FORMATS = {
    "4K": Format(12),
    "4K-DS": Format(12, ds=True),
    "16K": Format(14),
    "16K-DS": Format(14, ds=True),
    "64K": Format(16),
    "64K-LPA": Format(16, lpa=True),
}
WITHOUT_52 = {**EVERYTHING, "ID_AA64MMFR0_EL1": 5 | 1 << 20}


class Shape(NamedTuple):
    """One geometry: a format and an input size, and where a walk of it starts."""

    name: str
    bits: int
    start: int

    @property
    def form(self) -> Format:
        return FORMATS[self.name]


def registers(form: Format) -> dict[str, int]:
    """A processor on which this format is the one in use."""
    return dict(EVERYTHING if form.output_bits == 52 or form.granule != 16 else WITHOUT_52)


def stage1_shapes() -> list[Shape]:
    """The smallest and the largest input size of every start level of every format."""
    found: dict[tuple[str, int], list[int]] = {}
    for name, form in FORMATS.items():
        # FEAT_TTST: down to 16 bits (17 with 64 KiB); up to 52 bits where the format has them.
        for bits in range(17 if form.granule == 16 else 16, form.output_bits + 1):
            found.setdefault((name, form.start_level(bits)), []).append(bits)
    return [Shape(name, b, s) for (name, s), sizes in found.items() for b in sorted({sizes[0], sizes[-1]})]


def stage2_shapes() -> list[Shape]:
    """Every legal pair of start level and input size of stage 2, down to the smallest and up to 16 tables."""
    shapes = []
    for name, form in FORMATS.items():
        lowest = {"4K": 0, "4K-DS": -1, "16K": 1, "16K-DS": 0, "64K": 1, "64K-LPA": 1}[name]
        for start in range(lowest, 4):
            least = form.size_bits(start) + 1
            sizes = {least, form.size_bits(start) + form.stride, form.size_bits(start) + form.stride + 4}
            legal = range(17 if form.granule == 16 else 16, form.output_bits + 1)
            shapes += [Shape(name, bits, start) for bits in sorted(sizes) if bits in legal]
    return shapes


def leaves(shape: Shape) -> list[int]:
    return [level for level in shape.form.leaf_levels() if level >= shape.start]


def an_output(form: Format, level: int, seed: int) -> int:
    """An aligned output address with bits set all over."""
    pattern = (0xA_5C3A_9E57_3000 ^ (0x5_A3C5_61A8_C000 * (seed & 1))) & ((1 << form.output_bits) - 1)
    return pattern >> form.size_bits(level) << form.size_bits(level)


def inputs(shape: Shape) -> list[int]:
    top = (1 << shape.bits) - 1
    return [0, top & ~0xFFF | 0x5B8, top & 0x5555_5555_5555_5ABC]


@pytest.mark.parametrize("shape", stage1_shapes(), ids=lambda s: f"{s.name}-{s.bits}b-L{s.start}")
@pytest.mark.parametrize("regime", ["lower", "upper", "EL2", "EL2&0", "EL3"])
def test_stage1(shape: Shape, regime: str) -> None:
    form = shape.form
    for level in leaves(shape):
        for number, address in enumerate(inputs(shape)):
            memory = SparseMemory()
            tables = Tables(memory, form, shape.bits, shape.start)
            output = an_output(form, level, number)
            tables.map(address, output, level)
            regs = registers(form)
            upper = regime == "upper"
            va = address | ((1 << 64) - (1 << shape.bits) if upper else 0)
            if regime in ("lower", "upper"):
                which = Regime.EL10
                regs |= {"TCR_EL1": stage1_tcr(form, shape.bits, upper=upper), "SCTLR_EL1": 5}
                regs |= {f"TTBR{int(upper)}_EL1": tables.ttbr(), "MAIR_EL1": MAIR}
            elif regime == "EL2&0":
                which = Regime.EL20
                regs |= {"TCR_EL2": stage1_tcr(form, shape.bits), "SCTLR_EL2": 5, "HCR_EL2": 1 << 34}
                regs |= {"TTBR0_EL2": tables.ttbr(), "MAIR_EL2": MAIR}
            else:
                which = Regime(regime)
                regs |= {f"TCR_{regime}": single_tcr(form, shape.bits), f"SCTLR_{regime}": 5}
                regs |= {f"TTBR0_{regime}": tables.ttbr(), f"MAIR_{regime}": MAIR}
            found = translate(Machine(regs, memory), va, which)
            size = 1 << form.size_bits(level)
            assert found.fault is None
            assert found.output == output | va & (size - 1)
            assert (found.level, found.page_size) == (level, size)
            assert [step.level for step in found.steps] == list(range(shape.start, level + 1))


@pytest.mark.parametrize("shape", stage2_shapes(), ids=lambda s: f"{s.name}-{s.bits}b-L{s.start}")
def test_stage2(shape: Shape) -> None:
    form = shape.form
    for level in leaves(shape):
        for number, address in enumerate(inputs(shape)):
            memory = SparseMemory()
            tables = Tables(memory, form, shape.bits, shape.start)
            output = an_output(form, level, number)
            tables.map(address, output, level, AF | 0b11 << 6 | 0b1111 << 2)
            vtcr = stage2_vtcr(form, shape.bits, shape.start)
            regs = registers(form) | {"VTCR_EL2": vtcr, "VTTBR_EL2": tables.ttbr()}
            found = translate(Machine(regs, memory), address, Regime.EL10, stages="2")
            size = 1 << form.size_bits(level)
            assert found.fault is None
            assert found.output == output | address & (size - 1)
            assert (found.level, found.page_size) == (level, size)
            assert [step.level for step in found.steps] == list(range(shape.start, level + 1))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("where", ["leaf", "table", "root"])
def test_walking_ones(name: str, stage: int, where: str) -> None:
    """Each bit of an output, of a table address and of the root, alone, is found where the format puts it."""
    form = FORMATS[name]
    bits = {"4K": 40, "4K-DS": 40, "16K": 40, "16K-DS": 40, "64K": 40, "64K-LPA": 40}[name]
    start = form.start_level(bits)
    for level in leaves(Shape(name, bits, start)) if where == "leaf" else [3]:
        lowest = form.size_bits(level) if where == "leaf" else form.granule
        for one in range(lowest, form.output_bits):
            memory = SparseMemory()
            at = 1 << one
            # The other tables stay out of the way of the one that moves.
            tables = Tables(memory, form, bits, start, 0x300_0000, root=at if where == "root" else 0)
            if where == "table":
                tables.next_free = at
                tables.slot(0, start + 1)
                tables.next_free = at + 0x1234_0000
            output = at if where == "leaf" else 0x7_0000 << 12
            tables.map(0, output, level, AF | 0b11 << 6)
            regs = registers(form)
            if stage == 1:
                regs |= {"TCR_EL1": stage1_tcr(form, bits), "SCTLR_EL1": 1, "TTBR0_EL1": tables.ttbr()}
                found = translate(Machine(regs, memory), 0, Regime.EL10)
            else:
                regs |= {"VTCR_EL2": stage2_vtcr(form, bits, start), "VTTBR_EL2": tables.ttbr()}
                found = translate(Machine(regs, memory), 0, Regime.EL10, stages="2")
            assert found.fault is None, (one, found.fault)
            assert found.output == output, one
            if where == "table":
                assert found.steps[1].table == at
            if where == "root":
                assert found.steps[0].table == at


@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if form.output_bits == 52])
@pytest.mark.parametrize("stage", [1, 2])
def test_high_root(name: str, stage: int) -> None:
    """The root above 48 bits is in TTBR bits [5:2], in the formats that have it."""
    form = FORMATS[name]
    for one in (48, 49, 50, 51):
        memory = SparseMemory()
        tables = Tables(memory, form, 40, form.start_level(40), 0x300_0000, root=1 << one)
        tables.map(0, 0x7000_0000, 3, AF | 0b11 << 6)
        regs = registers(form)
        if stage == 1:
            regs |= {"TCR_EL1": stage1_tcr(form, 40), "SCTLR_EL1": 1, "TTBR0_EL1": 1 << one - 46}
            found = translate(Machine(regs, memory), 0, Regime.EL10)
        else:
            vtcr = stage2_vtcr(form, 40, form.start_level(40))
            regs |= {"VTCR_EL2": vtcr, "VTTBR_EL2": 1 << one - 46}
            found = translate(Machine(regs, memory), 0, Regime.EL10, stages="2")
        assert found.output == 0x7000_0000


@pytest.mark.parametrize("entries_bits", [1, 2, 3, 4])
def test_small_root_is_as_aligned_as_it_is_large(entries_bits: int) -> None:
    """Two entries need 16 bytes of alignment, not a page: the bits below are not part of the address."""
    form = Format(12)
    bits = 30 + entries_bits
    memory = SparseMemory()
    size = 8 << entries_bits
    root = 0x4_5000 + 3 * size
    tables = Tables(memory, form, bits, 1, 0x300_0000, root=root)
    tables.map(1 << 30, 0x8000_0000, 1)
    regs = EVERYTHING | {"TCR_EL1": stage1_tcr(form, bits), "SCTLR_EL1": 1}
    for junk in (0, size // 2):
        machine = Machine(regs | {"TTBR0_EL1": root | junk}, memory)
        found = translate(machine, (1 << 30) + 0x123, Regime.EL10)
        assert found.output == 0x8000_0123, hex(junk)


def test_concatenated_roots_are_one_table() -> None:
    """40 bits of IPA with 4 KiB from level 1: two tables, and the upper one is found behind the lower."""
    form = Format(12)
    memory = SparseMemory()
    tables = Tables(memory, form, 40, 1)
    tables.map(0xFF_4567_8000, 0x1_2345_6000, 3, AF | 0b11 << 6)
    regs = EVERYTHING | {"VTCR_EL2": stage2_vtcr(form, 40, 1), "VTTBR_EL2": tables.ttbr()}
    found = translate(Machine(regs, memory), 0xFF_4567_8ABC, Regime.EL10, stages="2")
    assert found.output == 0x1_2345_6ABC
    assert found.steps[0].index == 0x3FD


def test_big_endian_tables() -> None:
    """SCTLR_EL1.EE is about stage-1 tables, SCTLR_EL2.EE about stage-2 tables."""
    form = Format(12)
    for first, second in ((True, False), (False, True), (True, True)):
        memory = SparseMemory()
        tables = Tables(memory, form, 39, 1, 0x10_0000, big_endian=first)
        tables.map(0x5000, 0x9000)
        stage2 = Tables(memory, form, 39, 1, 0x50_0000, big_endian=second)
        for page in (*(p << 12 for p in list(memory.pages)), 0x9000):
            stage2.map(page, page if page != 0x9000 else 0xC000, 3, AF | 0b11 << 6 | 0b1111 << 2)
        regs = EVERYTHING | {"TCR_EL1": stage1_tcr(form, 39), "TTBR0_EL1": tables.ttbr(), "MAIR_EL1": MAIR}
        regs |= {"VTCR_EL2": stage2_vtcr(form, 39, 1), "VTTBR_EL2": stage2.ttbr(), "HCR_EL2": 1}
        regs |= {"SCTLR_EL1": 5 | first << 25, "SCTLR_EL2": second << 25}
        assert translate(Machine(regs, memory), 0x5678, Regime.EL10).output == 0xC678
