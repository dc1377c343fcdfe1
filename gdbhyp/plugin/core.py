"""A core file in GDB: physical memory comes from the file by its physical addresses, registers from its notes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace

import gdb

from gdbhyp.engine.stop import Stop
from gdbhyp.errors import NoTarget
from gdbhyp.plugin.capture import captured
from gdbhyp.plugin.types import loaded_types
from gdbhyp.targets.dump import Dump, open_dump

# "Local core dump file:" and, on the next line, the name between quotes of some kind.
_FILE = re.compile(r"core dump file:\s+.(.+)., file type", re.IGNORECASE)

_opened: dict[tuple[str, int, int], Dump] = {}


def is_core() -> bool:
    """Return whether the selected inferior is a core file."""
    connection = gdb.selected_inferior().connection
    return connection is not None and connection.type == "core"


def core_stop(symbol: Callable[[int], str | None]) -> Stop:
    """Return the CPU of GDB's selected thread as the core file has it; ``symbol`` names addresses.

    :raises NoTarget: if GDB does not say which file it is.
    :raises BadInput: if the file is no dump of a machine.
    """
    dump = _dump(_file_name())
    number = gdb.selected_thread().num - 1
    # A file of memory alone is one thread to GDB, and one CPU here; GDB may have merged CPUs that have one name.
    stop = dump.stop(number if number < max(1, len(dump.cpus)) else None)
    others = stop.others
    return replace(
        stop,
        symbol=symbol,
        types=loaded_types,
        others=lambda: [replace(cpu, symbol=symbol, types=loaded_types) for cpu in others()],
    )


def _file_name() -> str:
    """Return the core file's name; only GDB 17 and later have an attribute for it."""
    core = getattr(gdb.selected_inferior(), "corefile", None)
    if core is not None:
        return str(core.filename)
    match = _FILE.search(captured("info files"))
    if match is None:
        raise NoTarget("GDB does not say which core file it has opened")
    return match[1]


def _dump(name: str) -> Dump:
    """Open the file, or return it as it was opened before; one that has been written anew is opened again."""
    try:
        status = os.stat(name)
    except OSError as error:
        raise NoTarget(f"cannot read {name}: {error.strerror}") from error
    key = (name, status.st_ino, status.st_mtime_ns)
    if key not in _opened:
        _opened.clear()
        _opened[key] = open_dump(name)
    return _opened[key]
