"""Virtual memory as a reader: over page borders, through both stages, and with the right address in its errors."""

from __future__ import annotations

import pytest
from unit.pagetables import AF, EVERYTHING, MAIR, Format, SparseMemory, Tables, stage1_tcr

from gdbhyp.arch.regimes import Regime
from gdbhyp.engine.machine import Machine
from gdbhyp.engine.virtual import VirtualReader
from gdbhyp.errors import MemoryUnavailable

VA, FIRST, SECOND, HOLE = 0x10_0000, 0x8000, 0x4000, 0x1F_0000


@pytest.fixture
def machine() -> Machine:
    """Two pages in the opposite order of memory, one whose memory is missing, and nothing behind it."""
    memory = SparseMemory()
    form = Format(12)
    tables = Tables(memory, form, 39, form.start_level(39), 0x80_0000)
    for page, target in enumerate((FIRST, SECOND, HOLE)):
        tables.map(VA + page * 0x1000, target, 3, AF)
    memory.write(FIRST, bytes([1]) * 0x1000)
    memory.write(SECOND, bytes([2]) * 0x1000)
    registers = {"TTBR0_EL1": tables.root, "TCR_EL1": stage1_tcr(form, 39), "SCTLR_EL1": 1, "MAIR_EL1": MAIR}
    return Machine({**EVERYTHING, "HCR_EL2": 0, **registers}, memory)


def test_spans_pages(machine: Machine) -> None:
    reader = VirtualReader(machine, Regime.EL10)
    assert reader.read(VA + 0xFFE, 4) == b"\1\1\2\2"
    assert reader.physical(VA + 0x1234) == SECOND + 0x234


def test_not_mapped(machine: Machine) -> None:
    reader = VirtualReader(machine, Regime.EL10)
    with pytest.raises(MemoryUnavailable) as caught:
        reader.read(VA + 0x3000 - 8, 16)
    assert (caught.value.space, caught.value.first_bad) == ("VA", VA + 0x2FF8)
    with pytest.raises(MemoryUnavailable) as caught:
        reader.read(VA + 0x3000, 16)
    assert caught.value.first_bad == VA + 0x3000
    assert "translation fault at level 3" in str(caught.value)
    assert reader.physical(VA + 0x3000) is None


def test_memory_is_missing(machine: Machine) -> None:
    with pytest.raises(MemoryUnavailable, match=f"PA {HOLE:#x}") as caught:
        VirtualReader(machine, Regime.EL10).read(VA + 0x2000, 8)
    assert caught.value.first_bad == VA + 0x2000
