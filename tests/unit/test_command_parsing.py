"""Typed lines become arguments, and mistakes become one sentence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gdbhyp.arch.syndrome import decode_esr
from gdbhyp.commands.classes import CLASSES, exception_class
from gdbhyp.commands.declaration import Argument, Command, Presentation, presentation
from gdbhyp.commands.numbers import parse_number
from gdbhyp.commands.parsing import parse, parse_line
from gdbhyp.errors import UsageError

WALK = Command(
    name="walk",
    summary="Walk.",
    run=lambda context, arguments: None,
    arguments=(
        Argument(("address",), "where", rest=True),
        Argument(("--stage1",), "only stage 1"),
        Argument(("--ttbr",), "the root", value="number"),
        Argument(("--regime",), "which", value="choice", choices=("EL1", "EL2")),
    ),
)


def parsed(line: str) -> dict[str, object]:
    return vars(parse_line(WALK, "hyp-walk", line)[1])


@pytest.mark.parametrize(
    "line",
    ["$sp + 8", "$sp + 8 --stage1", "--stage1 $sp + 8", "$sp --stage1 + 8", "--stage1 -- $sp + 8"],
)
def test_expression_needs_no_quotes(line: str) -> None:
    assert parsed(line)["address"] == "$sp + 8"


@pytest.mark.parametrize("expression", ["-8", "$pc - 8", "$pc -8", "foo(1, 2)", "*(long*)$x0", "&x[3]"])
def test_expression_is_no_option(expression: str) -> None:
    assert parsed(f"--stage1 {expression}")["address"] == expression


def test_option_takes_its_value() -> None:
    assert parsed("0x10 --ttbr $TTBR1_EL1")["ttbr"] == "$TTBR1_EL1"


def test_option_value_may_be_negative() -> None:
    assert parsed("0x10 --ttbr -16")["ttbr"] == "-16"


def test_quotes_group() -> None:
    assert parsed("--ttbr '$x0 + 8' 1") == {
        "address": "1",
        "stage1": False,
        "ttbr": "$x0 + 8",
        "regime": None,
        "json": False,
        "csv": False,
        "quiet": False,
        "output": None,
    }


@pytest.mark.parametrize(
    ("line", "guess"),
    [
        ("1 --stge1", "--stage1"),
        ("1 --STAGE1", "--stage1"),
        ("1 --jsom", "--json"),
        ("1 --regime el1", "EL1"),
    ],
)
def test_the_nearest_is_offered(line: str, guess: str) -> None:
    with pytest.raises(UsageError, match=rf"\(did you mean {guess}\?\)"):
        parsed(line)


@pytest.mark.parametrize("line", ["1 --zzzzz", "1 --regime zzzzz"])
def test_nothing_is_offered_where_nothing_is_near(line: str) -> None:
    with pytest.raises(UsageError) as caught:
        parsed(line)
    assert "did you mean" not in str(caught.value)


def shown(line: str, command: Command = WALK) -> Presentation:
    return presentation(*parse_line(command, "hyp-walk", line))


@pytest.mark.parametrize(
    ("line", "how"),
    [
        ("1", Presentation("text", False, None)),
        ("1 --json", Presentation("json", False, None)),
        ("--csv 1", Presentation("csv", False, None)),
        ("1 --quiet", Presentation("text", True, None)),
        ("1 --csv --output 'a b'", Presentation("csv", False, "a b")),
    ],
)
def test_how_an_answer_is_wanted(line: str, how: Presentation) -> None:
    assert shown(line) == how


@pytest.mark.parametrize("line", ["1 --json --csv", "1 --quiet --output x"])
def test_what_excludes_each_other(line: str) -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        shown(line)


@pytest.mark.parametrize("line", ["--help", "$sp --help", "--ttbr 8 --help"])
def test_help_is_gdbs(line: str) -> None:
    with pytest.raises(UsageError, match=r"^GDB's own 'help hyp-walk' shows"):
        parsed(line)


def test_a_commands_own_output_is_its_own() -> None:
    export = replace(WALK, arguments=(*WALK.arguments, Argument(("-o", "--output"), "the file", "path")))
    assert shown("1 --output x", export) == Presentation("text", False, None)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("0x10 --stage", "did you mean --stage1?"),
        ("0x10 --regime EL9", "invalid choice"),
        ("", "required: address"),
        ("--ttbr", "expected one argument"),
        ("'open", "a quote is not closed"),
    ],
)
def test_mistakes_are_sentences(line: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence.replace("?", r"\?")):
        parsed(line)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0x93c58045", 0x93C58045),
        ("93c58045", 0x93C58045),
        ("ESR=0x93c58045", 0x93C58045),
        ("ESR: 93C58045,", 0x93C58045),
        ("0xffff_ffff_ffff_ffff", 2**64 - 1),
    ],
)
def test_pasted_numbers(text: str, value: int) -> None:
    assert parse_number(text) == value


@pytest.mark.parametrize("text", ["", "0x", "xyz", "-1", "0x10000000000000000", "1 2", "_"])
def test_no_numbers(text: str) -> None:
    with pytest.raises(UsageError):
        parse_number(text)


@pytest.mark.parametrize(
    ("text", "number"), [("hvc", 0x16), ("DABT-lower", 0x24), ("0x18", 0x18), ("36", 36)]
)
def test_exception_classes(text: str, number: int) -> None:
    assert exception_class(text, "--ec") == number


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("dabtlower", r"did you mean dabt-lower\?"), ("64", "not '64'$"), ("-1", "not '-1'$"), ("", "not ''$")],
)
def test_no_exception_class(text: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        exception_class(text, "--ec")


def test_every_exception_class_has_a_name() -> None:
    allocated = {number for number in range(64) if "reserved" not in decode_esr(number << 26).ec.name}
    # Classes that EL2 never sees, or that no processor has any more.
    assert allocated - set(CLASSES.values()) == {0x1B, 0x1E, 0x1F}
    assert len(set(CLASSES.values())) == len(CLASSES)


def test_a_line_leaves_nothing_for_the_next_one() -> None:
    """Parsers are used again; what one line says is not in the next."""
    command = Command(
        name="again",
        summary="Ask again.",
        run=lambda context, arguments: None,
        arguments=(
            Argument(("--add",), "a value", "text", repeated=True),
            Argument(("--flag",), "a flag"),
            Argument(("words",), "words", optional=True, repeated=True),
        ),
    )
    first = parse(command, "again", ["--add", "1", "--flag", "x"])
    second = parse(command, "again", ["--add", "2", "y", "z"])
    third = parse(command, "again", [])
    assert (first.add, first.flag, first.words) == (["1"], True, ["x"])
    assert (second.add, second.flag, second.words) == (["2"], False, ["y", "z"])
    assert (third.add, third.flag, third.words) == (None, False, [])
