"""The machine that a guest sees."""

from __future__ import annotations

import pytest
from unit.kvmworld import KvmWorld
from unit.pagetables import AF, Format, SparseMemory, Tables, stage2_vtcr

from gdbhyp.analyses.symbols import guest_symbols
from gdbhyp.engine.machine import Machine
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import GdbhypError, MemoryUnavailable
from gdbhyp.hypervisors.inner import inner

IPA, PA = 0x8000_0000, 0x4400_0000
RW2 = AF | 0b11 << 6 | 0b1111 << 2


def outer(**registers: int) -> Stop:
    """Return a CPU with one page of a guest behind stage 2."""
    memory = SparseMemory()
    form = Format(12)
    tables = Tables(memory, form, 40, 1, 0x6000_0000)
    tables.map(IPA, PA, 3, RW2)
    memory.write(PA, b"the guest's")
    stage2 = {
        "VTTBR_EL2": tables.root | 1 << 48,
        "VTCR_EL2": stage2_vtcr(form, 40, 1),
        "HCR_EL2": 1 << 31 | 1,
    }
    known = KvmWorld().stop().machine.registers
    ids = {name: value for name, value in known.items() if name.startswith("ID_")}  # type: ignore[attr-defined]
    return Stop(Machine({**ids, **stage2, "CPSR": 0b0101, "PC": 0x1000, "TTBR1_EL1": 7, **registers}, memory))


def test_memory_is_that_of_ipas() -> None:
    memory = inner(outer()).machine.memory
    assert memory.read(IPA, 11) == b"the guest's"
    with pytest.raises(MemoryUnavailable):
        memory.read(PA, 4)


def test_no_el2() -> None:
    found = inner(outer())
    assert [found.optional(name) for name in ("VBAR_EL2", "VTTBR_EL2", "HCR_EL2", "TTBR1_EL1", "PC")] == [
        None,
        0,
        1 << 31,
        7,
        0x1000,
    ]


def test_while_el2_works_for_it() -> None:
    found = inner(outer(CPSR=0b1001, PC=0x9000, ELR_EL2=0x2000, SPSR_EL2=0b0101))
    assert (found.optional("PC"), found.el) == (0x2000, 1)


def test_unknown_registers() -> None:
    stop = outer()
    values = {k: v for k, v in stop.machine.registers.items() if k != "TTBR1_EL1"}  # type: ignore[attr-defined]
    with pytest.raises(GdbhypError, match=r"EL1 registers of VM 3 are not known"):
        guest_symbols(Stop(Machine(values, stop.machine.memory)), 3)
