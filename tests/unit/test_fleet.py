"""Many dumps, one question: rows, bad dumps, resuming, URLs, a Dask cluster."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from support import tools

from gdbhyp.cli.main import main

QUESTION = "map --stage2 --vttbr 0x40000000 --vtcr 0x80023558"


def image(path: Path, output: int) -> str:
    """Write stage-2 tables with one block that leads to ``output``; return the name of the dump."""
    memory = bytearray(0x3000)
    struct.pack_into("<Q", memory, 8 * 2, 0x4000_2003)
    struct.pack_into("<Q", memory, 0x2000, output | 0x7FD)
    path.write_bytes(memory)
    return f"{path}@0x40000000"


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    return [image(tmp_path / f"vm{n}.img", 0x8000_0000 + (n << 21)) for n in range(3)]


def fleet(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any], str]:
    """Return the status, the rows by their dumps, and what was said."""
    capsys.readouterr()
    status = main(["fleet", *words])
    shown = capsys.readouterr()
    rows = [json.loads(line) for line in shown.out.splitlines()]
    assert len({row["dump"] for row in rows}) == len(rows)
    return status, {row["dump"]: row for row in rows}, shown.err


def outputs(rows: dict[str, Any]) -> dict[str, str]:
    return {dump: row["answer"][0]["pa"] for dump, row in rows.items() if row["answer"]}


def expected(images: list[str]) -> dict[str, str]:
    return {name: hex(0x8000_0000 + (n << 21)) for n, name in enumerate(images)}


def test_rows(images: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status, rows, errors = fleet(capsys, QUESTION, *images, "--jobs", "2")
    assert (status, errors) == (0, "")
    assert outputs(rows) == expected(images)
    assert {row["question"] for row in rows.values()} == {QUESTION}
    assert {row["status"] for row in rows.values()} == {0}
    assert all("every feature was taken to be there" in row["error"] for row in rows.values())
    assert all(row["seconds"] > 0 for row in rows.values())


def test_a_bad_dump_is_a_row(images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.core"
    bad.write_bytes(b"\x7fELF" + b"\xff" * 100)
    status, rows, _ = fleet(capsys, QUESTION, str(bad), *images, "nothing.core")
    assert status == 0
    assert outputs(rows) == expected(images)
    assert (rows[str(bad)]["status"], rows[str(bad)]["answer"]) == (3, [])
    assert "damaged ELF file" in rows[str(bad)]["error"]
    assert "cannot read nothing.core" in rows["nothing.core"]["error"]


def test_resume(images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What has an answer is not asked again; what failed is; half a line, of a run that was ended, is no answer."""
    results = tmp_path / "rows.jsonl"
    fleet(capsys, QUESTION, images[0], "nothing.core", "--results", str(results))
    with results.open("a") as file:
        file.write('{"dump": "' + images[1])
    words = (*images, "nothing.core", "--results", str(results), "--resume")
    _, rows, _ = fleet(capsys, QUESTION, *words)
    assert set(rows) == {images[1], images[2], "nothing.core"}
    _, rows, _ = fleet(capsys, QUESTION, *words)
    assert set(rows) == {"nothing.core"}
    _, rows, _ = fleet(capsys, "walk 0x80000000" + QUESTION.removeprefix("map"), *words)
    assert set(rows) == {*images, "nothing.core"}, "another question has no answer yet"


def test_options_of_the_question(images: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Of those commands whose dump is an option, too, and a wrong one is a row's error."""
    _, rows, _ = fleet(capsys, "reg HCR_EL2 --reg HCR_EL2=0x80000001", images[0])
    assert rows[images[0]]["answer"][0]["value"] == "0x80000001"
    _, rows, _ = fleet(capsys, "map --nonsense", images[0])
    assert rows[images[0]]["status"] == 2
    assert "unrecognized arguments" in rows[images[0]]["error"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("annotate", "x"), "'annotate' is no question about a dump"),
        (("", "x"), "'' is no question about a dump"),
        (("status", "x", "--resume"), "--resume needs --results"),
        (("status", "x", "--jobs", "0"), "--jobs is a number from 1"),
        (("status", "x", "--jobs", "many"), "--jobs is a number from 1"),
        (("status",), "required: dumps"),
    ],
)
def test_usage(words: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, rows, errors = fleet(capsys, *words)
    assert (status, rows) == (2, {})
    assert sentence in errors


@pytest.mark.parametrize(
    ("script", "error"),
    [("sleep 60", "no answer within 1 seconds"), ("kill -9 $$", "the process was ended by signal 9")],
)
def test_a_process_that_ends_badly_is_a_row(
    script: str,
    error: str,
    images: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(program))
    status, rows, _ = fleet(capsys, QUESTION, images[0], "--timeout", "1")
    assert status == 0
    assert rows[images[0]]["status"] != 0
    assert rows[images[0]]["error"] == error


def test_url(images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        import fsspec
    except ImportError:
        tools.missing("fsspec (the extra 'fleet')")
    assert fsspec
    urls = [f"file://{name}" for name in images]
    _, rows, _ = fleet(capsys, QUESTION, *urls, "file:///nothing.core", "nonsense://x")
    assert outputs(rows) == {f"file://{name}": pa for name, pa in expected(images).items()}
    assert "cannot fetch file:///nothing.core" in rows["file:///nothing.core"]["error"]
    assert "cannot fetch nonsense://x" in rows["nonsense://x"]["error"]


def test_dask(images: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        from distributed import LocalCluster
    except ImportError:
        tools.missing("distributed (the extra 'fleet')")
    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster:
        _, rows, _ = fleet(
            capsys, QUESTION, *images, "nothing.core", "--scheduler", cluster.scheduler_address
        )
    assert outputs(rows) == expected(images)
    assert rows["nothing.core"]["status"] == 3


def test_no_scheduler(images: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        import distributed
    except ImportError:
        tools.missing("distributed (the extra 'fleet')")
    assert distributed
    status, rows, errors = fleet(capsys, QUESTION, *images, "--scheduler", "nonsense")
    assert (status, rows) == (1, {})
    assert "no Dask scheduler answers at nonsense" in errors
