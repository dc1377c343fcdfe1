"""Register gdbhyp's commands and parameters with GDB; done once, however often the plugin is sourced."""

from __future__ import annotations

from gdbhyp.commands.registry import COMMANDS
from gdbhyp.plugin import parameters
from gdbhyp.plugin.commands import GdbCommand

_loaded: list[GdbCommand] = []


def load() -> None:
    """Register every command that works in GDB, and the parameters."""
    if not _loaded:
        parameters.register()
        _loaded.extend(GdbCommand(command) for command in COMMANDS if command.in_gdb)
