"""``hyp-trace`` by the TCG plugin, in a QEMU that has the API for it, on the demo, which counts its guests' exits."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from live.conftest import Boot, Start, demo_arguments
from live.test_trace import exits, guest_rows, run_vcpus
from support import qemu, tools
from support.gdb_session import CommandError, GdbSession

from gdbhyp.cli.main import main
from gdbhyp.trace.tcg_build import build

Truth = Any


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The TCG plugin, built."""
    tools.need("cc")
    return str(build(str(tmp_path_factory.mktemp("plugin") / "gdbhyp-trace.so")).path)


@pytest.fixture
def plugged(boot: Boot, plugin: str) -> Boot:
    """Attach to a demo in a QEMU with the plugin, where the host is about to run a vCPU."""

    def started(
        cpus: int = 1, options: str = "", more: Sequence[str] = ()
    ) -> tuple[qemu.Machine, GdbSession]:
        return boot(*more, "-plugin", plugin + options, cpus=cpus, program=tools.newest_qemu())

    return started


def test_every_exit_is_recorded(plugged: Boot, truth: Truth) -> None:
    _, session = plugged()
    before = exits(session, truth)
    assert session.json("hyp-trace start")["source"] == "plugin"
    run_vcpus(session, 400)
    session.run("hyp-trace stop")
    counted = exits(session, truth) - before
    stat = session.json("hyp-trace stat")
    assert guest_rows(stat) == counted
    assert counted.total() == 400
    assert stat["dropped"] == stat["contradictions"] == 0
    assert not stat["worlds_deduced"]
    assert abs(stat["returns"] - stat["exceptions"]) <= 1
    assert sum(row["count"] for row in stat["exits"]) == stat["exceptions"]
    assert stat["world_switches"] == 2 * 400


def test_two_cpus(plugged: Boot, truth: Truth) -> None:
    """When GDB stops, each CPU may stand between an exit and the demo's count of it."""
    _, session = plugged(2)
    before = exits(session, truth)
    session.run("hyp-trace start --source plugin")
    run_vcpus(session, 400)
    session.run("hyp-trace stop")
    counted = exits(session, truth) - before
    stat = session.json("hyp-trace stat")
    assert abs(guest_rows(stat).total() - counted.total()) <= 2
    assert stat["cpus"] == 2


_ONE_THREAD = (["-accel", "tcg,thread=single"], ["-icount", "shift=3"])


@pytest.mark.parametrize("options", _ONE_THREAD)
def test_one_thread_for_one_cpu(plugged: Boot, truth: Truth, options: list[str]) -> None:
    _, session = plugged(more=options)
    before = exits(session, truth)
    session.run("hyp-trace start --source plugin")
    run_vcpus(session, 100)
    assert guest_rows(session.json("hyp-trace stat")) == exits(session, truth) - before


@pytest.mark.parametrize("options", _ONE_THREAD)
def test_one_thread_for_all_cpus(plugged: Boot, options: list[str]) -> None:
    """QEMU tells plugins wrong CPUs there, so none is told anything; the machine runs on as it should."""
    _, session = plugged(2, more=options)
    with pytest.raises(CommandError, match="runs all CPUs in one thread"):
        session.run("hyp-trace start --source plugin")
    run_vcpus(session, 5)
    assert session.json("hyp-trace start")["source"] == "log"


def test_what_is_recorded(plugged: Boot, truth: Truth) -> None:
    _, session = plugged()
    session.run("hyp-trace start --source plugin")
    run_vcpus(session, 60)
    rows = [row for row in session.json_lines("hyp-trace show --last 1000") if row["world"] == "guest"]
    sites = {(s["vmid"], s["elr"], s["esr"]): s for vm in truth["vms"] for s in vm["sites"]}
    assert len(rows) == 60
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
    times = [row["time_ns"] for row in rows]
    assert times == sorted(times)


def test_show_of_a_function(plugged: Boot, demo: Path) -> None:
    _, session = plugged()
    session.run("hyp-trace start")
    run_vcpus(session, 40)
    rows = session.json_lines("hyp-trace show --last 1000")
    name = next(row["symbol"] for row in rows if row["symbol"]).partition("+")[0]
    wanted = [row for row in rows if (row["symbol"] or "").partition("+")[0] == name]
    assert session.json_lines(f"hyp-trace show --last 1000 --symbol {name}") == wanted
    assert session.json_lines("hyp-trace show --symbol nowhere") == []


def test_nothing_is_recorded_before_and_after(plugged: Boot) -> None:
    _, session = plugged()
    run_vcpus(session, 5)
    session.run("hyp-trace start --source plugin")
    run_vcpus(session, 5)
    session.run("hyp-trace stop")
    run_vcpus(session, 5)
    assert guest_rows(session.json("hyp-trace stat")).total() == 5
    assert session.json("hyp-trace status")["ended"] == "stopped by 'hyp-trace stop'"


def test_filter(plugged: Boot, truth: Truth) -> None:
    _, session = plugged()
    vmid = truth["vms"][0]["vmid"]
    before = exits(session, truth)
    session.run(f"hyp-trace start --ec 0x24 --ec 0x16 --vmid {vmid}")
    run_vcpus(session, 100)
    status = session.json("hyp-trace stop")
    counted = exits(session, truth) - before
    stat = session.json("hyp-trace stat")
    wanted = Counter(
        {key: n for key, n in counted.items() if key[0] == vmid and key[1] in (0x24, 0x16) and n}
    )
    assert guest_rows(stat) == wanted
    assert stat["exceptions"] == wanted.total()
    assert any("the filter left out" in note for note in status["notes"])


