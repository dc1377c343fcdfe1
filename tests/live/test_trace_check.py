"""``hyp-trace check`` on the demo hypervisor: right as it is, and with the two bugs that can be planted in it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from live.conftest import BUILD, GDBINIT, demo_arguments
from support import qemu
from support.gdb_session import GdbSession

_RUNS = 40
HOST_CANARY, HOST_TPIDR = 0x4057_0000, 0x4057_0E10
GUEST_CANARY = {42: 0x60E5_0000, 59: 0x60E5_0100}
"""What host.s and guest.s keep in x23 and TPIDR_EL0, on CPU 0."""


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo with its planted bug."""
    folder = tmp_path_factory.mktemp("planted")
    subprocess.run([str(BUILD), str(folder), "--planted-bug"], check=True, capture_output=True)
    return folder


def check(gdb_program: str, demo: Path, folder: Path, cpus: int = 1) -> Any:
    with (
        qemu.machine(folder, demo_arguments(demo, cpus)) as machine,
        GdbSession(gdb_program, folder) as session,
    ):
        session.run(f"file {demo / 'demo.elf'}")
        session.run(f"source {GDBINIT}")
        session.run(f"target remote {machine.gdb}")
        session.run("tbreak host_entry")
        session.run("continue")
        report = session.json(f"hyp-trace check --runs {_RUNS}")
        left = [
            line for line in session.run("maint info breakpoints").splitlines() if "hw breakpoint" in line
        ]
        assert not left
    return report


def test_right_build(gdb_program: str, demo: Path, tmp_path: Path) -> None:
    report = check(gdb_program, demo, tmp_path, cpus=2)
    assert report["findings"] == []
    assert report["guest_checks"] >= _RUNS
    assert report["host_checks"] >= _RUNS // 2
    assert report["not_shown"] == []


def test_planted_bugs(gdb_program: str, planted: Path, tmp_path: Path) -> None:
    """Both, with both values and both places, and nothing else."""
    report = check(gdb_program, planted, tmp_path)
    symbols = json.loads((planted / "truth.json").read_text())["symbols"]
    findings = report["findings"]
    assert {(f["kind"], f["world"], f["register"]) for f in findings} == {
        ("leak", "host", "X23"),
        ("leak", "guest", "TPIDR_EL0"),
    }
    guests = {f["vmid"]: f for f in findings if f["world"] == "guest"}
    assert guests.keys() == GUEST_CANARY.keys()
    for vmid, finding in guests.items():
        assert int(finding["expected"], 16) == GUEST_CANARY[vmid]
        assert int(finding["found"], 16) == HOST_TPIDR
        assert finding["whose"] == "the host"
        assert finding["entered"]["place"] == symbols["__guest_eret"]
    first = next(f for f in findings if f["world"] == "host")
    assert int(first["expected"], 16) == HOST_CANARY
    assert int(first["found"], 16) in GUEST_CANARY.values()
    assert first["entered"]["place"] == symbols["el1_host_return"]
    assert int(first["left"]["place"], 16) == int(symbols["hyp_vectors"], 16) + 0x400
