"""Text for terminals: nothing hostile gets through, columns line up, and colour is only where it is wanted."""

from __future__ import annotations

import random
import re

import pytest
from tabulate import tabulate

from gdbhyp.errors import GdbhypError
from gdbhyp.render.sizes import size_text
from gdbhyp.render.style import Style, escape


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("__kvm_vcpu_run+0x1c", "__kvm_vcpu_run+0x1c"),
        ("", ""),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("line\nfeed\r\ttab", "line\\nfeed\\r\\ttab"),
        ("\x9b31m", "\\x9b31m"),
        ("\x7f\x00", "\\x7f\\x00"),
        ("right\u202eleft", "right\\u202eleft"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("para\u2029graph", "para\\u2029graph"),
        ("private\ue000", "private\\ue000"),
        ("lone\udc80", "lone\\udc80"),
        ("unassigned\U000e0080", "unassigned\\U000e0080"),
        ("größe_λ_核", "größe_λ_核"),
    ],
)
def test_escape(text: str, shown: str) -> None:
    assert escape(text) == shown


def test_escape_leaves_no_control_character() -> None:
    for code in [*range(0x300), *range(0x2000, 0x2070), *range(0xD800, 0xD810), 0xFEFF, 0xFFF9]:
        assert not re.search(
            "[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]", escape(chr(code))
        )


def test_no_colour_by_default() -> None:
    assert Style().paint("bad", "text") == "text"
    assert Style().instruction("mrs x3, ID_AA64PFR0_EL1") == "mrs x3, ID_AA64PFR0_EL1"


@pytest.mark.parametrize("role", ["heading", "good", "bad", "address", "name", "note", "dim"])
def test_every_role_has_a_colour(role: str) -> None:
    painted = Style(colour=True).paint(role, "text")
    assert painted != "text"
    assert re.sub(r"\x1b\[[0-9;]*m", "", painted) == "text"
    assert painted.endswith("m")


def test_nothing_is_not_painted() -> None:
    assert Style(colour=True).paint("bad", "") == ""


def test_a_coloured_instruction_has_the_same_words() -> None:
    painted = Style(colour=True).instruction("mrs x3, ID_AA64PFR0_EL1")
    assert re.sub(r"\x1b\[[0-9;]*m", "", painted) == "mrs x3, ID_AA64PFR0_EL1"


@pytest.mark.parametrize("colour", [False, True])
def test_fields_are_laid_out_as_tabulate_would(colour: bool) -> None:
    chance = random.Random(2)
    style = Style(colour=colour)
    words = ["", "0", "[31:26]", "EC", "a longer meaning of a field", "0xffffffc012000060"]
    for _ in range(200):
        columns = chance.randrange(1, 6)
        rows = [
            [style.paint(chance.choice(["name", "dim"]), chance.choice(words)) for _ in range(columns)]
            for _ in range(chance.randrange(0, 7))
        ]
        expected = tabulate(rows, tablefmt="plain", disable_numparse=True)
        assert style.table(rows).splitlines() == [line.rstrip() for line in expected.splitlines()]


def test_headings_stand_over_their_columns() -> None:
    lines = Style().table([["0x1", "b"], ["0x10000", ""]], ("from", "kind")).splitlines()
    assert lines == ["from     kind", "0x1      b", "0x10000"]


def test_cells_are_not_taken_for_numbers() -> None:
    assert Style().table([["0010", "1e5"]], ("a", "b")).splitlines()[-1] == "0010  1e5"
    assert Style().table([["0010", "1e5"]]) == "0010  1e5"


@pytest.mark.parametrize("package", ["tabulate", "pygments"])
def test_a_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    import sys

    for name in [m for m in sys.modules if m.split(".")[0] == package]:
        monkeypatch.setitem(sys.modules, name, None)
    style = Style(colour=package == "pygments")
    with pytest.raises(GdbhypError) as caught:
        style.table([["cell"]], ["heading"])
    assert str(caught.value).startswith(f"{package} is missing: activate the virtual environment")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (100, "100 bytes"),
        (4096, "4 KiB"),
        (2 << 20, "2 MiB"),
        ((1 << 30) + 4096, "1048580 KiB"),
        (1 << 30, "1 GiB"),
        (512 << 40, "512 TiB"),
        ((1 << 40) + 1, "1099511627777 bytes"),
    ],
)
def test_sizes(size: int, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("headers", [(), ("name", "bits", "meaning")])
def test_a_table_fits_the_screen(colour: bool, headers: tuple[str, ...]) -> None:
    """The widest column is broken; nothing is lost, and no line is wider than the screen but for one indentation."""
    wide = Style(colour=colour)
    words = " ".join(f"word{n}" for n in range(20))
    rows = [["EC", "[31:26]", wide.paint("note", words)], ["IL", "[25]", "short"]]
    narrow = Style(colour=colour, width=60).table(rows, headers)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", narrow)
    assert max(map(len, plain.splitlines())) <= 58
    assert re.findall(r"word\d+", plain) == words.split()
    broken = [line for line in plain.splitlines() if "word" in line]
    assert len(broken) > 1
    assert len(plain.splitlines()) == bool(headers) + len(broken) + 1
    assert narrow.count("\x1b[39;49;00m") - bool(headers and colour) * 3 == (len(broken) if colour else 0)
    assert Style(colour=colour, width=0).table(rows, headers) == Style(colour=colour, width=999).table(
        rows, headers
    )


def test_a_table_is_not_squeezed_into_nothing() -> None:
    rows = [["a" * 40, "b" * 40, "c " * 20]]
    assert Style(width=60).table(rows) == Style().table(rows)
