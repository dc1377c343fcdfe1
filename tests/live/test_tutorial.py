"""The tutorial is a session: its commands are typed in real GDBs, and what it shows is what they print.

With GDBHYP_REWRITE_EXAMPLES set, its outputs are written anew instead.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from live.conftest import BUILD, GDBINIT, demo_arguments
from support import qemu, tools
from support.gdb_session import GdbSession

from gdbhyp.commands import topic

PAGE = Path(topic.__file__).with_name("topics") / "tutorial.txt"
COMMAND = re.compile(r"  \(gdb\) (.+)")
# What GDB itself says differs between its versions.
OURS = re.compile(r"hyp-|print|pipe")


def parts(text: str) -> Iterator[tuple[str | None, list[str]]]:
    """Yield the commands of the page with the lines that follow them, and None with each other line."""
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        typed = COMMAND.fullmatch(lines[at])
        shown = []
        at += 1
        while typed and at < len(lines) and lines[at].startswith("  ") and not COMMAND.fullmatch(lines[at]):
            shown.append(lines[at][2:])
            at += 1
        yield (typed[1], shown) if typed else (None, [lines[at - 1]])


def rewritten(text: str, run: Callable[[str], list[str]]) -> str:
    """Return the page with every output replaced."""
    lines: list[str] = []
    for command, shown in parts(text):
        if command is None:
            lines.extend(shown)
        else:
            lines.append(f"  (gdb) {command}")
            lines.extend(f"  {line}".rstrip() for line in run(command))
    return "\n".join(lines) + "\n"


@pytest.fixture
def run(gdb_program: str, tmp_path: Path) -> Iterator[Callable[[str], list[str]]]:
    """Type commands in a GDB at the first instruction of the hypervisor with the planted bug."""
    tools.need("aarch64-linux-gnu-as")
    subprocess.run([str(BUILD), str(tmp_path), "--planted-bug"], check=True, capture_output=True)
    with (
        qemu.machine(tmp_path, demo_arguments(tmp_path)) as target,
        GdbSession(gdb_program, tmp_path) as session,
    ):
        session.run(f"file {tmp_path / 'demo.elf'}")
        session.run(f"source {GDBINIT}")
        session.run(f"target remote {target.gdb}")

        def typed(command: str) -> list[str]:
            if not command.startswith("pipe "):
                said = session.run(command)
                return said.splitlines() if OURS.match(command) else []
            session.run(f"{command} > {tmp_path / 'piped'}")
            return (tmp_path / "piped").read_text().splitlines()

        yield typed


def test_the_tutorial(run: Callable[[str], list[str]]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    if "GDBHYP_REWRITE_EXAMPLES" in os.environ:
        PAGE.write_text(rewritten(text, run), encoding="utf-8")
        return
    checked = 0
    for command, shown in parts(text):
        if command is not None:
            assert run(command) == shown, command
            checked += len(shown)
    assert checked > 20
