"""Small A64 functions for tests, as the assembler encodes them."""

from __future__ import annotations

import struct


def code(*words: int) -> bytes:
    """Return instructions as memory holds them."""
    return struct.pack(f"<{len(words)}I", *words)


def save(register: tuple[int, int, int, int, int], offset: int, size: int = 8, base: int = 0) -> bytes:
    """Return ``mrs x9, REGISTER; str x9, [xBASE, #offset]``; with a ``size`` of 4 bytes it is w9."""
    return code(0xD530_0009 | _named(register), _access(0xF900_0009, 0xB900_0009, offset, size, base))


def restore(register: tuple[int, int, int, int, int], offset: int, size: int = 8, base: int = 0) -> bytes:
    """Return ``ldr x9, [xBASE, #offset]; msr REGISTER, x9``."""
    return code(_access(0xF940_0009, 0xB940_0009, offset, size, base), 0xD510_0009 | _named(register))


def _named(register: tuple[int, int, int, int, int]) -> int:
    op0, op1, crn, crm, op2 = register
    return (op0 & 1) << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5


def _access(word: int, half: int, offset: int, size: int, base: int) -> int:
    return (word if size == 8 else half) | offset // size << 10 | base << 5


LOOK_UP = code(
    0x12003C02,  # and  w2, w0, #0xffff
    0xD0000000,  # adrp x0, .+0x2000
    0x9101A000,  # add  x0, x0, #0x68
    0x92401C41,  # and  x1, x2, #0xff
    0xF8617800,  # ldr  x0, [x0, x1, lsl #3]
    0xB5000080,  # cbnz x0, 1f
    0x14000007,  # b    2f
    0xF9400C00,  # ldr  x0, [x0, #24]
    0xB40000A0,  # cbz  x0, 2f
    0x79400001,  # 1: ldrh w1, [x0]
    0x6B02003F,  # cmp  w1, w2
    0x54FFFF81,  # b.ne the load
    0xD65F03C0,  # ret
    0xAA1F03E0,  # 2: mov x0, xzr
    0xD65F03C0,  # ret
)
"""Follows the list in a bucket of an array of pointers, 0x2068 behind the function's page, to a 16-bit identifier."""

LOAD_ROOT = code(
    0xF9400801,  # ldr  x1, [x0, #16]
    0x79400023,  # ldrh w3, [x1]
    0xF9411C22,  # ldr  x2, [x1, #568]
    0xD51C2102,  # msr  vttbr_el2, x2
    0xD65F03C0,  # ret
)
"""Loads VTTBR_EL2 from 568 of the object that 16 of the first argument points to."""
