"""Any 64-bit value decodes, and its fields hold every bit of it.

The sample is small by default; GDBHYP_SAMPLES=67108864 runs 2**26 values.
"""

from __future__ import annotations

import os
import random

import pytest

from gdbhyp.arch.syndrome import SyndromeContext, decode_esr

SAMPLES = int(os.environ.get("GDBHYP_SAMPLES", "20000"))

CONTEXT = SyndromeContext(
    far=0xFFFF_8000_1234_5678,
    hpfar=0x90000,
    elr=0xFFFF_8000_0001_0000,
    spsr=0x3C5,
    registers={number: number * 0x1111 for number in range(31)},
)


def check(esr: int, el: int, context: SyndromeContext | None) -> None:
    syndrome = decode_esr(esr, el=el, context=context)
    assert syndrome.summary
    assert syndrome.ec.value == esr >> 26 & 0x3F
    rebuilt, before = 0, 64
    for field in syndrome.fields:
        assert before > field.msb >= field.lsb >= 0, f"{esr:#x}: {field.name} is out of order"
        assert field.value >> field.msb - field.lsb + 1 == 0
        assert field.text
        rebuilt |= field.value << field.lsb
        before = field.lsb
    assert rebuilt == esr, f"{esr:#x}: the fields hold {rebuilt:#x}"


def test_sampled() -> None:
    chance = random.Random(20240)
    for number in range(SAMPLES):
        esr = chance.getrandbits(64 if number & 7 == 0 else 56)
        check(esr, 1 + number % 3, CONTEXT if number & 1 else None)


def test_each_class_and_each_iss_bit() -> None:
    for exception_class in range(64):
        for instruction_length in (0, 1):
            base = exception_class << 26 | instruction_length << 25
            for value in (0, *(1 << bit for bit in range(25)), 0x1FF_FFFF):
                check(base | value, 2, CONTEXT)
            for bit in range(32, 64):
                check(base | 1 << bit, 2, None)


def test_each_fault_status() -> None:
    for exception_class in (0x1E, 0x20, 0x21, 0x24, 0x25, 0x2F):
        for status in range(64):
            for rest in (0, 1 << 24, 1 << 7, 3 << 11):
                check(exception_class << 26 | rest | status, 2, CONTEXT)


@pytest.mark.parametrize(("value", "el"), [(-1, 2), (1 << 64, 2), (0, 0), (0, 4)])
def test_refused(value: int, el: int) -> None:
    with pytest.raises(ValueError, match="not a value of ESR"):
        decode_esr(value, el=el)
