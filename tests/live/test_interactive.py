"""A person at a terminal: TAB, Ctrl-C, the pager and colour."""

from __future__ import annotations

import os
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect  # type: ignore[import-untyped]
import pytest
from live.conftest import GDBINIT, demo_arguments
from live.test_robustness import LONG_MAP, ROOT_TABLE, long_table
from support import qemu

PROMPT = "(gdb) "
PATIENCE = 60
# What readline and the pager send besides text: bracketed paste, bells, attributes, carriage returns.
TERMINAL = re.compile(r"\x1b\[\?2004[hl]|\x1b\[[0-9;]*[mK]|\x07|\r")


class Terminal:
    """GDB on a pseudo-terminal."""

    def __init__(self, program: str, demo: Path, target: qemu.Machine, height: int = 0) -> None:
        environment = {
            **os.environ,
            "GDBHYP_SITE": sysconfig.get_path("purelib"),
            "TERM": "xterm-256color",
            "INPUTRC": "/dev/null",
            "DEBUGINFOD_URLS": "",
        }
        arguments = [
            "-nx",
            "-q",
            "-ex",
            "set confirm off",
            "-ex",
            f"set height {height}",
            "-ex",
            "set width 0",
        ]
        loading = ["-ex", f"source {GDBINIT}", "-ex", f"target remote {target.gdb}", str(demo / "demo.elf")]
        self.child: Any = pexpect.spawn(
            program,
            [*arguments, *loading],
            env=environment,
            encoding="utf-8",
            timeout=PATIENCE,
            dimensions=(50, 250),
        )
        self.until_prompt()

    def until_prompt(self) -> str:
        """Return what is shown up to the next prompt, colours included."""
        self.child.expect_exact(PROMPT)
        return str(self.child.before)

    def run(self, line: str) -> str:
        """Type a line and return what GDB prints, as plain text."""
        return plain(self.coloured(line))

    def coloured(self, line: str) -> str:
        """Type a line and return what GDB prints, colours included."""
        self.child.send(line + "\n")
        return self.until_prompt().partition("\n")[2]

    def completed(self, typed: str, tabs: int = 1) -> str:
        """Type part of a line and TAB, and return what the line or the list of candidates has become."""
        self.child.send(typed + "\t" * tabs)
        # GDB is done with TAB when it shows what is typed next; Ctrl-U empties the line then.
        self.child.send("~")
        self.child.expect_exact("~")
        shown = plain(str(self.child.before))
        self.child.send("\x15")
        self.run("echo")
        return shown

    def mode(self) -> str:
        """Return the stub's PhyMemMode."""
        found = re.search(r'received: "(.)"', self.run("maintenance packet qqemu.PhyMemMode"))
        assert found
        return found[1]


def plain(text: str) -> str:
    """Return what a screen shows of ``text``, without colours."""
    shown: list[str] = []
    for character in TERMINAL.sub("", text):
        if character == "\b":
            shown.pop()
        else:
            shown.append(character)
    return "".join(shown)


@pytest.fixture
def target(demo: Path, tmp_path: Path) -> Iterator[qemu.Machine]:
    """The demo hypervisor beside a table that takes seconds to map."""
    tables = tmp_path / "tables.bin"
    tables.write_bytes(long_table())
    loader = ["-device", f"loader,file={tables},addr={ROOT_TABLE:#x},force-raw=on"]
    with qemu.machine(tmp_path, [*demo_arguments(demo), *loader]) as running:
        yield running


@pytest.fixture
def terminal(gdb_program: str, demo: Path, target: qemu.Machine) -> Iterator[Terminal]:
    started = Terminal(gdb_program, demo, target)
    yield started
    started.child.close(force=True)


def test_completion(terminal: Terminal) -> None:
    listed = set(terminal.completed("hyp-", tabs=2).split())
    assert {"hyp-status", "hyp-esr", "hyp-reg", "hyp-ipa", "hyp-walk", "hyp-map", "hyp-at"} <= listed
    for typed, line in (
        ("hyp-stat", "hyp-status "),
        ("hyp-walk --stage1 --ver", "hyp-walk --stage1 --verbose "),
        ("hyp-walk --regime EL", "hyp-walk --regime EL"),
        ("hyp-walk --acc", "hyp-walk --access "),
        ("hyp-walk --access exec", "hyp-walk --access execute "),
        ("hyp-at S1E0R", "hyp-at S1E0R "),
        ("hyp-reg VTCR", "hyp-reg VTCR_EL2 "),
        ("hyp-reg vtcr", "hyp-reg VTCR_EL2 "),
        ("hyp-walk &hyp_vec", "hyp-walk &hyp_vectors"),
        ("hyp-walk --stage1 &hyp_vec", "hyp-walk --stage1 &hyp_vectors"),
        ("hyp-walk $VBAR_EL", "hyp-walk $VBAR_EL"),
        ("hyp-map --ttbr $TTBR1_EL1", "hyp-map --ttbr $TTBR1_EL1"),
    ):
        assert terminal.completed(typed).startswith(line), typed
    for typed, candidates in (
        ("hyp-walk --st", {"--stage1", "--stage2"}),
        ("hyp-walk --regime ", {"EL1", "EL2", "EL3"}),
        ("hyp-walk --regime EL2 --access ", {"read", "write", "execute"}),
        ("hyp-map --", {"--stage1", "--stage2", "--json", "--rights"}),
        ("hyp-reg VT", {"VTCR_EL2", "VTTBR_EL2"}),
        ("hyp-at S12E0", {"S12E0R", "S12E0W"}),
        ("hyp-walk &hyp_v", {"hyp_vectors", "hyp_vcpu_run"}),
    ):
        shown = terminal.completed(typed, tabs=3).split()
        tails = {word for word in candidates if any(s.endswith(word) or word.endswith(s) for s in shown)}
        assert tails == candidates, (typed, shown)
    assert terminal.mode() == "0"


