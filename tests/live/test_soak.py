"""The same thing many times in one GDB: nothing piles up. ``tests/bench/soak.py`` goes on for longer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from live.conftest import Attach, demo_arguments
from support import qemu
from support.demo import run_to
from support.gdb_session import GdbSession
from support.growth import growth

ROUNDS = 40
WARM_UP = 15
# Python and GDB keep some of what they free; a leak of one table, or of one report, in a round is more than this.
ALLOWED = 12.0  # KiB a round


@pytest.fixture
def stopped(session: GdbSession, truth: Any) -> GdbSession:
    run_to(session, next(s for s in truth["vms"][0]["sites"] if s["symbol"] == "guest_perm_store"))
    return session


@pytest.mark.parametrize(
    "line", ["hyp-status", "hyp-ipa", "hyp-map --stage2", "hyp-find 0x44404128", "hyp-audit"]
)
def test_a_question(stopped: GdbSession, line: str) -> None:
    measured = growth(stopped.pid, lambda: stopped.run(line), ROUNDS, WARM_UP)
    assert measured.a_round < ALLOWED, measured


def test_snapshots(stopped: GdbSession, tmp_path: Path) -> None:
    file = tmp_path / "one.core"
    measured = growth(stopped.pid, lambda: stopped.run(f"hyp-snapshot --tables-only {file}"), 40, 20)
    assert measured.a_round < 10 * ALLOWED, measured


def test_attached_again(stopped: GdbSession, machine: qemu.Machine) -> None:
    def again() -> None:
        stopped.run("detach")
        stopped.run(f"target remote {machine.gdb}")
        stopped.run("hyp-status")

    measured = growth(stopped.pid, again, 20, 10)
    assert measured.a_round < 10 * ALLOWED, measured


def test_a_recording_is_bounded(demo: Path, attach: Attach, tmp_path: Path) -> None:
    """The recording keeps as many events as it was told, however many pass."""
    with qemu.machine(tmp_path, demo_arguments(demo)) as machine:
        session = attach(machine)
        session.run("tbreak hyp_vcpu_run")
        session.run("continue")
        session.run("hyp-trace start --source log --buffer 2000")
        follow = "hyp-trace follow --interval 0.2 --seconds 1 --json"
        measured = growth(session.pid, lambda: session.run(follow), 4, 2)
        answer = session.json("hyp-trace stat")
        assert answer["events"] > 2 * 2000
        # An event that is kept takes more than 200 bytes.
        assert (measured.after - measured.before) * 1024 < 16 * answer["events"], measured
