"""The examples of every command's help, and the README's, are what the commands print.

With GDBHYP_REWRITE_EXAMPLES set, the captured outputs are written anew instead.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import pytest
from support import tools
from support.demo import run_to
from support.gdb_session import CommandError, GdbSession
from support.sessions import Exchange, exchanges, rewritten

from gdbhyp.cli.main import main
from gdbhyp.commands.registry import COMMANDS

EXAMPLES = tools.ROOT / "gdbhyp" / "commands" / "examples"
RUN = ("hyp-", "set hyp ", "output $hyp_")
"""How the commands begin that are run; the others are GDB's own."""
SESSIONS = [*sorted(EXAMPLES.glob("*.txt")), tools.ROOT / "README.md"]


class Runner:
    """Runs exchanges in one GDB, moving it to each stop once."""

    def __init__(self, session: GdbSession, truth: Any, capture: pytest.CaptureFixture[str]) -> None:
        self.session = session
        self.sites = {site["symbol"]: site for site in truth["vms"][0]["sites"]}
        self.capture = capture
        self.stop = ""

    def __call__(self, exchange: Exchange) -> str:
        if exchange.shell:
            self.capture.readouterr()
            main(shlex.split(exchange.command))
            shown = self.capture.readouterr()
            return (shown.out + shown.err).rstrip("\n")
        assert exchange.stop, f"{exchange.command}: no stop was said"
        if exchange.stop != self.stop:
            run_to(self.session, self.sites[exchange.stop])
            self.stop = exchange.stop
        try:
            return self.session.run(exchange.command).rstrip("\n")
        except CommandError as error:
            return str(error)


@pytest.fixture
def runner(session: GdbSession, demo: Path, truth: Any, capsys: pytest.CaptureFixture[str]) -> Runner:
    session.run(f"add-symbol-file {demo / 'guest.elf'}")
    return Runner(session, truth, capsys)


@pytest.mark.parametrize("path", SESSIONS, ids=lambda path: path.stem)
def test_examples_are_real(path: Path, runner: Runner) -> None:
    text = path.read_text(encoding="utf-8")
    if "GDBHYP_REWRITE_EXAMPLES" in os.environ:
        path.write_text(rewritten(text, runner), encoding="utf-8")
    checked = 0
    for exchange in exchanges(path.read_text(encoding="utf-8")):
        if exchange.shell or exchange.command.startswith(RUN):
            assert runner(exchange) == exchange.output, exchange.command
            checked += 1
    assert checked


def test_every_command_has_examples() -> None:
    shown = {path.stem for path in EXAMPLES.glob("*.txt")}
    assert {command.name for command in COMMANDS} <= shown
