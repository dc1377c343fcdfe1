"""Register gdbhyp's commands with GDB; done once, however often the plugin is sourced."""

from __future__ import annotations

from gdbhyp.commands.registry import COMMANDS
from gdbhyp.plugin.commands import GdbCommand

_loaded: list[GdbCommand] = []


def load() -> None:
    """Register every command that works in GDB."""
    if not _loaded:
        _loaded.extend(GdbCommand(command) for command in COMMANDS if command.in_gdb)
