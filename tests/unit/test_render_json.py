"""Reports as JSON, by the types of their fields."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, Literal, Optional

import pytest

from gdbhyp.arch.spaces import IPA, PA, VA, Address, Word
from gdbhyp.render import json as render
from gdbhyp.render import output
from gdbhyp.render.style import Style


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True)
class Inner:
    at: PA
    size: int


@dataclass(frozen=True)
class Special(Inner):
    note: str


@dataclass(frozen=True)
class Everything:
    kind: ClassVar[str] = "everything"

    va: VA
    ipa: IPA
    pa: PA
    address: Address
    word: Word
    number: int
    flag: bool
    text: str
    world: Literal["host", "guest"]
    colour: Colour
    nothing: PA | None
    something: PA | None
    older: Optional[int]  # noqa: UP045 - what a report may be written with
    words: tuple[Word, ...]
    named: Mapping[str, Word]
    inner: Inner
    several: tuple[Inner, ...]
    maybe: Inner | None
    hidden: int = field(default=7, metadata={"json": False})


def everything() -> Everything:
    return Everything(
        VA(0xFFFF_8000_0000_0000),
        IPA(0),
        PA(0x10),
        Address(0xA),
        Word(2**64 - 1),
        number=16,
        flag=True,
        text="a\x1b\u202e",
        world="host",
        colour=Colour.RED,
        nothing=None,
        something=PA(0x4000_0000),
        older=None,
        words=(Word(1), Word(0x20)),
        named={"HCR_EL2": Word(0x8000_0000)},
        inner=Inner(PA(1), 2),
        several=(Inner(PA(3), 4), Special(PA(5), 6, "more")),
        maybe=None,
    )


def test_every_type() -> None:
    (line,) = render.lines(everything())
    assert json.loads(line) == {
        "va": "0xffff800000000000",
        "ipa": "0x0",
        "pa": "0x10",
        "address": "0xa",
        "word": "0xffffffffffffffff",
        "number": 16,
        "flag": True,
        "text": "a\x1b\u202e",
        "world": "host",
        "colour": "red",
        "nothing": None,
        "something": "0x40000000",
        "older": None,
        "words": ["0x1", "0x20"],
        "named": {"HCR_EL2": "0x80000000"},
        "inner": {"at": "0x1", "size": 2},
        "several": [{"at": "0x3", "size": 4}, {"at": "0x5", "size": 6, "note": "more"}],
        "maybe": None,
    }


def test_json_is_plain_ascii() -> None:
    """Whatever a target's text holds, it cannot act on a terminal, and one object is one line."""
    (line,) = render.lines(everything())
    assert line.isascii()
    assert line.isprintable()


@dataclass(frozen=True)
class Rows:
    kind: ClassVar[str] = "rows"
    json_lines: ClassVar[bool] = True

    rows: Iterator[Inner]
    problems: list[str]


def test_rows_are_printed_while_they_are_made() -> None:
    made = []

    def rows() -> Iterator[Inner]:
        for number in range(3):
            made.append(number)
            yield Inner(PA(number), number)

    lines = render.lines(Rows(rows(), []))
    assert json.loads(next(lines)) == {"at": "0x0", "size": 0}
    assert made == [0]
    assert len(list(lines)) == 2


def printed(report: Any, *, as_json: bool = True) -> tuple[list[str], list[str]]:
    out: list[str] = []
    warned: list[str] = []
    output.write(report, out.append, form="json" if as_json else "text", style=Style(), warn=warned.append)
    return out, warned


def test_problems_do_not_mix_with_json() -> None:
    problems: list[str] = []

    def rows() -> Iterator[Inner]:
        yield Inner(PA(1), 2)
        problems.append("a table cannot be read")

    out, warned = printed(Rows(rows(), problems))
    assert [json.loads(line) for line in out] == [{"at": "0x1", "size": 2}]
    assert warned == ["a table cannot be read"]


def test_raw_rows_are_lines_already() -> None:
    @dataclass(frozen=True)
    class Raw:
        kind: ClassVar[str] = "raw"
        raw: ClassVar[bool] = True
        rows: tuple[str, ...]

    assert printed(Raw(("a", "b")), as_json=False) == (["a\n", "b\n"], [])


def test_ctrl_c_says_that_something_is_missing() -> None:
    def rows() -> Iterator[Inner]:
        yield Inner(PA(1), 2)
        raise KeyboardInterrupt

    out: list[str] = []
    warned: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        output.write(Rows(rows(), []), out.append, form="json", style=Style(), warn=warned.append)
    assert len(out) == 1
    assert warned == ["interrupted: the answer above is not complete"]


def test_ctrl_c_before_the_answer_needs_no_sentence() -> None:
    def rows() -> Iterator[Inner]:
        raise KeyboardInterrupt
        yield Inner(PA(1), 2)

    warned: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        output.write(Rows(rows(), []), print, form="json", style=Style(), warn=warned.append)
    assert warned == []


@dataclass(frozen=True)
class Mixed:
    value: int | str


@dataclass(frozen=True)
class Raw:
    data: bytes


@pytest.mark.parametrize("report", [Mixed(1), Raw(b"")])
def test_what_has_no_json_form_is_refused(report: Any) -> None:
    with pytest.raises(TypeError, match="no JSON form"):
        list(render.lines(report))
