"""Answers over a bad line: right or a sentence, in bounded time, and afterwards the target is as it was."""

from __future__ import annotations

import json
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


@pytest.mark.parametrize("seed", range(3))
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
WORDS = ("summary", "reason", "text", "evidence", "world_reason")


def differences(where: str, found: Any, expected: Any) -> Iterator[str]:
    """Yield the keys whose value is another than the right one, and not null."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in expected:
            if key not in WORDS:
                yield from differences(f"{where}.{key}", found[key], expected[key])
    elif found is not None and found != expected and not (where.endswith(".certain") and not found):
        yield f"{where} is {found}, not {expected}"
