"""The TUI window, on a terminal that is emulated, so that the screen is what a person sees."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect  # type: ignore[import-untyped]
import pyte
import pytest
from live.test_interactive import Terminal
from support import qemu

ROWS, COLUMNS = 50, 250
PATIENCE = 30


class Screen:
    """What a terminal shows of a GDB."""

    def __init__(self, terminal: Terminal) -> None:
        self.child = terminal.child
        self._screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.Stream(self._screen)

    def type(self, line: str) -> None:
        self.child.send(line + "\n")

    def until(self, seen: Callable[[str], bool]) -> str:
        """Return the screen as soon as it shows what is waited for."""
        end = time.monotonic() + PATIENCE
        while True:
            shown = "\n".join(self._screen.display)
            if seen(shown):
                return shown
            assert time.monotonic() < end, shown
            try:
                self._stream.feed(self.child.read_nonblocking(1 << 16, 0.2))
            except pexpect.TIMEOUT:
                continue


@pytest.fixture
def terminal(gdb_program: str, demo: Path, machine: qemu.Machine) -> Iterator[Terminal]:
    started = Terminal(gdb_program, demo, machine)
    yield started
    started.child.close(force=True)


def test_the_layout_follows_the_machine(terminal: Terminal) -> None:
    terminal.run("tbreak host_loop")
    terminal.run("continue")
    terminal.run("hyp-trace start --source break")
    screen = Screen(terminal)
    screen.type("layout hyp")
    shown = screen.until(lambda shown: "last exits" in shown)
    assert "CPU         0 of 1, at VA 0xffff8000080007b0 <host_loop>" in shown
    assert "translation  VA 0xffff8000080007b0 of the PC is PA 0x403007b0" in shown
    screen.type("tbreak host_handle_exit")
    screen.type("continue")
    shown = screen.until(lambda shown: "what happened" in shown)
    assert "world       host: stage 2 is off" in shown
    assert "at VA 0xffff800008000804 <host_handle_exit>" in shown
    exits = shown[shown.index("what happened") :].splitlines()[1:6]
    assert any("guest 42" in line for line in exits), exits
    assert any("host" in line and "hvc" in line for line in exits), exits
    screen.type("stepi")
    screen.until(lambda shown: "<host_handle_exit+4>" in shown)
    screen.type("tui disable")
    screen.until(lambda shown: "(gdb) tui disable" in shown)
    screen.type("maintenance packet qqemu.PhyMemMode")
    screen.until(lambda shown: 'received: "0"' in shown)


def test_it_says_what_is_missing(terminal: Terminal) -> None:
    screen = Screen(terminal)
    screen.type("layout hyp")
    screen.until(lambda shown: "last exits   none is recorded: 'hyp-trace start' begins" in shown)
    screen.type("disconnect")
    screen.until(lambda shown: "nothing is being debugged: attach with" in shown)
