"""AT: which regime and which Security state an operation is about, and cases that are not what they should be."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.pagetables import AF, EVERYTHING, MAIR, Format, SparseMemory, Tables, stage1_tcr

from gdbhyp.engine.at import AT_OPS, address_translate, run_case
from gdbhyp.engine.machine import Machine
from gdbhyp.errors import NoTarget, Unsupported, UsageError

E2H, TGE, VM = 1 << 34, 1 << 27, 1


def machine(**extra: int) -> Machine:
    """EL1's tables map VA 0 to 0x1000_0000, EL2's to 0x2000_0000."""
    memory = SparseMemory()
    regs = dict(EVERYTHING)
    for level, where, output in (("EL1", 0x10_0000, 0x1000_0000), ("EL2", 0x20_0000, 0x2000_0000)):
        tables = Tables(memory, Format(12), 39, 1, where)
        tables.map(0, output, 3, AF | 1 << 6)
        regs |= {f"TCR_{level}": stage1_tcr(Format(12), 39), f"TTBR0_{level}": tables.ttbr()}
        regs |= {f"SCTLR_{level}": 5, f"MAIR_{level}": MAIR}
    return Machine(regs | extra, memory)


def page(par: int) -> int:
    assert not par & 1, hex(par)
    return par & 0xF_FFFF_FFFF_F000


@pytest.mark.parametrize(
    ("hcr", "op", "expected"),
    [
        (0, "S1E1R", 0x1000_0000),
        (0, "S1E0R", 0x1000_0000),
        (E2H, "S1E1R", 0x1000_0000),
        (E2H, "S1E0R", 0x1000_0000),
        (E2H, "S1E2R", 0x2000_0000),
        (E2H | TGE, "S1E1R", 0x2000_0000),
        (E2H | TGE, "S1E0W", 0x2000_0000),
        (E2H | TGE, "S1E2W", 0x2000_0000),
        (E2H | TGE, "S12E1R", 0),
        (E2H | TGE | VM, "S12E1R", 0),
        (TGE, "S1E1R", 0),
    ],
)
def test_regime(hcr: int, op: str, expected: int) -> None:
    assert page(address_translate(machine(HCR_EL2=hcr), op, 0).par) == expected


def test_without_vhe_there_is_no_e2h() -> None:
    found = address_translate(machine(HCR_EL2=E2H | TGE, ID_AA64MMFR1_EL1=0), "S1E1R", 0)
    assert page(found.par) == 0, "TGE alone: stage 1 is off"


def test_undefined_operations() -> None:
    with pytest.raises(NoTarget, match="EL2 is not enabled"):
        address_translate(machine(SCR_EL3=0), "S1E2R", 0)
    with pytest.raises(NoTarget, match="no Security state"):
        address_translate(machine(SCR_EL3=1 << 62, ID_AA64PFR0_EL1=1 << 36 | 1 << 52), "S1E1R", 0)
    with pytest.raises(UsageError, match="no AT S1E9R"):
        address_translate(machine(), "S1E9R", 0)


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [("TCR2_EL1", 1 << 5, "TCR2_EL1.D128"), ("VTCR_EL2", 1 << 38, "VTCR_EL2.D128")],
)
def test_128_bit_descriptors_are_not_guessed(name: str, value: int, named: str) -> None:
    extra = {"ID_AA64MMFR3_EL1": 1 | 1 << 32, "HCRX_EL2": 1 << 14, "HCR_EL2": VM, name: value}
    with pytest.raises(Unsupported, match=named):
        address_translate(machine(**extra), "S12E1R", 0)
    regs = {**machine().registers, **extra}  # type: ignore[dict-item]
    answer = run_case({"op": "S12E1R", "va": "0x0", "regs": regs}, machine().memory)
    assert named in str(answer["error"])


def test_faults_on_a_walk_from_el1_are_exceptions() -> None:
    """A stage-2 fault on EL1's own table walk goes to EL2, when EL1 executes AT; from EL3 it is in PAR_EL1."""
    with_stage2 = machine(HCR_EL2=VM, VTCR_EL2=25 | 1 << 6, VTTBR_EL2=0x30_0000)
    with_stage2.memory.write_word(0x30_0000, 0)  # type: ignore[attr-defined]
    assert not address_translate(with_stage2, "S1E1R", 0, from_el=3).exception
    result = address_translate(with_stage2, "S1E1R", 0, from_el=1)
    assert result.exception
    assert result.par == 0xB0B
    assert result.translation.fault is not None
    assert result.translation.fault.text == "stage 2 level 1 translation fault on a stage 1 table walk"


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (None, "JSON object"),
        (7, "JSON object"),
        ([], "JSON object"),
        ({}, '"op"'),
        ({"op": 3, "va": "0x0"}, '"op"'),
        ({"op": "S1E1X", "va": "0x0"}, '"op"'),
        ({"op": "S1E1R"}, '"va"'),
        ({"op": "S1E1R", "va": None}, '"va"'),
        ({"op": "S1E1R", "va": "-0x1"}, "64 bits"),
        ({"op": "S1E1R", "va": -1}, "64 bits"),
        ({"op": "S1E1R", "va": 1 << 64}, "64 bits"),
        ({"op": "S1E1R", "va": "0x1" + "0" * 16}, "64 bits"),
        ({"op": "S1E1R", "va": "0xg"}, "not a number"),
        ({"op": "S1E1R", "va": "9" * 5000}, "not a number"),
        ({"op": "S1E1R", "va": 1.5}, '"va"'),
        ({"op": "S1E1R", "va": True}, '"va"'),
        ({"op": "S1E1R", "va": "0x0", "regs": []}, '"regs"'),
        ({"op": "S1E1R", "va": "0x0", "regs": {"TCR_EL1": "x"}}, "TCR_EL1"),
        ({"op": "S1E1R", "va": "0x0", "regs": {"TCR_EL1": []}}, "TCR_EL1"),
        ({"op": "S1E1R", "va": "0x0", "pstate": 4}, '"pstate"'),
        ({"op": "S1E1R", "va": "0x0", "pstate": {"PAN": "yes"}}, "PAN"),
        ({"op": "S1E2R", "va": "0x0", "regs": {"SCR_EL3": "0x0"}}, "UNDEFINED"),
    ],
)
def test_malformed_cases_are_told(case: object, words: str) -> None:
    answer = run_case(case, SparseMemory())
    assert list(answer) == ["error"]
    assert words in str(answer["error"])


