"""Tables in files, on the command line: the contract of ``gdbhyp map DUMP`` and ``gdbhyp walk DUMP``."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from gdbhyp.cli.main import main

BASE = 0x4000_0000
# Stage 2: 4 KiB granule, 40 bits of IPA from level 1 in two concatenated tables (KVM's default), 40 bits of PA.
VTCR = 0x8002_3558
ROOT, SECOND, THIRD = BASE, BASE + 0x2000, BASE + 0x3000
NORMAL_RW = 0x7FD  # block: AF, Inner Shareable, S2AP = 0b11, MemAttr = Normal Write-Back
PAGE_RO = 0x77F


@pytest.fixture
def image() -> bytes:
    """Stage-2 tables: a block at 0x80000000, pages at 0x80200000, and a block in the second concatenated root."""
    memory = bytearray(0x4000)

    def put(table: int, index: int, descriptor: int) -> None:
        struct.pack_into("<Q", memory, table - BASE + 8 * index, descriptor)

    put(ROOT, 2, SECOND | 3)
    put(SECOND, 0, 0x9000_0000 | NORMAL_RW)
    put(SECOND, 1, THIRD | 3)
    put(THIRD, 0, 0xA000_0000 | PAGE_RO)
    put(THIRD, 1, 0xA000_1000 | PAGE_RO)
    put(ROOT, 513, 0xC000_0000 | NORMAL_RW)
    return bytes(memory)


@pytest.fixture
def flat(image: bytes, tmp_path: Path) -> str:
    path = tmp_path / "ram.img"
    path.write_bytes(image)
    return f"{path}@{BASE:#x}"


@pytest.fixture
def core(image: bytes, tmp_path: Path) -> str:
    r"""The same as an ELF core of two segments.

    file:  | headers | first half | second half |
    PA:               BASE ....... BASE+0x2000 ..
    """
    half = len(image) // 2
    header_size = 64 + 2 * 56
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        *(4, 183, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0),
    )
    for number in range(2):
        start = number * half
        header += struct.pack("<IIQQQQQQ", 1, 6, header_size + start, 0, BASE + start, half, half, 0)
    path = tmp_path / "vm.core"
    path.write_bytes(header + image)
    return str(path)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[Any], str]:
    capsys.readouterr()
    status = main(list(words))
    captured = capsys.readouterr()
    return status, [json.loads(line) for line in captured.out.splitlines()], captured.err


ASSUMED = (
    "gdbhyp: the target does not show ID_AA64MMFR0_EL1 and ID_AA64MMFR1_EL1, so every feature was taken to be there "
    "that the registers make use of\n"
)
ROOTS = ("--stage2", "--vttbr", hex(ROOT), "--vtcr", hex(VTCR), "--json")


@pytest.mark.parametrize("kind", ["flat", "core"])
def test_map(kind: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    status, rows, errors = run(capsys, "map", request.getfixturevalue(kind), *ROOTS)
    assert (status, errors) == (0, ASSUMED)
    assert [(r["start"], r["end"], r["pa"], r["level"], r["page_size"], r["write"]) for r in rows] == [
        ("0x80000000", "0x80200000", "0x90000000", 2, 2 << 20, True),
        ("0x80200000", "0x80202000", "0xa0000000", 3, 4096, False),
        ("0x8040000000", "0x8080000000", "0xc0000000", 1, 1 << 30, True),
    ]


@pytest.mark.parametrize("kind", ["flat", "core"])
def test_walk(kind: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    status, rows, errors = run(capsys, "walk", request.getfixturevalue(kind), "0x80201234", *ROOTS)
    assert (status, errors) == (0, "")
    assert (rows[0]["output"], rows[0]["output_space"], rows[0]["fault"]) == ("0xa0001234", "PA", None)
    assert [step["kind"] for step in rows[0]["steps"]] == ["table", "table", "page"]


def test_a_fault_is_an_answer(flat: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, rows, _ = run(capsys, "walk", flat, "0x1000", *ROOTS)
    assert status == 0
    assert rows[0]["output"] is None
    assert {k: rows[0]["fault"][k] for k in ("kind", "stage", "level", "s1ptw")} == {
        "kind": "translation",
        "stage": 2,
        "level": 1,
        "s1ptw": False,
    }


def test_a_missing_table_is_said_and_the_rest_is_there(
    tmp_path: Path, image: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "short.img"
    path.write_bytes(image[: THIRD - BASE])
    status, rows, errors = run(capsys, "map", f"{path}@{BASE:#x}", *ROOTS)
    assert status == 0
    assert [row["start"] for row in rows] == ["0x80000000", "0x8040000000"]
    assert "0x80200000 to 0x80400000 is not known: table not readable" in errors


@pytest.mark.parametrize(("root", "status"), [(ROOT, 0), (BASE - 0x10_0000, 1)])
def test_a_root_that_is_not_there_is_no_empty_map(
    flat: str, root: int, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--stage2", "--vttbr", hex(root), "--vtcr", hex(VTCR), "--range", "0+0x80000000", "--json")
    found, rows, errors = run(capsys, "map", flat, *words)
    assert (found, rows) == (status, [])
    assert bool(errors.removeprefix(ASSUMED)) == bool(status)


def test_tables_that_point_to_themselves_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All entries of the root but one are the root: without a budget, hundreds of thousands of tables unfold."""
    path = tmp_path / "loop.img"
    path.write_bytes(struct.pack("<Q", NORMAL_RW) + struct.pack("<Q", ROOT | 3) * 1023)
    status, rows, errors = run(capsys, "map", f"{path}@{BASE:#x}", *ROOTS, "--max-tables", "0x10")
    assert status == 0
    assert rows
    assert "is not known: the budget is used up" in errors


