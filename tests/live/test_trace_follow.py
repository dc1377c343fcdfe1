"""``hyp-trace follow``: a live count of exits while the machine runs; and QEMU's log read while it is written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pexpect  # type: ignore[import-untyped]
import pytest
from live.conftest import GDBINIT, Attach, Boot, demo_arguments
from live.test_trace import log_counts, logging_of, run_vcpus
from support import qemu
from support.gdb_session import CommandError, GdbSession

_PATIENCE = 60
"""Seconds to wait for what a machine under emulation does at once when it has a processor for itself."""

_INTERRUPT_WHEN_READ = f"""
import threading, time, gdb
seen = []
def watch():
    end = time.monotonic() + {_PATIENCE}
    while not recording.statistics.exceptions and time.monotonic() < end:
        time.sleep(0.05)
    seen.append(recording.statistics.exceptions)
    gdb.post_event(lambda: gdb.execute('interrupt'))
threading.Thread(target=watch).start()
"""


@pytest.fixture
def logged(boot: Boot, tmp_path: Path) -> tuple[qemu.Machine, GdbSession, Path]:
    """A demo that logs to a file of its own, recorded from where the host is about to run a vCPU."""
    own = tmp_path / "own.log"
    machine, session = boot("-D", str(own))
    session.run("hyp-trace start --source log")
    return machine, session, own


def test_follow_for_a_time(logged: Any) -> None:
    _, session, own = logged
    rows = session.json_lines("hyp-trace follow --interval 0.2 --seconds 1")
    assert len(rows) >= 3
    assert rows[-1]["total"] == sum(row["exceptions"] for row in rows) == log_counts(own)["exceptions"]
    assert [row["seconds"] for row in rows] == sorted(row["seconds"] for row in rows)
    assert all(row["exits"] for row in rows if row["exceptions"])
    assert session.json("hyp-trace stat")["exceptions"] == rows[-1]["total"]


def test_follow_to_a_breakpoint(logged: Any) -> None:
    _, session, _ = logged
    session.run("tbreak hyp_vcpu_run")
    said = session.run("hyp-trace follow --interval 0.2")
    assert "exceptions taken to EL2 in" in said
    assert session.python("gdb.selected_frame().name()") == "hyp_vcpu_run"


def test_follow_needs_a_recording(session: GdbSession) -> None:
    with pytest.raises(CommandError, match="nothing is being recorded"):
        session.run("hyp-trace follow")
    with pytest.raises(CommandError, match=r"at least 0\.05, not 'x'"):
        session.run("hyp-trace follow --interval x")


def test_ctrl_c(gdb_program: str, demo: Path, tmp_path: Path) -> None:
    """Lines appear while the machine runs, and Ctrl-C ends it with all that was recorded."""
    with qemu.machine(tmp_path, demo_arguments(demo), paused=False) as machine:
        gdb = pexpect.spawn(
            gdb_program,
            ["-nx", "-q", str(demo / "demo.elf")],
            env={**os.environ, "TERM": "dumb"},
            encoding="utf-8",
            timeout=30,
        )
        gdb.expect(r"\(gdb\) $")
        for line in (
            "set pagination off",
            "set confirm off",
            f"source {GDBINIT}",
            f"target remote {machine.gdb}",
            "hyp-trace start --source log",
        ):
            gdb.sendline(line)
            gdb.expect(r"\(gdb\) $")
        for _ in range(3):
            gdb.sendline("hyp-trace follow --interval 0.2")
            gdb.expect(r"[\d.]+ s +[\d,]+/s +[\d,]+ in all .*HVC")
            gdb.expect(r"[\d.]+ s +[\d,]+/s +[\d,]+ in all .*HVC")
            gdb.sendintr()
            gdb.expect(r"exceptions taken to EL2 in [\d.]+ s")
            gdb.expect(r"\(gdb\) $")
            assert "Python Exception" not in str(gdb.before)
        gdb.sendline("hyp-trace status --json")
        gdb.expect(r"\(gdb\) $")
        status = json.loads(str(gdb.before).splitlines()[1])
        assert status["running"]
        assert status["exceptions"] > 0
        gdb.close(force=True)


def test_log_is_read_while_the_machine_runs(logged: Any) -> None:
    """Without a stop or a question, what was logged gets into memory; GDB only waits."""
    _, session, own = logged
    session.run("python import gdbhyp.plugin.trace_log as log; log._UNREAD = 1000")
    session.run("python recording = __import__('gdbhyp.plugin.trace').plugin.trace.tracer()._recording")
    session.run("tbreak *0x10")
    session.run(f"python exec({_INTERRUPT_WHEN_READ!r})")
    session.run("continue")
    assert session.python("seen[0]") > 0
    session.run("hyp-trace stop")
    assert session.json("hyp-trace stat")["exceptions"] == log_counts(own)["exceptions"]


def test_own_log_takes_no_disk_space(boot: Boot) -> None:
    """What was read of a file of ours is given back to the disk while QEMU goes on writing."""
    machine, session = boot()
    session.run("hyp-trace start --source log")
    (file,) = logging_of(machine)
    for _ in range(_PATIENCE):
        session.run("hyp-trace follow --interval 0.2 --seconds 1")
        if os.stat(file).st_size > 100_000:
            break
    status = os.stat(file)
    assert status.st_blocks * 512 < status.st_size // 2
    before = session.json("hyp-trace stat")["exceptions"]
    run_vcpus(session, 60)
    session.run("hyp-trace stop")
    stat = session.json("hyp-trace stat")
    assert stat["exceptions"] >= before + 100
    assert stat["dropped"] == stat["contradictions"] == 0


def test_log_that_is_rotated_goes_on(logged: Any) -> None:
    """QEMU goes on writing to the file under its new name."""
    _, session, own = logged
    run_vcpus(session, 20)
    rotated = own.with_suffix(".1")
    own.rename(rotated)
    own.write_text("")
    run_vcpus(session, 20)
    session.run("hyp-trace stop")
    stat = session.json("hyp-trace stat")
    assert stat["exceptions"] == log_counts(rotated)["exceptions"]
    assert stat["dropped"] == 0


def test_full_disk_ends_the_recording(logged: Any) -> None:
    """The machine is stopped for it, because only then can QEMU be told to log no more."""
    _, session, own = logged
    run_vcpus(session, 20)
    recorded = session.json("hyp-trace stat")["exceptions"]
    session.run(
        "python import gdbhyp.plugin.trace_log as log; log._room = lambda path: 0; log._UNREAD = 1000"
    )
    session.run("continue")
    status = session.json("hyp-trace status")
    assert not status["running"]
    assert "is full" in status["ended"]
    assert session.json("hyp-trace stat")["exceptions"] > recorded
    size = own.stat().st_size
    run_vcpus(session, 5)
    assert own.stat().st_size == size


def test_log_that_cannot_be_written(attach: Attach, demo: Path, tmp_path: Path) -> None:
    with qemu.machine(tmp_path, demo_arguments(demo)) as machine:
        session = attach(machine)
        session.run("python import tempfile; tempfile.mkdtemp = lambda prefix: '/proc/nowhere'")
        with pytest.raises(CommandError, match="QEMU cannot write its log to /proc/nowhere"):
            session.run("hyp-trace start --source log")
        assert not session.json("hyp-trace status")["running"]
        session.run("tbreak hyp_vcpu_run")
        session.run("continue")
