"""What a debugger must leave as it was: seen from outside, as far as there is another way than the debugger's own.

Memory is read from QEMU's process and registers are told by QEMU's monitor; besides, the stub is asked for each
register by a packet. A ``Witness`` returns all of it as a dictionary, and ``changes`` what tells two of them apart.
"""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from support import qemu, tools
from support.gdb_session import GdbSession

State = dict[str, Any]

INSIDE = tools.ROOT / "tests" / "support" / "gdb_witness.py"
_PIECE = 1 << 20
_RAM = re.compile(r"^ +([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?\d+, ram\)", re.MULTILINE)


class Witness:
    """Sees one machine and the GDB at it. ``folder`` is where both make their files, ``work`` where lines may write.

    :param work: is left out of the files that are seen.
    """

    def __init__(self, session: GdbSession, machine: qemu.Machine, folder: Path, work: Path) -> None:
        self.session = session
        self.machine = machine
        self._work = work
        self._folder = folder
        self._blocks = [*_blocks(machine)]
        session.run(f"source {INSIDE}")

    def quick(self) -> State:
        """Return what costs little: the stub's mode, what is selected, and what the monitor speaks of."""
        return {
            "mode": self.session.python("packet('qqemu.PhyMemMode')"),
            "selected": self.session.python("selected()"),
            "monitor's CPU": self.session.run("monitor info cpus"),
            "running": self.machine.command("info status"),
        }

    def debugger(self) -> State:
        """Return what GDB and the two processes hold."""
        return {
            **debugger(self.session),
            "QEMU's files": _open_files(self.machine.process.pid),
            "files": self._files(),
        }

    def cpus(self) -> State:
        """Return all registers of all CPUs, as QEMU's monitor and as the stub tell them."""
        return {
            "registers by the stub": self.session.python("stub_registers()"),
            "registers by the monitor": self.machine.command("info registers -a").splitlines(),
        }

    def memory(self) -> State:
        """Return a checksum of each MiB of RAM."""
        return {"memory": memory_digest(self.machine.process.pid, self._blocks)}

    def everything(self, *, memory: bool = True) -> State:
        """Return all of it, or all but memory."""
        return {
            **self.cpus(),
            **(self.memory() if memory else {}),
            **self.debugger(),
            **self.quick(),
        }

    def _files(self) -> list[str]:
        return sorted(
            str(path) for path in self._folder.rglob("*") if self._work not in (path, *path.parents)
        )


def debugger(session: GdbSession) -> State:
    """Return what a GDB holds into which gdb_witness.py was sourced."""
    return {
        # First, for "show" shows the last breakpoint's address, which this leaves in $_.
        "breakpoints": _breakpoints(session),
        **_settings(session),
        "displays": session.run("info display"),
        "symbol files": session.python("symbol_files()"),
        "Python": session.python("python_state()"),
        "GDB's files": _open_files(session.pid),
    }


def changes(before: Mapping[str, Any], after: Mapping[str, Any], allowed: Iterable[str] = ()) -> State:
    """Return what is not the same in both, by its key; of long lists only the entries that differ."""
    return {
        key: _difference(before[key], value)
        for key, value in after.items()
        if value != before[key] and key not in allowed
    }


def _difference(before: Any, after: Any) -> Any:
    if isinstance(before, list) and isinstance(after, list):
        if len(before) == len(after):
            return [_difference(*pair) for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
        return {"gone": [e for e in before if e not in after], "new": [e for e in after if e not in before]}
    if isinstance(before, dict):
        return {hex(k): (v, after.get(k)) for k, v in before.items() if after.get(k) != v}
    return before, after


def _blocks(machine: qemu.Machine) -> list[tuple[int, int, int]]:
    """Return each block of RAM as (PA, size, where it lies in QEMU's process)."""
    views = machine.command("info mtree -f").split("FlatView")[1:]
    view = next(view for view in views if re.search(r'AS "(?:cpu-)?memory(?:-0)?"', view))
    found = []
    for first, last in sorted({(int(m[1], 16), int(m[2], 16)) for m in _RAM.finditer(view)}):
        told = re.search(r"is (0x[0-9a-f]+)", machine.command(f"gpa2hva {first:#x}"))
        assert told, f"QEMU does not say where {first:#x} lies"
        found.append((first, last + 1 - first, int(told[1], 16)))
    assert found
    return found


def memory_digest(process: int, blocks: Iterable[tuple[int, int, int]]) -> dict[int, int]:
    """Return a checksum of each MiB of a process's memory, by its PA; what was never touched reads as zeros."""
    sums = {}
    with Path(f"/proc/{process}/mem").open("rb", buffering=0) as memory:
        for start, size, at in blocks:
            for offset in range(0, size, _PIECE):
                data = os.pread(memory.fileno(), min(_PIECE, size - offset), at + offset)
                sums[start + offset] = zlib.crc32(data)
    return sums


_OWN = ("$hyp_last_", "$_gdbhyp_nothing")
"""The convenience variables that gdbhyp documents."""


_IDLE = re.compile(r"^-\d+ .* keep n .*\n(?:-\d+\.\d+ .*\n)*", re.MULTILINE)


def _breakpoints(session: GdbSession) -> list[str]:
    """Return all breakpoints, hidden ones too.

    Hidden ones that are switched off are left out: GDB may delete them only when its event loop turns, which it does
    not do while it is driven by a script.
    """
    listed = _IDLE.sub("", session.run("maintenance info breakpoints")).splitlines()
    return [line for line in listed if not line.startswith(("Num ", "No breakpoints"))]


_COUNTERS = ("$bpnum ", "$_ ", "$__ ")
"""Those by which GDB says which breakpoint was made last, and which address was shown last."""


def _settings(session: GdbSession) -> dict[str, list[str]]:
    """Return every setting of GDB that ``show`` tells, and the convenience variables but our own."""
    shown = [line.removeprefix("convenience:  ") for line in session.run("show").splitlines()]
    return {
        "settings": [line for line in shown if not line.startswith((*_OWN, *_COUNTERS))],
        "counters": [line for line in shown if line.startswith(_COUNTERS)],
    }


_GIVEN_UP = re.compile(r"/gdbhyp-trace-\w+/int\.log \(deleted\)$")


def _open_files(process: int) -> list[str]:
    """Return what a process has open.

    A log that was removed does not count: a QEMU without -D whose stderr is a file cannot be told to log there again
    without emptying that, and keeps the file of the last recording, where it logs nothing.
    """
    links = []
    for number in os.listdir(f"/proc/{process}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            links.append(os.readlink(f"/proc/{process}/fd/{number}"))
    # A connection that was made again has another number.
    return sorted(
        re.sub(r"^(socket|pipe):\[\d+\]$", r"\1", link) for link in links if not _GIVEN_UP.search(link)
    )
