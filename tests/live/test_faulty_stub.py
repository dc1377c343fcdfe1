"""Answers over a bad line: right or a sentence, in bounded time, and afterwards the target is as it was."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live.conftest import GDBINIT
from support import qemu
from support.demo import run_to
from support.gdb_session import CommandError, GdbSession
from support.stub_proxy import Plan, Proxy, proxy

# GDB asks three times, so that an answer which never comes takes three of these seconds.
TIMEOUT = 1
BOUND = 15.0

LINES = (
    "hyp-status",
    "hyp-esr",
    "hyp-ipa",
    "hyp-walk $pc",
    "hyp-walk --regime EL1 $FAR_EL2",
    "hyp-at S12E1W $FAR_EL2",
    "hyp-map",
    "hyp-map --stage2",
)


@pytest.fixture
def line(machine: qemu.Machine, tmp_path: Path) -> Iterator[Proxy]:
    """The demo hypervisor's stub behind a line that can go bad."""
    with proxy(tmp_path / "proxy.sock", machine.gdb) as between:
        yield between


@pytest.fixture
def far(line: Proxy, gdb_program: str, demo: Path, truth: Any, tmp_path: Path) -> Iterator[GdbSession]:
    """A GDB with the plugin behind that line, where a store of the guest has faulted."""
    with GdbSession(gdb_program, tmp_path) as session:
        session.run(f"set remotetimeout {TIMEOUT}")
        session.run(f"file {demo / 'demo.elf'}")
        session.run(f"source {GDBINIT}")
        session.run(f"target remote {line.path}")
        run_to(session, next(s for s in truth["vms"][0]["sites"] if s["symbol"] == "guest_perm_store"))
        yield session


def answer(session: GdbSession, command: str) -> tuple[str | None, str]:
    """Return what a command answers as JSON, or None, and the sentence why it does not."""
    began = time.monotonic()
    try:
        found: tuple[str | None, str] = session.run(f"{command} --json"), ""
    except CommandError as error:
        found = None, str(error)
    assert time.monotonic() - began < BOUND, command
    return found


def forget_registers(session: GdbSession) -> None:
    """Make GDB ask the stub again."""
    session.run("maintenance flush register-cache")


def lines_of(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", ["delay", "nak", "shorten", "error"])
def test_right_or_a_sentence(far: GdbSession, line: Proxy, kind: str, seed: int) -> None:
    right = {command: answer(far, command)[0] for command in LINES}
    plan = Plan((kind,), 0.2, seed)
    for command in LINES:
        line.plan = None
        forget_registers(far)
        line.plan = plan
        said, sentence = answer(far, command)
        if said is None:
            assert sentence
            assert "\n" not in sentence, sentence
        else:
            check(command, said, right[command] or "")
    assert line.injected
    line.plan = None
    forget_registers(far)
    assert "0" in far.run("maintenance packet qqemu.PhyMemMode").splitlines()[-1]
    for command in LINES:
        assert answer(far, command)[0] == right[command]


def check(command: str, said: str, right: str) -> None:
    """Check that what was printed is right as far as it goes: what is not known is null, and never another value."""
    expected = lines_of(right)
    if command.startswith("hyp-map"):
        assert [row for row in lines_of(said) if row not in expected] == [], command
        return
    (found,) = lines_of(said)
    wrong = [*differences(command, found, expected[0])]
    assert wrong == []


# Words, which say what is missing.
WORDS = ("summary", "reason", "text", "evidence", "world_reason", "assumed")


def differences(where: str, found: Any, expected: Any) -> Iterator[str]:
    """Yield the keys whose value is another than the right one, and not null."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in expected:
            if key not in WORDS:
                yield from differences(f"{where}.{key}", found[key], expected[key])
    elif found is not None and found != expected and not (where.endswith(".certain") and not found):
        yield f"{where} is {found}, not {expected}"


LATE = "the stub answered too late, and its answers no longer belong to the questions"


def test_answers_that_come_too_late(
    far: GdbSession, machine: qemu.Machine, line: Proxy, gdb_program: str, tmp_path: Path
) -> None:
    """QEMU stands still for longer than GDB waits, and then answers all: each is taken for the next question's."""
    right = answer(far, "hyp-walk --regime EL1 $FAR_EL2")[0]
    forget_registers(far)
    os.kill(machine.process.pid, signal.SIGSTOP)
    waking = threading.Timer(4 * TIMEOUT, lambda: os.kill(machine.process.pid, signal.SIGCONT))
    waking.start()
    told = [answer(far, "hyp-walk --regime EL1 $FAR_EL2") for _ in range(4)]
    waking.join()
    assert [said for said, _ in told if said not in (None, right)] == []
    assert any(LATE in sentence for _, sentence in told)
    far.run("disconnect")
    attach_again(far, line)
    assert answer(far, "hyp-walk --regime EL1 $FAR_EL2")[0] == right


def attach_again(session: GdbSession, line: Proxy) -> None:
    """Attach as a person does, again if QEMU still has an answer for whom it talked to before."""
    for _ in range(3):
        with contextlib.suppress(CommandError):
            session.run(f"target remote {line.path}")
            return
    raise AssertionError(f"cannot attach again: {line.injected}")


@pytest.mark.parametrize("seed", range(2))
def test_a_line_that_hangs_up(far: GdbSession, line: Proxy, seed: int) -> None:
    """In the middle of a map the line is cut, while the mode is ours; after another attach it is given back."""
    right = answer(far, "hyp-map --stage2")[0]
    plan = Plan(("close",), 0.3, seed)
    for _ in range(8):
        line.plan = plan
        said, sentence = answer(far, "hyp-map --stage2")
        line.plan = None
        if said is None:
            assert sentence.startswith("the connection to the target is lost")
            attach_again(far, line)
        assert answer(far, "hyp-map --stage2")[0] == right
        assert "0" in far.run("maintenance packet qqemu.PhyMemMode").splitlines()[-1]
    assert line.injected
