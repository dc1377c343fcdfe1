"""``hyp-trace`` on the demo hypervisor, which counts its guests' exits itself."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pexpect  # type: ignore[import-untyped]
import pytest
from live.conftest import GDBINIT, Boot, Start, demo_arguments
from support import qemu
from support.gdb_session import CommandError, GdbSession

from gdbhyp.cli.main import main

Truth = Any

_RUNS = 40


def exits(session: GdbSession, truth: Truth) -> Counter[tuple[int, int]]:
    """Return what the demo itself has counted: exits by VMID and exception class."""
    counts: Counter[tuple[int, int]] = Counter()
    for vm in truth["vms"]:
        for vcpu in vm["vcpus"]:
            table = int(vcpu["context_pa"], 16) + truth["context_layout"]["VCPU_EXITS_BY_EC"]
            # By physical address, for the selected CPU may be in the guest.
            dump = session.run(f"monitor xp /64gx {table:#x}")
            words = [int(word, 16) for line in dump.splitlines() for word in line.partition(":")[2].split()]
            for ec, count in enumerate(words):
                counts[vm["vmid"], ec] += count
    return counts


def run_vcpus(session: GdbSession, times: int = _RUNS) -> None:
    """Continue until the hypervisor has been asked so often to run a vCPU; no exit is on its way then."""
    session.run("break hyp_vcpu_run")
    number = session.python("gdb.breakpoints()[-1].number")
    session.run(f"ignore {number} {times - 1}")
    session.run("continue")
    session.run(f"delete {number}")


def internal_breakpoints(session: GdbSession) -> list[str]:
    return [line for line in session.run("maint info breakpoints").splitlines() if "hw breakpoint" in line]


def guest_rows(stat: Any) -> Counter[tuple[int, int]]:
    return Counter({(r["vmid"], r["ec"]): r["count"] for r in stat["exits"] if r["world"] == "guest"})


def test_every_exit_is_recorded(start: Start, truth: Truth) -> None:
    session = start()
    before = exits(session, truth)
    session.run("hyp-trace start --source break")
    run_vcpus(session)
    session.run("hyp-trace stop")
    counted = exits(session, truth) - before
    stat = session.json("hyp-trace stat")
    assert guest_rows(stat) == counted
    assert counted.total() == _RUNS
    assert stat["dropped"] == 0
    assert not stat["worlds_deduced"]
    assert {(r["vmid"], r["ec"]) for r in stat["exits"] if r["world"] == "host"} == {(None, 0x16)}
    assert sum(r["count"] for r in stat["exits"]) == stat["exceptions"]
    # Each run of a vCPU is an entry and an exit.
    assert stat["world_switches"] == 2 * _RUNS


def test_two_cpus(start: Start, truth: Truth) -> None:
    """When GDB stops, each CPU may stand between an exit and the demo's count of it."""
    session = start(2)
    before = exits(session, truth)
    session.run("hyp-trace start --source break")
    run_vcpus(session, 60)
    session.run("hyp-trace stop")
    counted = exits(session, truth) - before
    stat = session.json("hyp-trace stat")
    assert abs(guest_rows(stat).total() - counted.total()) <= 2
    assert stat["cpus"] == 2


def test_what_is_recorded(start: Start, truth: Truth) -> None:
    session = start()
    session.run("hyp-trace start --source break")
    run_vcpus(session)
    rows = [row for row in session.json_lines("hyp-trace show --last 1000") if row["world"] == "guest"]
    sites = {(s["vmid"], s["elr"], s["esr"]): s for vm in truth["vms"] for s in vm["sites"]}
    assert len(rows) == _RUNS
    for row in rows:
        site = sites[row["vmid"], row["pc"], row["esr"]]
        assert row["ec"] == site["ec"]
        if site["hpfar_valid"]:
            mask = ~0xFFF if site["fault"]["s1ptw"] else -1
            assert int(row["ipa"], 16) == int(site["ipa"], 16) & mask
        else:
            assert row["ipa"] is None
        if site["va"] is not None:
            assert row["far"] == site["va"]
    assert {row["call"] for row in rows if row["ec"] == 0x16} == {"PSCI_VERSION"}


def test_returns(start: Start) -> None:
    session = start()
    session.run("hyp-trace start --source break --returns")
    run_vcpus(session)
    stat = session.json("hyp-trace stat")
    assert abs(stat["returns"] - stat["exceptions"]) <= 1
    assert stat["events"] == stat["returns"] + stat["exceptions"]


