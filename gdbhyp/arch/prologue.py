"""What a compiled A64 function has put on its stack by the time it stands at an instruction.

The procedure call standard (AAPCS64) has a frame record, x29 and x30 of the caller, that x29 points to. Code is read
from the function's beginning to where it stands; what goes before an unconditional branch, such as the undoing of the
frame before a return in the middle, does not count behind it.

Source of encodings: Arm ARM (DDI 0487), C4.1 "A64 instruction set encoding".
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from gdbhyp.arch.fields import Bits

FP, LR, SP = 29, 30, 31
_CALLEE_SAVED = range(19, 31)

_RT, _RN, _RT2, _IMM7 = Bits(4, 0), Bits(9, 5), Bits(14, 10), Bits(21, 15)
_IMM9, _IMM12, _SHIFT = Bits(20, 12), Bits(21, 10), Bits(22, 22)
_MOST_INSTRUCTIONS = 1 << 14


@dataclass(frozen=True)
class Frame:
    """The frame so far, by distances in bytes below the value that SP had at the function's beginning.

    ``sp`` is how far SP is below it, ``fp`` how far x29 is, None while x29 is the caller's. ``saved`` says how far
    below it a register of the caller was stored.
    """

    sp: int = 0
    fp: int | None = None
    saved: dict[int, int] = field(default_factory=dict)


def frame_at(code: bytes) -> Frame:
    """Return the frame of a function whose instructions up to where it stands are ``code``."""
    frame = established = Frame()
    for at in range(0, min(len(code), 4 * _MOST_INSTRUCTIONS) // 4 * 4, 4):
        word = int.from_bytes(code[at : at + 4], "little")
        if _never_falls_through(word):
            frame = established
            continue
        before = frame
        frame = _step(frame, word)
        if LR in before.saved and LR not in frame.saved:
            established = before
        elif len(frame.saved) > len(established.saved) or frame.fp is not None:
            established = frame
    return frame


def _never_falls_through(word: int) -> bool:
    """B, BR, RET and ERET, with and without pointer authentication."""
    return word >> 26 == 0b000101 or word & 0xFEFF_0000 in (0xD61F_0000, 0xD65F_0000, 0xD69F_0000)


def _step(frame: Frame, word: int) -> Frame:
    # SUB and ADD (immediate) of SP.
    if word & 0xFF80_03FF in (0xD100_03FF, 0x9100_03FF):
        amount = _IMM12(word) << (12 if _SHIFT(word) else 0)
        return replace(frame, sp=frame.sp + (amount if word >> 30 & 1 else -amount))
    # ADD x29, SP, #imm, which MOV x29, SP is one of.
    if word & 0xFFC0_03FF == 0x9100_03FD:
        return replace(frame, fp=frame.sp - _IMM12(word))
    if word & 0xFE40_03E0 == 0xA800_03E0 and word >> 23 & 3:
        return _stored_pair(frame, word)
    if word & 0xFFC0_03E0 == 0xF900_03E0:
        return _stored(frame, {_RT(word): frame.sp - 8 * _IMM12(word)})
    if word & 0xFFE0_0FE0 == 0xF800_0FE0:
        moved = replace(frame, sp=frame.sp - _signed(_IMM9(word), 9))
        return _stored(moved, {_RT(word): moved.sp})
    # LDP x29, x30, [SP ...] in any of its forms.
    if word & 0xFE40_7FFF == 0xA840_7BFD and word >> 23 & 3:
        amount = 8 * _signed(_IMM7(word), 7) if word >> 23 & 1 else 0
        kept = {register: at for register, at in frame.saved.items() if register not in (FP, LR)}
        return Frame(frame.sp - amount, None, kept)
    return frame


def _stored_pair(frame: Frame, word: int) -> Frame:
    distance, mode = 8 * _signed(_IMM7(word), 7), word >> 23 & 3
    moved = replace(frame, sp=frame.sp - distance) if mode & 1 else frame
    at = moved.sp - distance if mode == 0b10 else moved.sp if mode == 0b11 else frame.sp
    return _stored(moved, {_RT(word): at, _RT2(word): at - 8})


def _stored(frame: Frame, registers: dict[int, int]) -> Frame:
    """Add registers that a function keeps for its caller; only what was stored first is the caller's."""
    new = {n: at for n, at in registers.items() if n in _CALLEE_SAVED and n not in frame.saved}
    return replace(frame, saved={**frame.saved, **new}) if new else frame


def without_signature(address: int, bits: int) -> int:
    """Return a code address of ``bits`` address bits without its pointer authentication code, sign-extended."""
    mask = (1 << bits) - 1
    return address | ((1 << 64) - 1) ^ mask if address >> 55 & 1 else address & mask


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> bits - 1 else value
