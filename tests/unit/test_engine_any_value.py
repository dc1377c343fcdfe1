"""Whatever the registers and the memory hold, there is an answer, and the parts of it agree."""

from __future__ import annotations

import random
from itertools import islice

from hypothesis import example, given, settings
from hypothesis import strategies as st
from unit.pagetables import SparseMemory

from gdbhyp.engine.machine import Machine
from gdbhyp.engine.map import Budget, MappedRange, Problem, map_both, map_stage
from gdbhyp.engine.nested import translate_vncr
from gdbhyp.engine.translate import Access, Regime, translate
from gdbhyp.engine.walk import setup_registers
from gdbhyp.errors import NoTarget, Unsupported

NAMES = sorted({name for regime in Regime for name in setup_registers(regime)} | {"GPCCR_EL3", "GPTBR_EL3"})
ACCESSES = [None, *(Access(kind, el, pan=True) for kind in ("read", "write", "execute") for el in range(4))]


def a_machine(seed: int) -> Machine:
    """Random registers, a quarter of them missing, that often point to the one page of random descriptors."""
    rng = random.Random(seed)
    memory = SparseMemory()
    for index in range(512):
        word = rng.getrandbits(64) & ~(0xFF_FFFF_F000 if rng.random() < 0.7 else 0)
        memory.write_word(8 * index, word | rng.choice([0, 1, 3, 3, 3, 0x403]))
    registers: dict[str, int] = {}
    for name in NAMES:
        if rng.random() < 0.75:
            registers[name] = rng.getrandbits(64)
            if "TTBR" in name and rng.random() < 0.8:
                registers[name] &= 0xFFFF_0000_0000_003F
            if name == "ID_AA64MMFR3_EL1" or (name.startswith("SCTLR") and rng.random() < 0.8):
                registers[name] = registers[name] & ~(0xFF << 32) | 1
    return Machine(registers, memory, {"PAN": rng.randrange(2)})


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 1 << 32),
    st.integers(0, (1 << 64) - 1),
    st.sampled_from(Regime),
    st.sampled_from(ACCESSES),
)
def test_translate(seed: int, address: int, regime: Regime, access: Access | None) -> None:
    machine = a_machine(seed)
    for stages in ("both", "1", "2") if regime is Regime.EL10 else ("both", "1"):
        try:
            found = translate(machine, address & (1 << 52) - 1, regime, stages=stages, access=access)
        except (NoTarget, Unsupported):
            continue
        assert (found.output is None) == (found.fault is not None)
        assert (found.output is None) == (found.permissions is None) == (found.attributes is None)
        if found.fault is not None:
            assert -1 <= found.fault.level <= 3
            assert found.fault.esr_el2 & 0x3F == found.fault.fst
            assert (found.fault.hpfar_el2 is not None) == found.fault.hpfar_valid
        for step in found.steps:
            assert (step.output is None) == (step.kind == "invalid")
            assert step.descriptor_address == step.table + 8 * step.index


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1 << 32), st.sampled_from(Regime), st.integers(0, (1 << 64) - 1))
@example(seed=0, regime=Regime.EL10, start=1 << 63)
def test_map(seed: int, regime: Regime, start: int) -> None:
    machine = a_machine(seed)
    for stage in (1, 2, 0) if regime is Regime.EL10 else (1,):
        try:
            if stage:
                found = map_stage(machine, regime, stage, start=start & ~0xFFF, budget=Budget(20))
            else:
                found = map_both(machine, start=start & ~0xFFF, budget=Budget(20))
            items = list(islice(found, 500))
        except Unsupported:
            continue
        end = 0
        for item in items:
            assert isinstance(item, MappedRange | Problem)
            assert end <= item.start < item.end <= 1 << 64
            end = item.end


@given(st.integers(0, 1 << 32), st.integers(0, 0xFFF))
def test_vncr(seed: int, offset: int) -> None:
    found = translate_vncr(a_machine(seed), offset)
    assert found is None or found.input & 0xFFF == offset