def test_saved_trace_says_the_same(start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session = start()
    session.run("hyp-trace start --source break")
    run_vcpus(session)
    path = tmp_path / "trace.jsonl"
    session.run(f"hyp-trace save {path}")
    live = session.json("hyp-trace stat")
    assert main(["trace", "stat", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == live


def test_nothing_stays(start: Start) -> None:
    session = start()
    settings = session.run("show breakpoint always-inserted")
    session.run("hyp-trace start --source break")
    assert internal_breakpoints(session)
    run_vcpus(session, 3)
    status = session.run("hyp-trace stop")
    assert "not recording: stopped by 'hyp-trace stop'" in status
    assert not internal_breakpoints(session)
    assert session.run("show breakpoint always-inserted") == settings
    run_vcpus(session, 3)
    assert session.json("hyp-trace status")["exceptions"] == session.json("hyp-trace stat")["exceptions"]
    with pytest.raises(CommandError, match="nothing is being recorded"):
        session.run("hyp-trace stop")


def test_detach_ends_the_recording(start: Start, tmp_path: Path) -> None:
    session = start()
    session.run("hyp-trace start --source break")
    run_vcpus(session, 5)
    recorded = session.json("hyp-trace stat")
    session.run("detach")
    status = session.json("hyp-trace status")
    assert not status["running"]
    assert status["ended"] == "the connection to the target is closed"
    assert session.json("hyp-trace stat") == recorded
    assert not internal_breakpoints(session)
    session.run(f"target remote {tmp_path / 'gdb.sock'}")
    session.run("tbreak hyp_vcpu_run")
    session.run("continue")
    session.run("hyp-trace start --source break")
    run_vcpus(session, 5)
    assert guest_rows(session.json("hyp-trace stat")).total() == 5


def test_death_of_qemu(boot: Boot) -> None:
    machine, session = boot()
    session.run("hyp-trace start --source break")
    run_vcpus(session, 5)
    recorded = session.json("hyp-trace stat")
    machine.process.kill()
    machine.process.wait()
    with contextlib.suppress(CommandError):
        session.run("continue")
    status = session.json("hyp-trace status")
    assert not status["running"]
    assert session.json("hyp-trace stat") == recorded
    assert not internal_breakpoints(session)


def test_end_of_gdb_leaves_no_breakpoint(boot: Boot) -> None:
    """QEMU would stop at a breakpoint that is left, with nobody to tell."""
    machine, session = boot()
    session.run("hyp-trace start --source break")
    run_vcpus(session, 5)
    with contextlib.suppress(RuntimeError):
        session.run("quit")
    machine.command("cont")
    time.sleep(0.2)
    assert "running" in machine.command("info status")


def test_old_events_give_way(start: Start) -> None:
    session = start()
    session.run("hyp-trace start --source break --buffer 8")
    run_vcpus(session)
    status = session.json("hyp-trace status")
    assert status["overwritten"] == status["exceptions"] - 8
    assert len(session.json_lines("hyp-trace show --last 100")) == 8
    assert guest_rows(session.json("hyp-trace stat")).total() == _RUNS


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("hyp-trace show", "nothing was recorded yet"),
        ("hyp-trace stat", "nothing was recorded yet"),
        ("hyp-trace save x", "nothing was recorded yet"),
        ("hyp-trace stop", "nothing is being recorded"),
        ("hyp-trace start --source break --vector 0x1234", "0x1234 is no vector base"),
        ("hyp-trace start --source break --buffer 0", "--buffer is the number of events"),
        ("hyp-trace start --source never", "invalid choice"),
        ("hyp-trace start --source break", "VBAR_EL2 is 0 on every CPU"),
    ],
)
def test_wrong_use_is_a_sentence(session: GdbSession, command: str, said: str) -> None:
    with pytest.raises(CommandError, match=said):
        session.run(command)
    assert not internal_breakpoints(session)


def test_second_start_is_refused(start: Start) -> None:
    session = start()
    session.run("hyp-trace start --source break")
    with pytest.raises(CommandError, match="a recording is running"):
        session.run("hyp-trace start --source break")


Terminal = Callable[[str], str]


@pytest.fixture
def terminal(gdb_program: str, demo: Path, tmp_path: Path) -> Iterator[tuple[Any, Terminal]]:
    """A GDB at a terminal, and a function that types a line and returns what GDB prints before its next prompt."""
    with qemu.machine(tmp_path, demo_arguments(demo), paused=False) as machine:
        gdb = pexpect.spawn(
            gdb_program,
            ["-nx", "-q", str(demo / "demo.elf")],
            env={**os.environ, "TERM": "dumb"},
            encoding="utf-8",
            timeout=30,
        )

        def command(line: str) -> str:
            gdb.sendline(line)
            gdb.expect(r"\(gdb\) $")
            return str(gdb.before)

        gdb.expect(r"\(gdb\) $")
        for line in (
            "set pagination off",
            "set confirm off",
            f"source {GDBINIT}",
            f"target remote {machine.gdb}",
        ):
            command(line)
        command("tbreak hyp_vcpu_run")
        command("continue")
        yield gdb, command
        gdb.close(force=True)


def interrupt(gdb: Any, after: float) -> str:
    """Continue, press Ctrl-C once, and return what GDB says."""
    gdb.sendline("continue")
    gdb.expect("Continuing.")
    time.sleep(after)
    gdb.sendintr()
    gdb.expect(r"\(gdb\) $")
    return str(gdb.before)


def test_ctrl_c(terminal: tuple[Any, Terminal]) -> None:
    """Each Ctrl-C stops at once, whatever GDB is doing, and no event is torn."""
    gdb, command = terminal
    command("hyp-trace start --source break")
    for _ in range(5):
        assert "Python Exception" not in interrupt(gdb, 0.2)
    stat = json.loads(command("hyp-trace stat --json").splitlines()[1])
    assert sum(row["count"] for row in stat["exits"]) == stat["exceptions"] > 0
    assert all(row["world"] in ("host", "guest") for row in stat["exits"])
    assert "not recording" in command("hyp-trace stop")


def test_ctrl_c_where_nothing_is_recorded(terminal: tuple[Any, Terminal]) -> None:
    """After some exceptions the host loops for ever: there is none to stop at, and Ctrl-C stops all the same."""
    gdb, command = terminal
    command("tbreak host_handle_exit")
    command("continue")
    command("set *(unsigned int *)$pc = 0x14000000")
    command("hyp-trace start --source break")
    command("set $pc = $lr")
    assert "SIGINT" in interrupt(gdb, 1.0)
    assert "host_handle_exit" in command("info symbol $pc")
    assert json.loads(command("hyp-trace status --json").splitlines()[1])["exceptions"] >= 2
    assert "not recording" in command("hyp-trace stop")


def log_counts(log: Path) -> Counter[str]:
    """Count what QEMU's log says of exceptions taken to EL2, without gdbhyp's parser."""
    text = log.read_text()
    return Counter(
        {
            "exceptions": text.count("...to EL2 PC "),
            "returns": text.count("Exception return from AArch64 EL2"),
        }
    )


def logging_of(machine: qemu.Machine) -> set[str]:
    """Return the log files that QEMU has open."""
    links = [os.readlink(link) for link in Path(f"/proc/{machine.process.pid}/fd").iterdir()]
    return {link for link in links if ".log" in link and "deleted" not in link}


def test_log_records_every_exit(boot: Boot, truth: Truth) -> None:
    _, session = boot()
    before = exits(session, truth)
    session.run("hyp-trace start --source log")
    run_vcpus(session, 400)
    session.run("hyp-trace stop")
    counted = exits(session, truth) - before
    stat = session.json("hyp-trace stat")
    by_class: Counter[int] = Counter()
    for (_, ec), count in counted.items():
        by_class[ec] += count
    assert {ec: count for (_, ec), count in guest_rows(stat).items()} == {
        e: c for e, c in by_class.items() if c
    }
    assert stat["world_switches"] == 2 * 400
    assert stat["worlds_deduced"]
    assert stat["contradictions"] == stat["dropped"] == 0
    assert all(row["vmid"] is None for row in stat["exits"])


def test_log_of_two_cpus(boot: Boot, truth: Truth) -> None:
    """When GDB stops, each CPU may stand between an exit and the demo's count of it."""
    _, session = boot(cpus=2)
    before = exits(session, truth)
    session.run("hyp-trace start --source log")
    run_vcpus(session, 400)
    session.run("hyp-trace stop")
    counted = (exits(session, truth) - before).total()
    stat = session.json("hyp-trace stat")
    assert stat["cpus"] == 2
    assert abs(guest_rows(stat).total() - counted) <= 2
    assert all(row["ec"] == 0x16 for row in stat["exits"] if row["world"] == "host")


def test_log_is_given_back(boot: Boot) -> None:
    machine, session = boot()
    session.run("hyp-trace start --source log")
    (file,) = logging_of(machine)
    assert file.endswith("int.log")
    run_vcpus(session, 3)
    session.run("hyp-trace stop")
    assert not Path(file).parent.exists()
    run_vcpus(session, 3)
    assert session.json("hyp-trace stat")["returns"] > 0


def test_log_that_exists_goes_on(boot: Boot, tmp_path: Path) -> None:
    """QEMU's own log file gets the exceptions as well, and then no more; what was in it stays."""
    own = tmp_path / "own.log"
    _, session = boot("-d", "int", "-D", str(own))
    before = log_counts(own)
    session.run("hyp-trace start --source log")
    run_vcpus(session, 50)
    session.run("hyp-trace stop")
    stat = session.json("hyp-trace stat")
    after = log_counts(own)
    assert stat["exceptions"] == after["exceptions"] - before["exceptions"]
    assert stat["returns"] == after["returns"] - before["returns"]
    run_vcpus(session, 3)
    assert log_counts(own)["exceptions"] > after["exceptions"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-d", "guest_errors"), "QEMU logs to its stderr"),
        (("-d", "guest_errors,tid", "-D", "FOLDER/x.%d.log"), "each thread to a file of its own"),
    ],
)
def test_log_that_cannot_be_given_back(
    boot: Boot, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    _, session = boot(*(option.replace("FOLDER", str(tmp_path)) for option in options))
    with pytest.raises(CommandError, match=said):
        session.run("hyp-trace start --source log")
    assert not session.json("hyp-trace status")["running"]


def test_detach_stops_the_log(boot: Boot, tmp_path: Path) -> None:
    own = tmp_path / "own.log"
    machine, session = boot("-D", str(own))
    session.run("hyp-trace start --source log")
    run_vcpus(session, 5)
    session.run("detach")
    status = session.json("hyp-trace status")
    assert status["ended"] == "the connection to the target is closed"
    assert status["notes"] == []
    assert session.json("hyp-trace stat")["exceptions"] == log_counts(own)["exceptions"] >= 10
    size = own.stat().st_size
    assert "running" in machine.command("info status")
    assert own.stat().st_size == size


def test_death_of_qemu_keeps_the_log(boot: Boot) -> None:
    machine, session = boot()
    session.run("hyp-trace start --source log")
    run_vcpus(session, 5)
    machine.process.kill()
    machine.process.wait()
    with contextlib.suppress(CommandError):
        session.run("continue")
    status = session.json("hyp-trace status")
    assert not status["running"]
    assert session.json("hyp-trace stat")["exceptions"] >= 10


def test_end_of_gdb_stops_the_log(boot: Boot, tmp_path: Path) -> None:
    own = tmp_path / "own.log"
    machine, session = boot("-D", str(own))
    session.run("hyp-trace start --source log")
    run_vcpus(session, 5)
    with contextlib.suppress(RuntimeError):
        session.run("quit")
    machine.command("cont")
    size = own.stat().st_size
    assert "running" in machine.command("info status")
    assert own.stat().st_size == size


def test_the_log_may_be_in_a_folder_of_any_name(start: Start, truth: Truth, tmp_path: Path) -> None:
    """QEMU's monitor is told the path: a space, a quote or a new line in it ends neither the word nor the command."""
    folder = tmp_path / 'a b",c\\d\nquit'
    folder.mkdir()
    session = start()
    session.run(f"python import tempfile; tempfile.tempdir = {str(folder)!r}")
    before = exits(session, truth)
    session.run("hyp-trace start --source log")
    run_vcpus(session, 5)
    session.run("hyp-trace stop")
    counted = exits(session, truth) - before
    assert sum(counted.values()) >= 5
    # QEMU's log does not name the VM.
    recorded = guest_rows(json.loads(session.run("hyp-trace stat --json")))
    assert Counter({(None, ec): count for (_, ec), count in counted.items()}) == recorded
    assert list(folder.iterdir()) == []
