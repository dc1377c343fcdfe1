"""The symbol files that GDB is given: Ctrl-C while they are taken back loses none of them."""

from __future__ import annotations

import contextlib
import importlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


@pytest.fixture
def gdb(fake_gdb: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    """GDB's side of symbol files; ``pressed`` makes the next command end by Ctrl-C."""
    fake: Any = fake_gdb
    fake.files, fake.pressed = [], False
    fake.objfiles = lambda: [SimpleNamespace(filename=name) for name in fake.files]
    fake.with_parameter = lambda name, value: contextlib.nullcontext()

    def execute(line: str, to_string: bool) -> str:
        if fake.pressed:
            fake.pressed = False
            raise KeyboardInterrupt
        command, path = line.split(" ", 1)
        (fake.files.append if command == "add-symbol-file" else fake.files.remove)(path.strip('"'))
        return ""

    fake.execute = execute
    unwinder: Any = ModuleType("gdbhyp.plugin.unwinder")
    unwinder.unwinder = lambda: SimpleNamespace(replace=lambda name, code: None)
    monkeypatch.setitem(sys.modules, "gdbhyp.plugin.unwinder", unwinder)
    return fake


def test_taken_back_at_the_second_time(gdb: Any) -> None:
    files = importlib.import_module("gdbhyp.plugin.symbols").GdbSymbolFiles()
    path = Path(files.give("hypervisor", b"symbols", ()))
    gdb.pressed = True
    with pytest.raises(KeyboardInterrupt):
        files.take_back()
    assert gdb.files == [str(path)]
    assert files.take_back() == ("hypervisor",)
    assert gdb.files == []
    assert not path.exists()
