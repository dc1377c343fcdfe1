"""Register gdbhyp's commands, functions and parameters with GDB; done once, however often the plugin is sourced."""

from __future__ import annotations

from gdbhyp.commands.registry import COMMANDS
from gdbhyp.plugin import functions, parameters, pipes
from gdbhyp.plugin.commands import GdbCommand

_loaded: list[GdbCommand] = []


def load() -> None:
    """Register every command that works in GDB, the convenience functions and the parameters."""
    if not _loaded:
        pipes.remember_inherited()
        parameters.register()
        functions.register()
        _loaded.extend(GdbCommand(command) for command in COMMANDS if command.in_gdb)
