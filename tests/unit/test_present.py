"""What the options of every command do with an answer: its form, the file it goes to, and progress meanwhile."""

from __future__ import annotations

import csv
import io
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest

from gdbhyp.arch.spaces import PA, Word
from gdbhyp.cli.main import main
from gdbhyp.commands.declaration import Presentation
from gdbhyp.errors import BadInput, UsageError
from gdbhyp.files import written_whole
from gdbhyp.render import csv as render
from gdbhyp.render.present import Screen, present
from gdbhyp.render.progress import Progress


@dataclass(frozen=True)
class Fault:
    kind: str
    at: PA | None


@dataclass(frozen=True)
class Step:
    level: int
    descriptor: Word
    nested: tuple[Step, ...] = ()


@dataclass(frozen=True)
class Walk:
    kind: ClassVar[str] = "walk"
    csv_rows: ClassVar[str] = "steps"

    output: PA | None
    fault: Fault | None
    done: bool
    steps: tuple[Step, ...]
    words: tuple[str, ...] = ()
    hidden: int = field(default=0, metadata={"json": False})


@dataclass(frozen=True)
class Row:
    start: PA
    note: str


@dataclass(frozen=True)
class Rows:
    kind: ClassVar[str] = "map"
    json_lines: ClassVar[bool] = True

    rows: Iterator[Row]
    problems: list[str] = field(default_factory=list)


def read(lines: Iterator[str]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO("\n".join(lines) + "\n")))


def test_a_line_an_entry() -> None:
    walk = Walk(PA(0x4000), None, True, (Step(1, Word(3)), Step(2, Word(0x403))), ("a", "b"))
    first, second = read(render.lines(walk))
    assert list(first) == [
        *("output", "fault.kind", "fault.at", "done", "words"),
        *("steps.level", "steps.descriptor", "steps.nested"),
    ]
    assert first | {"steps.level": "2", "steps.descriptor": "0x403"} == second
    assert (first["output"], first["fault.kind"], first["done"]) == ("0x4000", "", "true")
    assert first["words"] == '["a", "b"]'


def test_an_empty_list_is_one_line() -> None:
    (only,) = read(render.lines(Walk(None, Fault("translation", PA(0)), False, ())))
    assert (only["output"], only["fault.kind"], only["fault.at"]) == ("", "translation", "0x0")
    assert only["steps.level"] == ""


def test_the_heading_is_there_without_rows() -> None:
    assert list(render.lines(Rows(iter(())))) == ["start,note"]


def test_hostile_text_keeps_its_cell() -> None:
    (row,) = read(render.lines(Rows(iter([Row(PA(1), 'a,"b"\n\x1b[31m')]))))
    assert row == {"start": "0x1", "note": 'a,"b"\\n\\x1b[31m'}


def test_lines_of_json_have_no_other_form() -> None:
    @dataclass(frozen=True)
    class Raw:
        raw: ClassVar[bool] = True
        rows: tuple[str, ...] = ("{}",)

    with pytest.raises(UsageError, match="no other form"):
        list(render.lines(Raw()))


@dataclass
class Seen:
    """A screen that notes what it is shown."""

    out: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)

    @property
    def screen(self) -> Screen:
        return Screen(self.out.append, self.warned.append)


def rows(report_problems: list[str], fail: BaseException | None = None) -> Iterator[Row]:
    yield Row(PA(0x1000), "")
    if fail is not None:
        raise fail
    report_problems.append("the rest is missing")


def test_quiet_makes_the_answer_and_says_what_is_missing() -> None:
    seen = Seen()
    problems: list[str] = []
    report = Rows(rows(problems), problems)
    present(report, Presentation(quiet=True), seen.screen)
    assert (seen.out, seen.warned) == ([], ["the rest is missing"])
    assert next(report.rows, None) is None


def test_an_answer_in_a_file(tmp_path: Path) -> None:
    seen = Seen()
    problems: list[str] = []
    path = tmp_path / "map.csv"
    present(Rows(rows(problems), problems), Presentation("csv", output=str(path)), seen.screen)
    assert path.read_text() == "start,note\n0x1000,\n"
    assert (seen.out, seen.warned) == ([], ["the rest is missing"])
    assert os.listdir(tmp_path) == ["map.csv"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), BadInput("no")])
def test_a_file_is_whole_or_as_it_was(tmp_path: Path, failure: BaseException) -> None:
    path = tmp_path / "map.json"
    path.write_text("older")
    with pytest.raises(type(failure)):
        present(Rows(rows([], failure)), Presentation("json", output=str(path)), Seen().screen)
    assert path.read_text() == "older"
    assert os.listdir(tmp_path) == ["map.json"]


def test_permissions_of_files(tmp_path: Path) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    old.write_text("")
    old.chmod(0o640)
    mask = os.umask(0o027)
    try:
        for path in (new, old):
            with written_whole(str(path)) as file:
                file.write(b"x")
    finally:
        os.umask(mask)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (new, old)] == [0o640, 0o640]


def test_a_link_is_replaced(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / "link").symlink_to(precious)
    with written_whole(str(tmp_path / "link")) as file:
        file.write(b"answer")
    assert (precious.read_text(), (tmp_path / "link").read_text()) == ("precious", "answer")


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with written_whole(str(fifo)) as file:
        file.write(b"answer")
    assert os.read(reader, 100) == b"answer"
    os.close(reader)


@pytest.mark.parametrize(("name", "why"), [(".", "directory"), ("none/x", "No such file")])
def test_a_file_that_cannot_be(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(BadInput, match=f"^cannot write .*{why}"), written_whole(str(tmp_path / name)):
        pass


def test_progress_shows_itself_late_and_seldom() -> None:
    shown: list[str] = []
    now = [0.0]
    progress = Progress(shown.append, lambda: now[0])
    for now[0] in (0.5, 0.99, 1.0, 1.1, 1.24, 1.3):
        progress("tables", int(now[0] * 100), 5000)
    assert [text.lstrip("\r\x1b[K") for text in shown] == ["tables: 100 of 5,000", "tables: 130 of 5,000"]
    progress.clear()
    progress.clear()
    assert shown[2:] == ["\r\x1b[K"]


def test_the_program_takes_the_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "esr.csv"
    assert main(["esr", "0x93c58045", "--csv", "--output", str(path)]) == 0
    assert main(["esr", "0x93c58045", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    table = read(iter(path.read_text().splitlines()))
    assert [(r["fields.name"], r["fields.value"]) for r in table if r["fields.name"] == "SRT"] == [
        ("SRT", "5")
    ]
    assert {r["esr"] for r in table} == {"0x93c58045"}
    assert main(["esr", "0", "--output", str(tmp_path / "none" / "x")]) == 3
    assert capsys.readouterr().err.startswith("gdbhyp: cannot write ")
