"""The contract of the program: exit statuses, what goes to stdout and what to stderr, and files of AT cases."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gdbhyp import __version__
from gdbhyp.cli.main import COMMANDS, main

IN_CLI = [command for command in COMMANDS if command.in_cli]


class Ran:
    """How the program ended in this process, and what it printed."""

    def __init__(self, capture: pytest.CaptureFixture[str], *words: str) -> None:
        capture.readouterr()
        self.status = main(words)
        self.out, self.err = capture.readouterr()


def process(words: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the program as a process of its own."""
    command = [sys.executable, "-m", "gdbhyp.cli.main", *words]
    return subprocess.run(command, text=True, check=False, timeout=60, **{"capture_output": True, **options})


def test_an_answer_is_status_0(capsys: pytest.CaptureFixture[str]) -> None:
    ran = Ran(capsys, "esr", "0x93c58045")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith("ESR_EL2 = 0x93c58045: ")


def test_json_is_one_object_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    ran = Ran(capsys, "esr", "0x93c58045", "--json")
    assert (ran.status, ran.err) == (0, "")
    answer = json.loads(ran.out)
    assert (answer["esr"], answer["ec"]["value"], answer["il"]) == ("0x93c58045", 36, 1)
    assert list(answer)[:7] == ["esr", "el", "ec", "il", "iss", "iss2", "encoding"]
    bits = [field["msb"] for field in answer["fields"]]
    assert bits == sorted(bits, reverse=True)
    assert set(answer["fields"][0]) >= {"name", "msb", "lsb", "value", "text"}


def test_several_values_are_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    ran = Ran(capsys, "esr", "--json", "5a000000", "ESR=0x07e00000,")
    assert [json.loads(line)["esr"] for line in ran.out.splitlines()] == ["0x5a000000", "0x7e00000"]


def test_values_from_standard_input() -> None:
    done = process(["esr", "--json", "-"], input="0x5a000000 0x07e00000\n\n0xffffffffffffffff\n")
    assert [json.loads(line)["esr"] for line in done.stdout.splitlines()] == [
        "0x5a000000",
        "0x7e00000",
        "0xffffffffffffffff",
    ]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["esr"], "this needs a live target: use the command inside GDB"),
        (["esr", "zz"], "'zz' is not a hexadecimal number"),
        (["esr", "&vectors"], "only GDB knows where vectors is"),
        (["esr", "--json", "zz"], "'zz' is not a hexadecimal number"),
        (["esr", "0x10000000000000000"], "'0x10000000000000000' has more than 64 bits"),
        (["esr", "--el", "4", "0"], "gdbhyp esr: argument --el: invalid choice: '4'"),
        (["esr", "0", "--jsn"], "gdbhyp esr: unrecognized arguments: --jsn (did you mean --json?)"),
        (["esrr", "0"], "there is no command 'esrr' (did you mean esr?); 'gdbhyp help' lists them"),
        (["nonsense"], "there is no command 'nonsense'; 'gdbhyp help' lists them"),
        (["help", "nonsense"], "there is no command 'nonsense'; 'gdbhyp help' lists them"),
        (["--nonsense"], "there is no command '--nonsense'"),
        (["reg", "NOT_A_REGISTER", "0"], "no system register is called NOT_A_REGISTER"),
        (["map"], "gdbhyp map: the following arguments are required: dump"),
        (["at", "a", "b"], "say one file of cases; an operation and an address need --dump"),
        (["trace"], "gdbhyp trace: a subcommand is missing"),
    ],
)
def test_usage_is_status_2(capsys: pytest.CaptureFixture[str], words: list[str], sentence: str) -> None:
    ran = Ran(capsys, *words)
    assert (ran.status, ran.out) == (2, "")
    shown = sentence if sentence.startswith("gdbhyp ") else f"gdbhyp: {sentence}"
    assert ran.err.startswith(shown)
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["at", "{folder}/none"],
        ["at", "{folder}"],
        ["at", "--memory", "{folder}/none@0", "{cases}"],
        ["at", "--memory", "{cases}", "{cases}"],
        ["at", "--memory", "{cases}@0", "--memory", "{cases}@1", "{cases}"],
        ["at", "--memory", "{folder}@0", "{cases}"],
        ["map", "{folder}/none@0", "--stage2"],
        ["walk", "{folder}/none", "0"],
        ["trace", "stat", "{folder}/none"],
        ["annotate", "{folder}/none"],
    ],
)
def test_bad_input_is_status_3(capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str]) -> None:
    cases = tmp_path / "cases"
    cases.write_text('{"op": "S1E1R", "va": "0x0"}\n')
    ran = Ran(capsys, *(word.format(folder=tmp_path, cases=cases) for word in words))
    assert (ran.status, ran.out) == (3, "")
    assert ran.err.startswith("gdbhyp: ")
    assert ran.err.count("\n") == 1


