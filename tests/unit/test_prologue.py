"""Frames of functions, instruction by instruction."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.a64 import code

from gdbhyp.arch.prologue import Frame, frame_at, without_signature

FULL = (
    0xD503233F,  # paciasp
    0xA9BC7BFD,  # stp  x29, x30, [sp, #-64]!
    0x910003FD,  # mov  x29, sp
    0xA90153F3,  # stp  x19, x20, [sp, #16]
    0xF90013F5,  # str  x21, [sp, #32]
    0x94000040,  # bl   elsewhere
    0xB40000C0,  # cbz  x0, 1f
    0xF94013F5,  # ldr  x21, [sp, #32]
    0xA94153F3,  # ldp  x19, x20, [sp, #16]
    0xA8C47BFD,  # ldp  x29, x30, [sp], #64
    0xD50323BF,  # autiasp
    0xD65F03C0,  # ret
    0xD2800020,  # 1: mov x0, #1
    0x94000040,  # bl   elsewhere
)
ALL = {29: 64, 30: 56, 19: 48, 20: 40, 21: 32}
RECORD = {29: 64, 30: 56}


@pytest.mark.parametrize(
    ("instructions", "frame"),
    [
        (0, Frame()),
        (1, Frame()),
        (2, Frame(64, None, RECORD)),
        (3, Frame(64, 64, RECORD)),
        (5, Frame(64, 64, ALL)),
        (7, Frame(64, 64, ALL)),
        (10, Frame(0, None, {19: 48, 20: 40, 21: 32})),
        (12, Frame(64, 64, ALL)),
        (14, Frame(64, 64, ALL)),
    ],
)
def test_along_a_function(instructions: int, frame: Frame) -> None:
    """Behind a return in the middle, the frame is again what it was before that was undone."""
    assert frame_at(code(*FULL[:instructions])) == frame


def test_record_above_the_stack_pointer() -> None:
    """sub sp, sp, #0x50; stp x29, x30, [sp, #48]; add x29, sp, #0x30; str x19, [sp, #64]; and back"""
    words = (0xD10143FF, 0xA9037BFD, 0x9100C3FD, 0xF90023F3, 0xA9437BFD, 0x910143FF)
    assert frame_at(code(*words[:4])) == Frame(0x50, 0x20, {29: 0x20, 30: 0x18, 19: 0x10})
    assert frame_at(code(*words)) == Frame(0, None, {19: 0x10})


def test_one_register() -> None:
    """str x30, [sp, #-16]!"""
    assert frame_at(code(0xF81F0FFE)) == Frame(16, None, {30: 16})


@pytest.mark.parametrize(
    ("word", "goes_on"),
    [
        (0xD65F03C0, False),  # ret
        (0xD65F0BFF, False),  # retaa
        (0xD69F03E0, False),  # eret
        (0xD61F0020, False),  # br x1
        (0x17FFFFE6, False),  # b
        (0xD63F0020, True),  # blr x1
        (0x94000040, True),  # bl
        (0x54000040, True),  # b.eq
    ],
)
def test_ends(word: int, goes_on: bool) -> None:
    """The stack as it is before the frame counts again only behind what never falls through."""
    # stp x29, x30, [sp, #-64]!; ldp x29, x30, [sp], #64
    frame = frame_at(code(0xA9BC7BFD, 0xA8C47BFD, word))
    assert frame == (Frame() if goes_on else Frame(64, None, RECORD))


def test_arguments_are_not_saved_registers() -> None:
    """stp x29, x30, [sp, #-64]!; str x0, [sp, #24]; str x21, [sp, #32]; str x21, [sp, #40]"""
    assert frame_at(code(0xA9BC7BFD, 0xF9000FE0, 0xF90013F5, 0xF90017F5)).saved == {**RECORD, 21: 32}


@pytest.mark.parametrize(
    ("address", "bits", "plain"),
    [
        (0xBD17_C927_00DC_0264, 48, 0xC927_00DC_0264),
        (0x3FA7_AB17_62A6_DFB0, 48, 0xFFFF_AB17_62A6_DFB0),
        (0x4A0E_2D31_60FC_3444, 52, 0xE_2D31_60FC_3444),
        (0x0000_FFFF_8000_1000, 48, 0xFFFF_8000_1000),
    ],
)
def test_signatures(address: int, bits: int, plain: int) -> None:
    """Bit 55 says to which range an address belongs; the signature is in what is above the address."""
    signed_range = plain if not address >> 55 & 1 else plain | 0xFFFF << 48
    assert without_signature(address, bits) == signed_range


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_takes_any_code(text: bytes) -> None:
    assert isinstance(frame_at(text), Frame)
