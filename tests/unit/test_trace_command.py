"""``gdbhyp trace`` on files: the answers that other programs read."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from gdbhyp.cli.main import main

LOG = """\
Exception return from AArch64 EL2 to AArch64 EL1 PC 0x100000
Taking exception 11 [Hypervisor Call] on CPU 0
...from EL1 to EL2
...with ESR 0x16/0x5a000000
...with ELR 0x100008
...to EL2 PC 0x6e0000200400 PSTATE 0x3c9
Exception return from AArch64 EL2 to AArch64 EL1 PC 0x900000
Taking exception 4 [Data Abort] on CPU 0
...from EL1 to EL2
...with ESR 0x24/0x93840005
...with FAR 0x555500000018
...with ELR 0x900004
...to EL2 PC 0x6e0000200400 PSTATE 0x3c9
Exception return from AArch64 EL2 to AArch64 EL1 PC 0x100008
Taking exception 11 [Hypervisor Call] on CPU 0
...from EL1 to EL2
...with ESR 0x16/0x5a000000
...with ELR 0x100008
...to EL2 PC 0x6e0000200400 PSTATE 0x3c9
Exception return from AArch64 EL2 to AArch64 EL1 PC 0x900008
Taking exception 5 [IRQ] on CPU 0
...from EL1 to EL2
...with ESR 0x16/0x5a000000
...with ELR 0x90000c
...to EL2 PC 0x6e0000200480 PSTATE 0x3c9
Exception return from AArch64 EL2 to AArch64 EL1 PC 0x100008
"""


@pytest.fixture
def log(tmp_path: Path) -> str:
    path = tmp_path / "int.log"
    path.write_text(LOG)
    return str(path)


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_stat(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    stat: dict[str, Any] = json.loads(answer(capsys, "trace", "stat", log, "--json"))
    rows = {(row["world"], row["ec"]): row["count"] for row in stat["exits"]}
    assert rows == {("host", 0x16): 2, ("guest", 0x24): 1, ("guest", None): 1}
    assert sum(rows.values()) == stat["exceptions"] == 4
    assert (stat["events"], stat["returns"], stat["dropped"], stat["world_switches"]) == (9, 5, 0, 3)
    assert {row["name"] for row in stat["exits"]} == {
        "HVC (AArch64)",
        "Data Abort from a lower Exception level",
        "IRQ",
    }
    assert all(row["vmid"] is None for row in stat["exits"])


def test_stat_in_words(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = answer(capsys, "trace", "stat", log)
    assert "4 exceptions taken to EL2, 5 returns, 3 world switches, 1 CPU" in text
    assert "worlds are deduced" in text


def test_show(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [json.loads(line) for line in answer(capsys, "trace", "show", log, "--json").splitlines()]
    assert [row["world"] for row in rows] == ["host", "guest", "host", "guest"]
    assert rows[1]["far"] == "0x555500000018"
    assert rows[3]["esr"] is None
    assert rows[3]["exception"] == "irq"


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (("--reason", "hvc"), 2),
        (("--reason", "irq"), 1),
        (("--ec", "36"), 1),
        (("--ec", "0x24"), 1),
        (("--world", "guest"), 2),
        (("--cpu", "1"), 0),
        (("--pc", "0x900000-0x90000f"), 2),
        (("--pc", "0x900004"), 1),
        (("--last", "1"), 1),
    ],
)
def test_filters(log: str, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], count: int) -> None:
    out = answer(capsys, "trace", "show", log, "--json", *options)
    assert len(out.splitlines()) == count


def test_chrome(log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    answer(capsys, "trace", "export", log, "--format", "chrome", "-o", str(out))
    items = json.loads(out.read_text())["traceEvents"]
    instants = [item for item in items if item["ph"] == "i"]
    assert len(instants) == 4
    assert instants[1]["args"]["esr"] == "0x93840005"
    slices = [item for item in items if item["ph"] == "X" and item["pid"] == 1]
    assert [item["name"] for item in slices] == [
        "hypervisor",
        "guest",
        "hypervisor",
        "host",
        "hypervisor",
        "guest",
    ]
    assert all(item["dur"] >= 0 for item in slices)
    named = {(item["pid"], item["tid"]) for item in items if item["name"] == "thread_name"}
    assert {(item["pid"], item["tid"]) for item in items if item["ph"] == "X"} <= named


def test_csv(log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.csv"
    answer(capsys, "trace", "export", log, "--format", "csv", "-o", str(out))
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["world"] for row in rows] == ["host", "guest", "host", "guest"]
    assert rows[1]["esr"] == "0x93840005"
    assert rows[3]["ec"] == ""


def test_jsonl_says_the_same(log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.jsonl"
    answer(capsys, "trace", "export", log, "--format", "jsonl", "-o", str(out))
    first = json.loads(answer(capsys, "trace", "stat", log, "--json"))
    second = json.loads(answer(capsys, "trace", "stat", str(out), "--json"))
    assert first == second


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("stat", "/nowhere/file"), 3, "cannot read /nowhere/file"),
        (("stat",), 2, "needs a live target"),
        (("start",), 2, "is not one of its subcommands"),
        (("export", "LOG", "--format", "csv"), 2, "export needs --format"),
        (("export", "LOG", "--format", "csv", "-o", "LOG"), 2, "is the trace itself"),
        (("export", "LOG", "--format", "csv", "-o", "/nowhere/out"), 3, "cannot write /nowhere/out"),
        (("show", "LOG", "--ec", "x"), 2, "--ec takes an exception class"),
        (("show", "LOG", "--ipa", "20-10"), 2, "the range 20-10 is empty"),
        (("shwo",), 2, "did you mean show"),
        ((), 2, "a subcommand is missing"),
    ],
)
def test_wrong_use(
    log: str, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], status: int, said: str
) -> None:
    assert main(["trace", *(log if word == "LOG" else word for word in words)]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err


DEMO = str(Path(__file__).parent / "data" / "demo-plugin.jsonl")


@pytest.mark.parametrize(("time", "count"), [("0-1000", 81), ("0", 1), ("0-0.5", 1), ("900-1000", 0)])
def test_show_of_a_time(time: str, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Times count from the first exception of the recording."""
    shown = answer(capsys, "trace", "show", DEMO, "--time", time, "--last", "1000", "--json")
    assert len(shown.splitlines()) == count


@pytest.mark.parametrize("time", ["x", "5-", "5-3", "nan", "1e999"])
def test_time_that_is_none(time: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "show", DEMO, "--time", time]) == 2
    assert "--time takes milliseconds" in capsys.readouterr().err


def test_times_are_shown_from_the_beginning(capsys: pytest.CaptureFixture[str]) -> None:
    first = answer(capsys, "trace", "show", DEMO, "--last", "1000").splitlines()[1]
    assert "+0.000 ms" in first
    *_, last = answer(capsys, "trace", "show", DEMO, "--last", "1").splitlines()[:2]
    assert "+0.000 ms" not in last
