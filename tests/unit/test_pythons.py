"""The library and the program on every Python that is supported: the same answers, with no package installed.

Whatever of 3.10 to 3.13 is on this machine is tested; Debian 12 itself has only 3.11.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from support import tools

ROOT_TABLE = 0x4000_0000
LINES = (
    ("esr", "0x93c58045", "0x5a000000", "0xffffffffffffffff", "--json"),
    ("esr", "0x93c58045"),
    ("esr", "0x93c58045", "--csv"),
    ("reg", "HCR_EL2=0x80000001", "VTCR_EL2=0x80023558", "--json"),
    ("at", "--memory", "IMAGE", "CASES"),
    ("map", "IMAGE", "--stage2", "--vttbr", "0x40000000", "--vtcr", "0x80023559", "--json"),
    ("walk", "IMAGE", "0x40001000", "--stage2", "--vttbr", "0x40000000", "--vtcr", "0x80023559", "--json"),
    ("help", "--man"),
    ("esr", "nonsense"),
)


def interpreter(version: str) -> str | None:
    """Return a Python of a version, as it calls itself: a shim of pyenv may be there without it."""
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        return sys.executable
    folders = [Path.home() / ".pyenv" / "versions", *map(Path, os.environ["PATH"].split(":"))]
    found = [*folders[0].glob(f"{version}*/bin/python"), shutil.which(f"python{version}")]
    for candidate in filter(None, found):
        done = subprocess.run([str(candidate), "--version"], capture_output=True, text=True, check=False)
        if done.stdout.startswith(f"Python {version}."):
            return str(candidate)
    return None


def answers(program: str, image: str, cases: str) -> list[tuple[int, str, str]]:
    """Return exit status, output and errors of every line."""
    environment = {"PYTHONPATH": str(tools.ROOT), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    found = []
    for line in LINES:
        words = [{"IMAGE": image, "CASES": cases}.get(word, word) for word in line]
        command = [program, "-S", "-B", "-m", "gdbhyp.cli.main", *words]
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=60, check=False
        )
        found.append((done.returncode, done.stdout, done.stderr))
    return found


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
def test_the_same_answers(version: str, tmp_path: Path) -> None:
    program = interpreter(version)
    if program is None:
        pytest.skip(f"there is no Python {version} here")
    (tmp_path / "ram").write_bytes(struct.pack("<512Q", 0, ROOT_TABLE | 0x7FD, *[0] * 510))
    case = {"op": "S1E2R", "va": "0x40000000", "regs": {"SCTLR_EL2": "0x0"}}
    (tmp_path / "cases").write_text(json.dumps(case) + "\n{\n")
    image = f"{tmp_path}/ram@{ROOT_TABLE:#x}"
    found = answers(program, image, str(tmp_path / "cases"))
    assert [status for status, _, _ in found] == [0, 0, 0, 0, 0, 0, 0, 0, 2]
    assert all("Traceback" not in error for _, _, error in found)
    if program != sys.executable:
        assert found == answers(sys.executable, image, str(tmp_path / "cases"))