def test_explicit_stage1_without_mair_has_no_memory_type(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    memory = bytearray(0x1000)
    struct.pack_into("<Q", memory, 0, 0x8000_0000 | 0x701)
    path = tmp_path / "s1.img"
    path.write_bytes(memory)
    words = ("map", f"{path}@{BASE:#x}", "--stage1", "--ttbr", hex(BASE), "--tcr", "0x200803519", "--json")
    status, rows, errors = run(capsys, *words)
    assert status == 0
    assert [(row["start"], row["end"], row["pa"]) for row in rows] == [("0x0", "0x40000000", "0x80000000")]
    assert rows[0]["memory"] == "unknown"
    assert "MAIR_EL1" in errors
    assert "the EL1&0 regime was taken" not in errors
    shown = ("MAIR_EL1=0xff", "ID_AA64MMFR0_EL1=5", "ID_AA64MMFR1_EL1=0")
    given = [word for value in shown for word in ("--reg", value)]
    _, rows, errors = run(capsys, *words, *given, "--regime", "EL1")
    assert rows[0]["memory"].startswith("Normal Write-Back")
    assert errors == ""


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("/nonexistent", "cannot read /nonexistent"),
        ("/nonexistent@0x40000000", "cannot read /nonexistent"),
        ("/etc/hostname", "is no ELF core"),
    ],
)
def test_unreadable_input(name: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, rows, errors = run(capsys, "map", name, *ROOTS)
    assert (status, rows) == (3, [])
    assert sentence in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize("length", [0, 3, 4, 20, 63, 64, 100, 170])
def test_truncated_headers(core: str, length: int, capsys: pytest.CaptureFixture[str]) -> None:
    contents = Path(core).read_bytes()
    Path(core).write_bytes(contents[:length])
    status, rows, errors = run(capsys, "map", core, *ROOTS)
    assert (status, rows) == (3, [])
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (("HCR_EL2=1",), ["0x1"]),
        (("HCR_EL2", "1"), ["0x1"]),
        (("HCR_EL2=1", "VTCR_EL2=0x80023558"), ["0x1", "0x80023558"]),
    ],
)
def test_register_values(
    words: tuple[str, ...], values: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, rows, errors = run(capsys, "reg", *words, "--json")
    assert (status, errors) == (0, "")
    assert [row["value"] for row in rows] == values


def test_a_register_without_a_value_is_no_value(capsys: pytest.CaptureFixture[str]) -> None:
    status, rows, errors = run(capsys, "reg", "HCR_EL2=1", "VTCR_EL2", "--json")
    assert (status, rows) == (2, [])
    assert "without a value" in errors


def test_registers_of_every_cpu(core: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An array has the registers of each CPU; --reg holds for the one that is asked."""
    path = tmp_path / "registers.json"
    path.write_text('[{"HCR_EL2": "0x1"}, {"HCR_EL2": 2, "vttbr_el2": "0x40000000"}]')
    for cpu, value in (("0", "0x1"), ("1", "0x2")):
        words = ("reg", "--dump", core, "--registers", str(path), "--cpu", cpu, "HCR_EL2", "--json")
        status, rows, _ = run(capsys, *words)
        assert (status, rows[0]["value"]) == (0, value)
        assert run(capsys, *words, "--reg", "HCR_EL2=5")[1][0]["value"] == "0x5"
    assert run(capsys, "map", core, "--registers", str(path), "--cpu", "2", *ROOTS)[0] == 2


@pytest.mark.parametrize("word", ["HCR_EL2", "HCR_EL2=x", "HCR_EL2=-1", "HCR_EL2=0x10000000000000000"])
def test_a_register_typed_wrongly_is_a_mistake_of_usage(
    word: str, flat: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, rows, errors = run(capsys, "map", flat, "--reg", word, *ROOTS)
    assert (status, rows) == (2, [])
    assert "HCR_EL2" in errors


@pytest.mark.parametrize(
    "contents", ["[1]", "[[]]", "3", '"x"', "[", '{"HCR_EL2": "x"}', '[{"HCR_EL2": -1}]']
)
def test_bad_register_files(
    contents: str, core: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "registers.json"
    path.write_text(contents)
    status, rows, errors = run(capsys, "map", core, "--registers", str(path), *ROOTS)
    assert (status, rows) == (3, [])
    assert len(errors.splitlines()) == 1