def test_ctrl_c_during_a_command(terminal: Terminal) -> None:
    terminal.child.send(LONG_MAP + "\n")
    terminal.child.expect_exact("0x40100000")
    terminal.child.sendintr()
    shown = plain(terminal.until_prompt())
    assert re.search(r"interrupted: (the answer above is not complete|what is mapped from 0x)", shown)
    assert terminal.mode() == "0"
    assert "CPU" in terminal.run("hyp-status")


def test_ctrl_c_stops_the_cpu(terminal: Terminal) -> None:
    for _ in range(2):
        terminal.child.send("continue\n")
        terminal.child.expect_exact("Continuing.")
        terminal.child.sendintr()
        assert "SIGINT" in terminal.until_prompt()
        shown = terminal.run("hyp-status")
        assert re.search(r"^CPU +0 of 1, at VA 0x", shown, re.M)


def test_interrupt_of_a_background_run(terminal: Terminal) -> None:
    terminal.run("continue &")
    # GDB 18 puts a sign of its own before errors.
    shown = terminal.run("hyp-status").strip()
    assert shown.endswith("the CPU is running: stop it first, with Ctrl-C or 'interrupt'")
    terminal.child.send("interrupt\n")
    terminal.child.expect("SIGINT")
    terminal.run("echo")
    assert "CPU" in terminal.run("hyp-status")


def test_the_pager_can_be_left(gdb_program: str, demo: Path, target: qemu.Machine) -> None:
    terminal = Terminal(gdb_program, demo, target, height=24)
    try:
        terminal.child.send(LONG_MAP + "\n")
        terminal.child.expect_exact("--Type <RET>")
        terminal.child.send("\n")
        terminal.child.expect_exact("--Type <RET>")
        terminal.child.send("q\n")
        left = plain(terminal.until_prompt())
        assert "Error" not in left
        assert "Traceback" not in left
        assert terminal.mode() == "0"
        assert "CPU" in terminal.run("hyp-status")
    finally:
        terminal.child.close(force=True)


def test_colour_is_gdbs_choice(terminal: Terminal) -> None:
    assert "\x1b[" in terminal.coloured("hyp-status").replace("\x1b[?2004", "")
    assert "\x1b[" in terminal.coloured("hyp-esr 0x93c58045").replace("\x1b[?2004", "")
    assert "\x1b[" not in terminal.coloured("hyp-status --json").replace("\x1b[?2004", "")
    terminal.run("set style enabled off")
    for line in ("hyp-status", "hyp-esr 0x93c58045", "hyp-walk $pc", "hyp-map --range 0+0x1000"):
        assert "\x1b[" not in terminal.coloured(line).replace("\x1b[?2004", ""), line


def test_no_colour_in_pipes(terminal: Terminal) -> None:
    for line in (
        "pipe hyp-status | cat",
        "|hyp-status|cat",
        "pipe -d % hyp-esr 0x93c58045 % cat",
        "pipe python gdb.execute('hyp-status') | cat",
    ):
        shown = terminal.coloured(line).replace("\x1b[?2004", "")
        assert "\x1b[" not in shown, line
        assert "EL2" in shown or "ESR" in shown
    assert "\x1b[" in terminal.coloured("hyp-status").replace("\x1b[?2004", "")


def test_progress_of_a_quiet_map(terminal: Terminal) -> None:
    """A map that shows no rows for seconds says how far it is, and takes that away at the end."""
    terminal.child.send(LONG_MAP + " --quiet\n")
    terminal.child.expect(r"\r\x1b\[Krows: [\d,]+")
    terminal.child.sendintr()
    shown = terminal.until_prompt()
    assert "\r\x1b[K" in shown
    assert terminal.mode() == "0"


def test_return_does_not_repeat(terminal: Terminal) -> None:
    """A person who presses RETURN at the prompt asks nothing."""
    terminal.run("hyp-status")
    assert "CPU" not in terminal.run("")
