"""The reference and the manual page say everything, and roff prints what was meant."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from gdbhyp.cli.main import COMMANDS, main
from gdbhyp.commands.parameters import PARAMETERS
from gdbhyp.commands.reference import manual, names, reference
from gdbhyp.commands.topic import TOPICS, page, source

ALL = reference(COMMANDS)
MAN = manual(COMMANDS, "1.2.3")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: f"{c.name}-{'gdb' if c.in_gdb else 'cli'}")
def test_every_command_is_there(command: object) -> None:
    for name in names(command):  # type: ignore[arg-type]
        assert f"\n{name}\n\n" in ALL
        assert f".SS {name}\n".replace("-", "\\-") in MAN


def test_parameters_and_topics_are_there() -> None:
    for parameter in PARAMETERS:
        assert f"set hyp {parameter.name} " in ALL
        assert f"set hyp {parameter.name} ".replace("-", "\\-") in MAN
    for topic in TOPICS:
        assert page(topic) in ALL


def test_no_line_of_text_is_a_macro() -> None:
    known = {".TH", ".SH", ".SS", ".PP", ".TP", ".B", ".BR", ".nf", ".fi"}
    assert {line.split()[0] for line in MAN.splitlines() if line.startswith((".", "'"))} <= known


def test_roff_takes_the_page() -> None:
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("groff is not installed; the test above has looked at every line")
    done = subprocess.run(
        [groff, "-man", "-ww", "-Tutf8"], input=MAN, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert "hyp-walk" in done.stdout


def test_help_of_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "--all"]) == 0
    assert capsys.readouterr().out == ALL + "\n"
    assert main(["help", "--man"]) == 0
    assert capsys.readouterr().out.startswith(".TH GDBHYP 1 ")
    assert main(["help", "hpfar"]) == 0
    assert capsys.readouterr().out == page("hpfar") + "\n"
    assert main(["help", "hpfr"]) == 2


@pytest.mark.parametrize("topic", TOPICS)
def test_pages_fit(topic: str) -> None:
    """A page has a title, and fits a screen that is 120 wide."""
    text = source(topic)
    title = text.partition("\n")[0]
    assert title.endswith(".")
    assert max(map(len, text.splitlines())) <= 120
    assert "\t" not in text
