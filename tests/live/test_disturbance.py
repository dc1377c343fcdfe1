"""Nothing is disturbed: whatever is typed and however it ends, the target and GDB are as they were.

With GDBHYP_LONG=1 everything that can be typed is, and all is compared after each line (half an hour).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from live.conftest import Attach, demo_arguments
from live.test_faulty_stub import attach_again
from live.test_robustness import wait_until
from support import qemu
from support.demo import run_to
from support.gdb_session import CommandError, GdbSession
from support.stub_proxy import Plan, Proxy, proxy
from support.undisturbed import LONG, MOVES, Trial, each_part_once, every_name, seeded
from support.witness import Witness, changes

# What the demo cannot answer; tests/kvm/test_disturbance.py sees it answered.
NOT_OF_THE_DEMO = {"hyp-vcpu"}


@pytest.fixture
def busy(demo: Path, tmp_path: Path) -> Iterator[qemu.Machine]:
    """The demo on two CPUs, in a QEMU that logs something of its own."""
    log = ["-d", "guest_errors", "-D", str(tmp_path / "qemu.log")]
    with qemu.machine(tmp_path, [*demo_arguments(demo, cpus=2), *log]) as running:
        yield running


def at_a_trap(session: GdbSession, machine: qemu.Machine, truth: Any, folder: Path) -> Trial:
    """Stop at a guest's trap, with breakpoints, a display and settings of a person's own."""
    run_to(session, next(s for s in truth["vms"][0]["sites"] if s["symbol"] == "guest_perm_store"))
    for line in (
        "hbreak host_loop",
        "break el1_trap if $x0 == 1",
        "watch *(long *)$sp",
        "display/x $pc",
        "set style enabled off",
        "set width 100",
        "set print pretty on",
        # GDB notes in its settings which packets the stub knows; let it learn of reading a single register.
        "info registers HCR_EL2",
    ):
        session.run(line)
    work = folder / "work"
    work.mkdir()
    return Trial(Witness(session, machine, folder, work), work)


@pytest.fixture
def trial(busy: qemu.Machine, attach: Attach, truth: Any, tmp_path: Path) -> Trial:
    return at_a_trap(attach(busy), busy, truth, tmp_path)


def test_by_any_command(trial: Trial) -> None:
    """Answered, refused, and interrupted."""
    assert len(trial.before["registers by the stub"][0]) > 200
    trial.every_command(asked=4, wrong=2)
    trial.interrupted_at_random(200 if LONG else 8, seeded())
    assert {*every_name()} - trial.answered == {*MOVES, *NOT_OF_THE_DEMO}


def test_the_monitors_cpu_by_a_connection_that_breaks(
    between: Proxy, busy: qemu.Machine, attach: Attach
) -> None:
    """The first question that QEMU's monitor is asked about the other CPU is the last one of this connection."""
    session = attach(replace(busy, gdb=between.path))
    before = session.run("monitor info cpus")
    session.run("thread 2")

    def edit(request: bytes, answer: bytes) -> bytes:
        if request.startswith(b"qRcmd," + b"gva2gpa".hex().encode()):
            between.plan = Plan(("close",), 1.0, 0)
        return answer

    between.edit = edit
    with pytest.raises(CommandError, match="the connection to the target is lost"):
        session.run("hyp-selftest --samples 5")
    between.plan, between.edit = None, lambda request, answer: answer
    attach_again(session, between)
    assert session.run("monitor info cpus") != before
    session.run("hyp-status")
    assert session.run("monitor info cpus") == before


@pytest.fixture
def between(busy: qemu.Machine, tmp_path: Path) -> Iterator[Proxy]:
    with proxy(tmp_path / "proxy.sock", busy.gdb) as running:
        yield running


def test_by_a_connection_that_breaks(
    between: Proxy, busy: qemu.Machine, attach: Attach, truth: Any, tmp_path: Path
) -> None:
    """Wherever in a command it does, all is as before once GDB is attached again."""
    session = attach(replace(busy, gdb=between.path))
    trial = at_a_trap(session, busy, truth, tmp_path)
    thread = session.python("gdb.selected_thread().num")
    chance = seeded()
    lines = each_part_once(trial.work)

    def submit(line: str, plan: Plan) -> bool:
        """Type a line; return whether the connection broke, and was made again."""
        between.plan = plan
        trial.submit(line)
        between.plan = None
        if session.python("packet_or_none('qqemu.PhyMemMode')") is not None:
            return False
        attach_again(session, between)
        session.run(f"thread {thread}")
        session.run("info registers HCR_EL2")
        return True

    # Another connection is another one to GDB, whoever broke the first.
    assert submit("maintenance packet ?", Plan(("close",), 1.0, 0))
    trial.before = trial.witness.everything()
    cuts = 0
    for line in lines * 5 if LONG else chance.sample(lines, 12):
        cuts += submit(line, Plan(("close",), chance.choice((0.01, 0.05, 0.3)), chance.randrange(1 << 32)))
        # What a command left borrowed, the next one gives back.
        session.run("hyp-walk $pc")
        trial.compare(f"{line}, on a connection that broke", allowed={"counters"})
    assert cuts


def test_by_recording(trial: Trial, busy: qemu.Machine, tmp_path: Path) -> None:
    """Where the machine runs on by design, what is set in GDB and what QEMU logs is as before all the same."""
    session = trial.witness.session
    session.run("delete")
    # GDB notes which packets the stub knows, also when it has to insert a breakpoint first.
    session.run("hbreak host_loop")
    session.run("continue")
    session.run("delete")

    def state() -> dict[str, Any]:
        found = trial.witness.debugger() | {"mode": trial.witness.quick()["mode"]}
        # Convenience variables tell of the place where the machine stands.
        return found | {"settings": [line for line in found["settings"] if not line.startswith("$")]}

    before = state()
    for source in ("log", "break"):
        for line in ("start --source " + source, "follow --seconds 0.2", "check --runs 2", "stop"):
            session.run(f"hyp-trace {line}")
        # Who waits for Ctrl-C looks four times a second whether that is still wanted.
        wait_until(lambda: state()["Python"] == before["Python"])
        assert changes(before, state(), {"counters"}) == {}, source
    logged = (tmp_path / "qemu.log").read_text().count("Taking exception")
    assert logged
    session.run("hyp-trace start --source break")
    session.run("hyp-trace follow --seconds 0.2")
    assert (tmp_path / "qemu.log").read_text().count("Taking exception") == logged
