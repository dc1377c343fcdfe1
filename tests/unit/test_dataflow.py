"""What code loads from where; each case is a few instructions, with what is known of the registers afterwards."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.a64 import LOAD_ROOT, LOOK_UP, code

from gdbhyp.arch.dataflow import (
    Argument,
    Call,
    Element,
    Loaded,
    Stack,
    Stored,
    SystemRead,
    SystemWrite,
    Value,
    facts,
)

BASE = 0x1000
ARGUMENT = Value(Argument(0), 0)


def loads(*words: int) -> list[Loaded]:
    return [fact for fact in facts(code(*words), BASE) if isinstance(fact, Loaded)]


def test_array_of_lists() -> None:
    bucket, link, identifier = (f for f in facts(LOOK_UP, BASE) if isinstance(f, Element | Loaded))
    assert bucket == Element(Value(None, 0x3068), 8)
    assert link == Loaded(Value(bucket, 24), 8)
    assert identifier == Loaded(Value(link, 0), 2)


def test_system_register() -> None:
    owner = Loaded(ARGUMENT.plus(16), 8)
    root = Loaded(Value(owner, 568), 8)
    assert SystemWrite((3, 4, 2, 1, 0), Value(root, 0)) in list(facts(LOAD_ROOT, BASE))


def test_saved_system_register() -> None:
    """mrs x0, vbar_el1; str x0, [x19, #784]; mrs x1, esr_el1; str w1, [x19, #768]"""
    object_ = Value(Argument(19), 0)
    assert list(facts(code(0xD538C000, 0xF9018A60, 0xD5385201, 0xB9030261), BASE)) == [
        Stored(object_.plus(784), 8, Value(SystemRead((3, 0, 12, 0, 0)), 0)),
        Stored(object_.plus(768), 4, Value(SystemRead((3, 0, 5, 2, 0)), 0)),
    ]


def test_stack() -> None:
    """sub sp, #48; stp x28, x29, [sp, #-16]!; add x21, sp, #24; str xzr, [x21]; ldr x3, [sp], #8; str x3, [sp]"""
    words = 0xD100C3FF, 0xA9BF77FC, 0x910063F5, 0xF90002BF, 0xF84087E3, 0xF90003E3
    stack = Value(Stack(), 0)
    loaded = Loaded(stack.plus(-64), 8)
    assert list(facts(code(*words), BASE)) == [
        Stored(stack.plus(-64), 8, Value(Argument(28), 0)),
        Stored(stack.plus(-56), 8, Value(Argument(29), 0)),
        Stored(stack.plus(-40), 8, Value(None, 0)),
        loaded,
        Stored(stack.plus(-56), 8, Value(loaded, 0)),
    ]


@pytest.mark.parametrize(
    ("words", "loaded"),
    [
        # movz x3, #0x1234; movk x3, #0x8000, lsl #16; sub x4, x3, #0x10; ldr x5, [x4]
        ((0xD2824683, 0xF2B00003, 0xD1004064, 0xF9400085), [(0x8000_1224, 8)]),
        # adr x9, .; ldp x5, x6, [x9, #16]
        ((0x10000009, 0xA9411925), [(BASE + 16, 8), (BASE + 24, 8)]),
        # adr x6, .; ldr x7, [x6, #8]!; ldur w8, [x6, #-4]
        ((0x10000006, 0xF8408CC7, 0xB85FC0C8), [(BASE + 8, 8), (BASE + 4, 4)]),
        # adr x9, .; ldrsw x10, [x9, #4]
        ((0x10000009, 0xB980052A), [(BASE + 4, 4)]),
        # ldr x9, .+8
        ((0x58000049,), [(BASE + 8, 8)]),
        # movn x26, #0; ldr x1, [x26]
        ((0x9280001A, 0xF9400341), [((1 << 64) - 1, 8)]),
    ],
)
def test_constants(words: tuple[int, ...], loaded: list[tuple[int, int]]) -> None:
    assert [(load.address.constant, load.size) for load in loads(*words)] == loaded


@pytest.mark.parametrize(
    "word",
    [
        0xD53CD053,  # mrs  x19, tpidr_el2
        0xC8137E75,  # stxr w19, x21, [x19]
        0xF8210273,  # ldadd x1, x19, [x19]
        0x8B010273,  # add  x19, x19, x1
        0xF8616A73,  # ldr  x19, [x19, x1]
    ],
)
def test_forgets_what_is_overwritten(word: int) -> None:
    """After it, ``ldr x25, [x19]`` is at no known distance from the argument that was in x19."""
    assert loads(0xF9400279)[0].address == Value(Argument(19), 0)
    assert not any(load.address.origin == Argument(19) for load in loads(word, 0xF9400279))


def test_store_keeps_its_register() -> None:
    """str x20, [x19]; ldr x21, [x20]"""
    assert loads(0xF9000274, 0xF9400295) == [Loaded(Value(Argument(20), 0), 8)]


def test_call_forgets_arguments() -> None:
    """bl .+0x100; ldr x11, [x9]; ldr x20, [x19]"""
    found = list(facts(code(0x94000040, 0xF940012B, 0xF9400274), BASE))
    assert found == [Call(BASE + 0x100), Loaded(Value(Argument(19), 0), 8)]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_takes_any_code(text: bytes) -> None:
    for fact in facts(text, BASE):
        hash(fact)
