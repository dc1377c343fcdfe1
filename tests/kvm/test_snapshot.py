"""A machine in a file answers as it did live: the same JSON, byte for byte."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from gdbhyp.cli.main import main
from gdbhyp.targets.dump import open_dump
from kvm.compare_drgn import same_as_drgn
from kvm.debugger import Debugger
from kvm.rig import NVHE

QUESTIONS = (
    "status",
    "esr",
    "reg *_EL*",
    "ipa",
    "walk {pc:#x}",
    "walk {pc:#x} --regime EL1",
    "walk {pc:#x} --regime EL2 --access write",
    "walk --stage2 0x9000004",
    "at S12E1R {pc:#x}",
    "at S1E2W {vbar:#x}",
    "map",
    "map --stage1 --regime EL1",
    "map --stage2",
    "map --regime EL2",
    "find 0x40210000",
    "audit",
)
# Without them, a question is of the command line alone.
_WITH_OPTION = ("esr", "reg", "at")


def live_answers(debugger: Debugger) -> dict[str, str]:
    """Return the JSON of every question about the selected CPU; what is said besides is not part of it."""
    places = {"pc": debugger.register("pc"), "vbar": debugger.register("VBAR_EL2")}
    asked = [question.format(**places) for question in QUESTIONS]
    return {question: _json_of(debugger.session.run(f"hyp-{question} --json")) for question in asked}


def _json_of(text: str) -> str:
    """Drop the sentences on standard error, which GDB's output has in the middle of the JSON lines."""
    lines = (line for line in text.splitlines(keepends=True) if line.startswith("{"))
    return "".join(_ORIGIN.sub("", line) for line in lines)


# Where an audit's machine was is all that may differ.
_ORIGIN = re.compile(r'^\{"origin": "[^"]*", ')


def offline_answer(question: str, dump: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """Return what the command line prints for the same question about a file.

    Of a map nothing may be known: TTBRn_EL1 of the moment need not lead to tables.
    """
    name, *words = question.split()
    target = ["--dump", str(dump)] if name in _WITH_OPTION else [str(dump)]
    capsys.readouterr()
    status = main([name, *target, *options, *words, "--json"])
    shown = capsys.readouterr()
    assert status == 0 or (name == "map" and not shown.out), f"{question}: {shown.err}"
    return _json_of(shown.out)


def _in_guest(debugger: Debugger) -> None:
    debugger.stop_in_guest()


def _at_exit(debugger: Debugger) -> None:
    debugger.stop_at_exit()


def _in_host(debugger: Debugger) -> None:
    debugger.stop_in_host()


@pytest.mark.parametrize("stop", [_in_guest, _at_exit, _in_host], ids=["guest", "exit", "host"])
def test_tables_only(
    hyp: Debugger, stop: Callable[[Debugger], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop(hyp)
    path = tmp_path / "machine.snapshot"
    written = hyp.session.json(f"hyp-snapshot {path} --tables-only")
    # Where no table says which part of a kernel is text, its names are looked for in all of its image, 40 MB.
    assert written["memory"] < written["ram"] // 12, _where(path)
    assert written["size"] == path.stat().st_size
    assert list(tmp_path.glob(".*")) == []
    for question, answer in live_answers(hyp).items():
        assert offline_answer(question, path, capsys) == answer, question
    other = 1 - hyp.cpu
    hyp.select(other)
    for question, answer in live_answers(hyp).items():
        assert offline_answer(question, path, capsys, "--cpu", str(other)) == answer, question


def _where(path: Path) -> str:
    """Return how many pages a snapshot has in each 2 MiB of memory."""
    pages = Counter(
        at >> 21 for start, end in open_dump(str(path)).ranges for at in range(start, end, 0x1000)
    )
    return ", ".join(f"{count} from {block << 21:#x} on" for block, count in pages.most_common(30))


def test_everything(hyp: Debugger, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With all of memory, on one rig, for it takes long: readelf opens it, and physical memory is the live one."""
    if hyp.rig.target != NVHE:
        return
    hyp.stop_at_exit()
    path = tmp_path / "machine.snapshot"
    hyp.session.run(f"hyp-snapshot {path}")
    for question, answer in live_answers(hyp).items():
        assert offline_answer(question, path, capsys) == answer, question
    ram = tmp_path / "ram"
    hyp.rig.machine.command(f'pmemsave 0x40000000 0x20000000 "{ram}"')
    _same_memory(path, ram)
    headers = subprocess.run(["readelf", "-hlnW", str(path)], capture_output=True, text=True, check=True)
    assert "Warning" not in headers.stderr
    assert "Error" not in headers.stderr
    same_as_drgn(open_dump(str(path)), path)


def _same_memory(path: Path, ram: Path) -> None:
    memory = open_dump(str(path)).memory
    with ram.open("rb") as file:
        at = 0x4000_0000
        while expected := file.read(1 << 24):
            assert memory.read(at, len(expected)) == expected
            at += len(expected)
