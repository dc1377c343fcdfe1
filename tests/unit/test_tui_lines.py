"""Lines of the TUI window, and the exits that it lists."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import pytest

from gdbhyp.trace.events import Lost, Taken
from gdbhyp.trace.ring import Recording


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(sys.modules, "gdb", ModuleType("gdb"))
    monkeypatch.delitem(sys.modules, "gdbhyp.plugin.tui", raising=False)
    return importlib.import_module("gdbhyp.plugin.tui")._cut


@pytest.mark.parametrize(
    ("line", "width", "shown"),
    [
        ("abc", 10, "abc"),
        ("abcdef", 4, "abc"),
        ("\x1b[36mCPU\x1b[39;49;00m  0", 20, "\x1b[36mCPU\x1b[39;49;00m  0\x1b[m"),
        ("\x1b[36mCPU\x1b[39;49;00m  0", 3, "\x1b[36mCP\x1b[m"),
        ("", 5, ""),
        ("abc", 1, ""),
    ],
)
def test_lines_are_cut_and_colours_end(cut: Any, line: str, width: int, shown: str) -> None:
    assert cut(line, width) == shown


def test_the_newest_exits_come_first_to_hand() -> None:
    recording = Recording("break")
    for seq in range(10):
        recording.add(Taken(seq, 0, 0x2400, 1, esr=0x5A000000))
        recording.add(Lost(-1, 1, "a gap"))
    assert [event.seq for event, _ in recording.newest(3)] == [7, 8, 9]
    assert [event.seq for event, _ in recording.newest(99)] == [*range(10)]
    assert recording.newest(99) == [*recording.exceptions()]
