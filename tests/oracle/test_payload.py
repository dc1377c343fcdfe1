"""The payload against values of PAR_EL1 that were worked out by hand from the tables below."""

from __future__ import annotations

import pytest

from .conftest import Start
from .machine import RAM_SIZE, Answer, Case

pytestmark = pytest.mark.oracle

VA = 0x12_3456_7ABC
"""4 KiB granule, 39 bits: level 1 index 0x48, level 2 index 0x1a2, level 3 index 0x167."""

STAGE1 = {
    "SCR_EL3": "0x401",  # RW, NS
    "HCR_EL2": "0x80000000",  # RW
    "SCTLR_EL2": "0x5",  # M, C
    "TCR_EL2": "0x80850019",  # PS 48 bits, TG0 4 KiB, T0SZ 25
    "TTBR0_EL2": "0x2000000",
    "MAIR_EL2": "0xff00",  # 1: Normal Write-Back
}
L1, L2, L3 = 0x200_0240, 0x200_1D10, 0x200_2B38
PAGE = 0x0876_5432_1707  # AF, inner shareable, read-write, MAIR index 1

STAGE2 = {
    "SCR_EL3": "0x401",
    "HCR_EL2": "0x80000001",  # RW, VM; SCTLR_EL1.M is 0, so the VA is the IPA
    "VTCR_EL2": "0x80050059",  # PS 48 bits, TG0 4 KiB, SL0 1, T0SZ 25
    "VTTBR_EL2": "0x2000000",
}
IPA = 0x8001_2345  # level 1 index 2
BLOCK = 0x4000_07FD  # 1 GiB, AF, inner shareable, read-write, Normal Write-Back


def case(op: str, va: int, regs: dict[str, str]) -> Case:
    return {"op": op, "va": hex(va), "regs": regs, "pstate": {}}


WORLDS: dict[str, tuple[Case, dict[int, int], Answer]] = {
    "page": (
        case("S1E2R", VA, STAGE1),
        {L1: 0x200_1003, L2: 0x200_2003, L3: PAGE},
        Answer(0xFF00_0876_5432_1B80),
    ),
    "invalid at level 2": (case("S1E2R", VA, STAGE1), {L1: 0x200_1003, L2: 0}, Answer(0x80D)),
    "read-only": (
        case("S1E2W", VA, STAGE1),
        {L1: 0x200_1003, L2: 0x200_2003, L3: PAGE | 0x80},
        Answer(0x81F),
    ),
    "out of range": (case("S1E2R", VA + (1 << 39), STAGE1), {}, Answer(0x809)),
    "stage 2 block": (case("S12E1R", IPA, STAGE2), {0x200_0010: BLOCK}, Answer(0x4001_2B00)),
    "stage 2 invalid": (case("S12E1R", IPA, STAGE2), {}, Answer(0xA0B)),
    "no memory at level 2": (case("S1E2R", VA, STAGE1), {L1: 0x1000_0003}, Answer(esr=0x16)),
}


@pytest.mark.parametrize("model", ["max", "cortex-a57"])
def test_hand_computed(qemu: str, start: Start, model: str) -> None:
    machine = start(qemu, model)
    for name, (question, descriptors, expected) in WORLDS.items():
        memory = bytearray(RAM_SIZE)
        for address, word in descriptors.items():
            memory[address : address + 8] = word.to_bytes(8, "little")
        (answer,) = machine.ask(memory, [question])
        if expected.esr:
            assert answer.esr & 0x3F == expected.esr, name
        else:
            assert hex(answer.par) == hex(expected.par), name


def test_batch_goes_on_after_an_abort(qemu: str, start: Start) -> None:
    memory = bytearray(RAM_SIZE)
    for address, word in {L1: 0x1000_0003, 0x200_0010: BLOCK}.items():
        memory[address : address + 8] = word.to_bytes(8, "little")
    aborts, block = case("S1E2R", VA, STAGE1), case("S12E1R", IPA, STAGE2)
    answers = start(qemu, "max").ask(memory, [aborts, block] * 500)
    assert [bool(a.esr) for a in answers] == [True, False] * 500
    assert {a.par for a in answers[1::2]} == {0x4001_2B00}


def test_identity(qemu: str, start: Start) -> None:
    ids = start(qemu, "cortex-a57").id_registers
    assert ids["MIDR_EL1"] >> 4 & 0xFFF == 0xD07
    assert ids["ID_AA64MMFR0_EL1"] & 0xF == 4  # 44 bits of physical address