def test_no_answer_is_status_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The question is a good one, but the registers that decide it were not given."""
    (tmp_path / "ram").write_bytes(bytes(4096))
    ran = Ran(capsys, "walk", f"{tmp_path}/ram@0x40000000", "0", "--regime", "EL1")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("gdbhyp: the target does not show ")


def test_a_fault_is_an_answer(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(bytes(4096))
    roots = ["--vttbr", "0x40000000", "--vtcr", "0x80023559"]
    ran = Ran(capsys, "walk", f"{tmp_path}/ram@0x40000000", "0", "--stage2", *roots, "--json")
    assert (ran.status, ran.err) == (0, "")
    answer = json.loads(ran.out)
    assert answer["output"] is None
    assert answer["fault"]["kind"] == "translation"
    assert (answer["fault"]["stage"], answer["fault"]["level"], answer["fault"]["s1ptw"]) == (2, 1, False)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert Ran(capsys, "--version").out == f"gdbhyp {__version__}\n"


@pytest.mark.parametrize("words", [[], ["help"], ["--help"], ["-h"]])
def test_help_lists_every_command(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    ran = Ran(capsys, *words)
    assert (ran.status, ran.err) == (0, "")
    listed = {line.split()[0] for line in ran.out.splitlines() if line.startswith("  ")}
    assert listed == {command.name for command in IN_CLI} | {"gdb", "gdbinit"}


@pytest.mark.parametrize("command", IN_CLI, ids=lambda command: command.name)
def test_help_of_every_command(capsys: pytest.CaptureFixture[str], command: Any) -> None:
    for words in (["help", command.name], [command.name, "--help"], [command.name, "-h"]):
        ran = Ran(capsys, *words)
        assert (ran.status, ran.err) == (0, "")
        first, _, rest = ran.out.partition("\n")
        assert first == command.summary
        assert first.endswith(".")
        assert f"Usage: gdbhyp {command.name} " in rest


@pytest.mark.parametrize("words", [["help", "gdb"], ["help", "gdbinit"]])
def test_help_of_the_launchers(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    ran = Ran(capsys, *words)
    assert ran.status == 0
    assert ran.out.endswith(".\n")


def test_hostile_names_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    ran = Ran(capsys, "annotate", "no\x1b[2Jsuch\nfile")
    assert ran.status == 3
    assert ran.err == "gdbhyp: cannot read no\\x1b[2Jsuch\\nfile: No such file or directory\n"


# What a shell can do to the three standard streams.


def test_a_reader_that_has_seen_enough() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = process(["esr", "0x5a000000"], stdout=writing, stderr=subprocess.PIPE, capture_output=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_disk() -> None:
    with open("/dev/full", "w") as full:
        done = process(["esr", "0x5a000000"], stdout=full, stderr=subprocess.PIPE, capture_output=False)
    assert done.returncode == 1
    assert done.stderr == "gdbhyp: cannot write the answer: No space left on device\n"


@pytest.mark.parametrize(
    ("redirections", "words", "status"),
    [
        ("<&-", "at", 0),
        ("<&-", "esr 0x5a000000", 0),
        (">&-", "esr 0x5a000000", 0),
        ("2>&-", "esr zz", 2),
        ("<&- >&- 2>&-", "esr -", 2),
    ],
)
def test_closed_streams(redirections: str, words: str, status: int) -> None:
    script = f'exec "$0" -m gdbhyp.cli.main {words} {redirections}'
    done = subprocess.run(
        ["sh", "-c", script, sys.executable], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == status
    assert "Traceback" not in done.stderr


def test_input_that_is_no_text() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    command = [sys.executable, "-m", "gdbhyp.cli.main", "at"]
    done = subprocess.run(
        command, input=b'\xff\xfe\n{"op": "S1E2R", "va": "0x0"}\n', capture_output=True, env=environment
    )
    assert (done.returncode, done.stderr) == (0, b"")
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert list(first) == ["error"]
    assert list(second) == ["par"]


# gdbhyp at: a case a line, an answer a line.

ROOT = 0x4000_0000
BLOCK = 0x8000_0000 | 1 << 10 | 3 << 8 | 1
REGISTERS = {
    "ID_AA64MMFR0_EL1": "0x5",
    "SCTLR_EL2": "0x5",
    "TCR_EL2": hex(1 << 31 | 1 << 23 | 5 << 16 | 25),
    "TTBR0_EL2": hex(ROOT),
    "MAIR_EL2": "0xff",
}


@pytest.fixture
def image(tmp_path: Path) -> str:
    """A level-1 table of EL2: its first GiB is not mapped, its second is at PA 0x80000000."""
    (tmp_path / "ram").write_bytes(struct.pack("<512Q", 0, BLOCK, *[0] * 510))
    return f"{tmp_path}/ram@{ROOT:#x}"


def case(va: int, **more: Any) -> str:
    return json.dumps({"op": "S1E2R", "va": hex(va), "regs": REGISTERS, **more})


def answers(capture: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    ran = Ran(capture, "at", *words)
    assert (ran.status, ran.err) == (0, "")
    return [json.loads(line) for line in ran.out.splitlines()]


def test_at_answers_in_order(capsys: pytest.CaptureFixture[str], tmp_path: Path, image: str) -> None:
    cases = tmp_path / "cases.jsonl"
    offsets = [0x1000 * n for n in (7, 3, 3, 900, 0)]
    cases.write_text("".join(case(0x4000_0000 + offset) + "\n" for offset in offsets))
    pars = [int(answer["par"], 16) for answer in answers(capsys, "--memory", image, str(cases))]
    assert [par & 0xF_FFFF_F000 for par in pars] == [0x8000_0000 + offset for offset in offsets]
    assert all(par & 1 == 0 for par in pars)
    assert all(par >> 56 == 0xFF for par in pars)


def test_at_goes_on_after_what_it_cannot_answer(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, image: str
) -> None:
    lines = [
        case(0x4000_0000),
        "{",
        "",
        "   ",
        "[]",
        "null",
        "7",
        '"S1E2R"',
        "{}",
        json.dumps({"op": "S9E9R", "va": "0x0"}),
        json.dumps({"op": "S1E2R"}),
        json.dumps({"op": "S1E2R", "va": "nowhere"}),
        json.dumps({"op": "S1E2R", "va": [1]}),
        json.dumps({"op": "S1E2R", "va": "0x0", "regs": []}),
        json.dumps({"op": "S1E2R", "va": "0x0", "regs": {"HCR_EL2": "x"}}),
        json.dumps({"op": "S1E2R", "va": "0x0", "pstate": {"PAN": "?"}}),
        "[" * 100_000,
        '{"op": "S1E2R", "va": ' + "9" * 5000 + "}",
        case(0),
        case(0x4000_0000, nonsense={"more": [1]}),
    ]
    cases = tmp_path / "cases.jsonl"
    cases.write_text("\n".join(lines))
    found = answers(capsys, "--memory", image, str(cases))
    assert len(found) == len([line for line in lines if line.strip()])
    kinds = [next(iter(answer)) for answer in found]
    assert kinds == ["par", *["error"] * (len(found) - 3), "par", "par"]
    assert all(answer["error"] and "\n" not in answer["error"] for answer in found if "error" in answer)
    assert int(found[-2]["par"], 16) & 0x7F == 0b000101 << 1 | 1
    assert found[-1] == found[0]


def test_at_reads_standard_input(image: str) -> None:
    for words in (["at", "--memory", image], ["at", "--memory", image, "-"]):
        done = process(words, input=case(0x4000_0000))
        assert json.loads(done.stdout)["par"].startswith("0xff")


def test_at_over_several_images(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A walk finds each table in whichever image holds it, and aborts where none does."""
    second = 0x5000_0000
    (tmp_path / "first").write_bytes(struct.pack("<512Q", second | 3, 0x6000_0000 | 3, *[0] * 510))
    (tmp_path / "second").write_bytes(struct.pack("<512Q", BLOCK, *[0] * 511))
    cases = tmp_path / "cases.jsonl"
    cases.write_text(f"{case(0)}\n{case(0x4000_0000)}\n")
    images = ["--memory", f"{tmp_path}/second@{second:#x}", "--memory", f"{tmp_path}/first@{ROOT:#x}"]
    mapped, aborted = answers(capsys, *images, str(cases))
    assert int(mapped["par"], 16) & 0xF_FFFF_F001 == 0x8000_0000
    assert list(mapped) == ["par"]
    assert aborted["exception"] is True
    assert int(aborted["par"], 16) & 0x7F == 0b010110 << 1 | 1


def test_at_without_memory_aborts_every_walk(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    cases = tmp_path / "cases.jsonl"
    cases.write_text(case(0x4000_0000))
    (answer,) = answers(capsys, str(cases))
    assert answer["exception"] is True
    assert int(answer["par"], 16) & 0x7F == 0b010101 << 1 | 1


def test_at_takes_numbers_as_well_as_text(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, image: str
) -> None:
    cases = tmp_path / "cases.jsonl"
    numbers = {name: int(value, 16) for name, value in REGISTERS.items()}
    cases.write_text(
        case(0x4000_0000) + "\n" + json.dumps({"op": "S1E2R", "va": 0x4000_0000, "regs": numbers})
    )
    first, second = answers(capsys, "--memory", image, str(cases))
    assert first == second
