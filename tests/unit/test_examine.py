"""Memory as numbers and strings, by GDB's letters, and where it ends."""

from __future__ import annotations

import pytest
from unit.kvmworld import HYP, KERNEL, PAGE, PHYSICAL, TEXT, KvmWorld

from gdbhyp.analyses.examine import Question, examine
from gdbhyp.arch.examine import Format, parse_format, string_text, unit_text
from gdbhyp.arch.regimes import Regime
from gdbhyp.errors import MemoryUnavailable, UsageError


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", Format(1, "x", 4)),
        ("4", Format(4, "x", 4)),
        ("4xg", Format(4, "x", 8)),
        ("gx", Format(1, "x", 8)),
        ("8b", Format(8, "x", 1)),
        ("i", Format(1, "i", 4)),
        ("3s", Format(3, "s", 0)),
        ("2a", Format(2, "a", 8)),
        ("c", Format(1, "c", 1)),
        ("f", Format(1, "f", 8)),
        ("fw", Format(1, "f", 4)),
    ],
)
def test_formats(text: str, wanted: Format) -> None:
    assert parse_format(text) == wanted


@pytest.mark.parametrize("text", ["q", "xx", "gw", "4 x", "-1x", "0x", "999999x", "fb"])
def test_no_formats(text: str) -> None:
    with pytest.raises(UsageError):
        parse_format(text)


@pytest.mark.parametrize(
    ("data", "letter", "text"),
    [
        (b"\x01\x02\x03\x04", "x", "0x04030201"),
        (b"\xff\xff", "d", "-1"),
        (b"\xff\xff", "u", "65535"),
        (b"\x08", "o", "010"),
        (b"\x05", "t", "00000101"),
        (b"\0\0\x80\x3f", "f", "1"),
        (b"a", "c", "97 'a'"),
        (b"\x81", "c", r"-127 '\201'"),
        (b"\n", "c", r"10 '\n'"),
        (b"\x34\x12\0\0\0\0\0\0", "a", "0x1234"),
    ],
)
def test_units(data: bytes, letter: str, text: str) -> None:
    assert unit_text(data, letter) == text


def test_strings_are_quoted() -> None:
    assert string_text(b'it\'s "\x1b[31m"\n') == r'''"it's \"\033[31m\"\n"'''


def nothing(_code: bytes, _address: int) -> None:
    return None


def ask(address: int, form: str, **more: object) -> list[tuple[int, tuple[str, ...]]]:
    world = KvmWorld()
    world.memory.write(PHYSICAL + 0x800, b"a string\0and another\0")
    found = examine(world.stop(), Question(address, parse_format(form), **more), nothing)  # type: ignore[arg-type]
    return [(row.address, row.values) for row in found.rows]


def test_any_space() -> None:
    """The same memory by the kernel's VA, EL2's VA, and its PA; EL1 without stage 2 has IPA = PA."""
    text = PHYSICAL + TEXT * PAGE + 0x10
    expected = ("0x90000020", "0x9101a000", "0xf8617800", "0xd63f0000")
    assert ask(KERNEL + TEXT * PAGE + 0x10, "4xw") == [(KERNEL + TEXT * PAGE + 0x10, expected)]
    assert ask(HYP + TEXT * PAGE + 0x10, "4xw", regime=Regime.EL2) == [(HYP + TEXT * PAGE + 0x10, expected)]
    assert ask(text, "4xw", space="PA") == [(text, expected)]
    assert ask(text, "2i", space="PA") == [(text, (".inst 0x90000020",)), (text + 4, (".inst 0x9101a000",))]


def test_strings() -> None:
    assert ask(KERNEL + 0x800, "2s") == [
        (KERNEL + 0x800, ('"a string"',)),
        (KERNEL + 0x809, ('"and another"',)),
    ]


def test_end_of_memory() -> None:
    """What goes before the end is shown; where there is nothing at all, that is the answer."""
    world = KvmWorld()
    stop = world.stop()
    last = KERNEL + 16 * PAGE - 16
    found = examine(stop, Question(last, parse_format("8xg")), nothing)
    assert [row.values for row in found.rows] == [("0x0000000000000000", "0x0000000000000000")]
    assert f"VA {KERNEL + 16 * PAGE:#x}" in found.problems[0]
    with pytest.raises(MemoryUnavailable):
        examine(stop, Question(KERNEL + 16 * PAGE, parse_format("x")), nothing)
    world.memory.write(PHYSICAL + 16 * PAGE - 16, b"no end of it at")
    world.memory.write(PHYSICAL + 16 * PAGE - 1, b"!")
    with pytest.raises(MemoryUnavailable):
        examine(stop, Question(last, parse_format("s")), nothing)


def test_own_disassembler() -> None:
    stop = KvmWorld().stop()

    def lines(code: bytes, address: int) -> list[str]:
        return [f"{address + at:#x} insn" for at in range(0, len(code), 4)]

    question = Question(KERNEL + TEXT * PAGE + 0x10, parse_format("2i"))
    assert [row.values for row in examine(stop, question, lines).rows] == [
        (f"{KERNEL + TEXT * PAGE + at:#x} insn",) for at in (0x10, 0x14)
    ]
