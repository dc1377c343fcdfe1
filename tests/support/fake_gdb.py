"""A stand-in for the ``gdb`` module, for the parts of the plugin that need no debugger."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest


class FakeError(RuntimeError):
    """gdb.error."""


def fake_gdb(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module ``gdb`` that has what the plugin's modules name when they are imported."""
    module: Any = ModuleType("gdb")
    module.error = FakeError
    module.MemoryError = type("MemoryError", (FakeError,), {})
    module.GdbError = type("GdbError", (Exception,), {})
    module.Command = object
    module.RemoteTargetConnection = object
    module.stub = None
    module.execute = lambda line, to_string: _maintenance_packet(module.stub, line)
    module.COMPLETE_NONE, module.COMPLETE_FILENAME, module.COMPLETE_EXPRESSION = 0, 1, 4
    monkeypatch.setitem(sys.modules, "gdb", module)
    before = set(sys.modules)
    yield module
    for name in set(sys.modules) - before:
        if name.startswith("gdbhyp.plugin."):
            package, _, attribute = name.rpartition(".")
            monkeypatch.delattr(sys.modules[package], attribute, raising=False)
            del sys.modules[name]


def _maintenance_packet(stub: Any, line: str) -> str:
    """Return what GDB prints when a packet is sent to the connection ``stub`` of a test, ``gdb.stub``."""
    packet = line.removeprefix("maintenance packet ")
    assert packet != line, "no other command of GDB is there"
    answer = stub.send_packet(packet.encode()) or b""
    shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in answer)
    return f'sending: {packet}\nreceived: "{shown}"\n'