def test_filter_needs_the_plugin(plugged: Boot) -> None:
    _, session = plugged()
    with pytest.raises(CommandError, match="choose what the TCG plugin records"):
        session.run("hyp-trace start --source log --vmid 1")


def test_small_ring_says_what_was_lost(plugged: Boot) -> None:
    """The ring is not read while GDB itself is busy, and what was overwritten is counted."""
    _, session = plugged(options=",records=1024")
    session.run("hyp-trace start --source plugin")
    run_vcpus(session, 2000)
    session.run("hyp-trace stop")
    stat = session.json("hyp-trace stat")
    assert stat["events"] + stat["dropped"] >= 4 * 2000


def test_ring_in_a_file(plugged: Boot, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Recorded from the beginning; what is left when QEMU has been killed is read without a debugger."""
    ring = tmp_path / "exits.ring"
    machine, session = plugged(options=f",ring={ring},on=on")
    run_vcpus(session, 50)
    machine.process.kill()
    machine.process.wait()
    assert main(["trace", "stat", str(ring), "--json"]) == 0
    stat = json.loads(capsys.readouterr().out)
    assert stat["source"] == "plugin"
    assert stat["dropped"] == 0
    assert guest_rows(stat).total() >= 50
    assert main(["trace", "show", str(ring), "--last", "3", "--world", "guest"]) == 0
    assert "guest" in capsys.readouterr().out


def test_death_of_qemu_keeps_what_was_recorded(plugged: Boot) -> None:
    machine, session = plugged()
    session.run("hyp-trace start --source plugin")
    run_vcpus(session, 5)
    machine.process.kill()
    machine.process.wait()
    with contextlib.suppress(CommandError):
        session.run("continue")
    status = session.json("hyp-trace status")
    assert not status["running"]
    assert guest_rows(session.json("hyp-trace stat")).total() == 5


def test_detach_switches_it_off(plugged: Boot, tmp_path: Path) -> None:
    machine, session = plugged()
    session.run("hyp-trace start --source plugin")
    run_vcpus(session, 5)
    session.run("detach")
    assert session.json("hyp-trace status")["ended"] == "the connection to the target is closed"
    recorded = session.json("hyp-trace stat")
    machine.command("stop")
    session.run(f"target remote {tmp_path / 'gdb.sock'}")
    assert session.json("hyp-trace stat") == recorded
    session.run("hyp-trace start --source plugin")
    run_vcpus(session, 5)
    # Before the first of the five runs there was an exit if the machine had been stopped in a guest.
    assert guest_rows(session.json("hyp-trace stat")).total() in (4, 5)


def test_stop_is_no_time(plugged: Boot) -> None:
    """The clock of a recording stands while the machine does."""
    _, session = plugged()
    session.run("hyp-trace start --source plugin")
    running = 0
    for pause in ("shell sleep 1.5", "hyp-trace stop"):
        began = time.monotonic_ns()
        run_vcpus(session, 3)
        running += time.monotonic_ns() - began
        session.run(pause)
    assert 0 < session.json("hyp-trace stat")["duration_ns"] <= running


def test_without_the_plugin(start: Start) -> None:
    """Auto takes the next best, and says why."""
    session = start()
    with pytest.raises(CommandError, match="started without gdbhyp's TCG plugin"):
        session.run("hyp-trace start --source plugin")
    status = session.json("hyp-trace start")
    assert status["source"] == "log"
    assert "not by --source plugin" in status["notes"][0]
    session.run("hyp-trace stop")


@pytest.mark.parametrize(
    ("program", "options", "said"),
    [
        ("old", "", "plugin requires API version 3|supports only"),
        ("new", ",records=1000", "a power of two from 1024"),
        ("new", ",colour=red", "the options are records=N, ring=PATH and on=on"),
        ("new", ",ring=/nowhere/at/all", "/nowhere/at/all: No such file"),
    ],
)
def test_refusals_are_sentences(plugin: str, demo: Path, program: str, options: str, said: str) -> None:
    path = tools.qemu() if program == "old" else tools.newest_qemu()
    command = [path, *demo_arguments(demo), "-display", "none", "-nodefaults", "-plugin", plugin + options]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert run.returncode != 0
    assert re.search(said, run.stderr), run.stderr


def test_what_is_no_ring_is_left_as_it_is(plugin: str, demo: Path, tmp_path: Path) -> None:
    """A file of somebody else's, a link to one, and a device are refused, and stay."""
    other, link, pipe = tmp_path / "other", tmp_path / "link", tmp_path / "pipe"
    other.write_text("not a ring")
    link.symlink_to(other)
    os.mkfifo(pipe)
    for path in (other, link, pipe):
        options = [
            *demo_arguments(demo),
            "-display",
            "none",
            "-nodefaults",
            "-plugin",
            f"{plugin},ring={path}",
        ]
        run = subprocess.run(
            [tools.newest_qemu(), *options], capture_output=True, text=True, check=False, timeout=30
        )
        assert run.returncode != 0
        assert str(path) in run.stderr
    assert other.read_text() == "not a ring"
    assert link.is_symlink()
    assert pipe.is_fifo()
