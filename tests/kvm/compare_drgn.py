"""drgn, which shares no code with gdbhyp, reads the same bytes and walks the kernel's addresses to the same ones."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from support import tools

from gdbhyp import api
from gdbhyp.engine.stop import Stop
from gdbhyp.hypervisors.linux.roots import from_vmcoreinfo
from gdbhyp.targets.dump import Dump


def same_as_drgn(dump: Dump, path: Path) -> None:
    """Compare physical memory, and the virtual memory of the kernel's own tables; the dump has a VMCOREINFO note."""
    try:
        import drgn
    except ImportError:
        tools.missing("drgn (the extra 'test')")
    program = drgn.Program()
    program.set_core_dump(str(path))
    chance = random.Random(7)
    start, end = dump.ranges[-1]
    for _ in range(300):
        address, size = chance.randrange(start, end - 256), chance.randrange(1, 256)
        assert program.read(address, size, physical=True) == dump.memory.read(address, size)
    _same_kernel(program, dump, chance)


def _same_kernel(program: Any, dump: Dump, chance: random.Random) -> None:
    # By VMCOREINFO alone, as drgn: with a guest's registers, its stage 2 would be in force.
    stop = replace(dump, cpus=(), selected=0).stop()
    roots = from_vmcoreinfo(dump.vmcoreinfo)
    assert roots is not None
    mapped = api.map_tables(stop, stages="1", regime=api.Regime.EL10, ttbr1=roots.ttbr1, tcr=roots.tcr).rows
    rows = [row for row in mapped if _is_memory(stop, row.pa, row.end - row.start)]
    assert len(rows) > 20
    for row in [*rows[:20], *chance.sample(rows, min(200, len(rows)))]:
        offset = chance.randrange(0, row.end - row.start - 8)
        expected = dump.memory.read(row.pa + offset, 8)
        assert program.read(row.start + offset, 8) == expected, hex(row.start)


def _is_memory(stop: Stop, pa: int, size: int) -> bool:
    return any(start <= pa and pa + size <= end for start, end in stop.ram())
