"""Register gdbhyp's commands, functions and parameters with GDB; done once, however often the plugin is sourced."""

from __future__ import annotations

import gdb

from gdbhyp.commands.registry import COMMANDS
from gdbhyp.plugin import dap, functions, mi, parameters, pipes, tui
from gdbhyp.plugin.commands import GdbCommand
from gdbhyp.plugin.prefix import Hyp

_loaded: list[gdb.Command] = []


def load() -> None:
    """Register every command that works in GDB, the convenience functions and the parameters."""
    if not _loaded:
        pipes.remember_inherited()
        parameters.register()
        functions.register()
        tui.register()
        dap.register()
        in_gdb = {command.name: command for command in COMMANDS if command.in_gdb}
        _loaded.extend(GdbCommand(command) for command in in_gdb.values())
        _loaded.append(Hyp(in_gdb))
        mi.register(list(in_gdb.values()))