def test_a_case_without_registers_is_a_flat_map() -> None:
    assert run_case({"op": "S1E1R", "va": "0x1000"}, SparseMemory()) == {"par": "0x1b00"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
CASES = st.fixed_dictionaries(
    {},
    optional={
        "op": st.sampled_from(AT_OPS) | JSON,
        "va": st.integers(0, (1 << 64) - 1).map(hex) | JSON,
        "regs": st.dictionaries(
            st.sampled_from(sorted([*EVERYTHING, "TCR_EL1", "TCR_EL2", "HCR_EL2", "SCTLR_EL1", "VTCR_EL2"])),
            st.integers(0, (1 << 64) - 1).map(hex) | JSON,
        )
        | JSON,
        "pstate": st.dictionaries(st.just("PAN"), st.integers(0, 1)) | JSON,
    },
)


@given(CASES | JSON)
def test_any_case_gets_an_answer(case: object) -> None:
    answer = run_case(case, SparseMemory())
    assert set(answer) in ({"error"}, {"par"}, {"par", "exception"})
    assert json.loads(json.dumps(answer)) == answer
    if "par" in answer:
        assert 0 <= int(str(answer["par"]), 0) < 1 << 64


REGISTERS = st.fixed_dictionaries(
    {
        "SCTLR_EL1": st.just(5),
        "HCR_EL2": st.sampled_from([0, 1, 1 << 12, E2H, E2H | TGE, 1 | 1 << 46]),
        "TCR_EL1": st.integers(0, (1 << 62) - 1),
        "VTCR_EL2": st.integers(0, (1 << 34) - 1),
        "TTBR0_EL1": st.sampled_from([0, 0x1000]),
        "TTBR1_EL1": st.sampled_from([0, 0x1000]),
        "VTTBR_EL2": st.sampled_from([0, 0x1000]),
        "MAIR_EL1": st.integers(0, (1 << 64) - 1),
    }
)


@given(
    REGISTERS,
    st.integers(0, (1 << 64) - 1),
    st.sampled_from(AT_OPS),
    st.lists(st.integers(0, 511), max_size=40),
)
def test_the_report_and_the_batch_agree(regs: dict[str, int], va: int, op: str, words: list[int]) -> None:
    memory = SparseMemory()
    for index, word in enumerate(words):
        memory.write_word(index * 8, word << 12 | 0x703)
    machine = Machine(EVERYTHING | regs, memory)
    result = address_translate(machine, op, va)
    answer = run_case({"op": op, "va": hex(va), "regs": EVERYTHING | regs}, memory)
    assert int(str(answer["par"]), 0) == result.par
    assert bool(answer.get("exception")) == result.exception
    fault = result.translation.fault
    assert bool(result.par & 1) == (fault is not None)
    if fault is not None:
        assert result.par >> 1 & 0x3F == fault.fst
    else:
        assert result.translation.output is not None
        assert page(result.par) == result.translation.output & ~0xFFF
