"""QEMU's own dumps of a rig: with the live CPU's system registers, they answer as it does; drgn reads the same."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from support import tools

from gdbhyp.engine.machine import Reader
from gdbhyp.engine.stop import Stop
from gdbhyp.hypervisors.linux.roots import kernel_roots
from gdbhyp.targets import notes
from gdbhyp.targets.corefile import write_core
from gdbhyp.targets.dump import Dump, open_dump
from kvm.debugger import Debugger
from kvm.rig import NVHE, VHE_6_12
from kvm.test_snapshot import live_answers, offline_answer

# QEMU's options, and what it says where it was built without the library.
FORMS = {"ELF": "", "zlib": "-z", "LZO": "-l", "snappy": "-s"}
_ABSENT = "is not available now"


def _dumps(debugger: Debugger, folder: Path) -> dict[str, Path]:
    """Dump the rig in every form that this QEMU can write; ELF and zlib are never missing."""
    found = {}
    for form, option in FORMS.items():
        path = folder / form
        said = debugger.rig.machine.command(f"dump-guest-memory {option} {path}")
        if _ABSENT not in said:
            assert path.exists(), said
            found[form] = path
    assert {"ELF", "zlib"} <= set(found)
    return found


def test_same_answers(hyp: Debugger, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A dump has memory and X0 to PSTATE; the rest is given as a file of registers, here from a snapshot."""
    if hyp.rig.target not in (NVHE, VHE_6_12):
        return
    hyp.stop_in_guest()
    hyp.session.run(f"hyp-snapshot {tmp_path / 'snapshot'} --tables-only")
    expected = live_answers(hyp)
    taken = open_dump(str(tmp_path / "snapshot"))
    registers = tmp_path / "registers.json"
    registers.write_text(json.dumps({name: hex(value) for name, value in taken.cpus[hyp.cpu].items()}))
    for form, path in _dumps(hyp, tmp_path).items():
        options = ("--cpu", str(hyp.cpu), "--registers", str(registers))
        for question, answer in expected.items():
            if question == "status":
                continue
            assert offline_answer(question, path, capsys, *options) == answer, f"{question} of {form}"
        _same_cpus(open_dump(str(path)), taken)
        _same_status(
            json.loads(offline_answer("status", path, capsys, *options)), json.loads(expected["status"])
        )
    _same_as_drgn(hyp, open_dump(str(tmp_path / "ELF")), tmp_path)


def _same_cpus(dump: Dump, taken: Dump) -> None:
    """The notes of each CPU say what the stub says; the upper half of PSTATE is not in the stub's cpsr."""
    for own, live in zip(dump.cpus, taken.cpus, strict=True):
        assert {name: own[name] for name in own} == {name: live[name] for name in own}


def _same_status(own: dict[str, Any], live: dict[str, Any]) -> None:
    """All but what needs symbols, which a dump of QEMU's has none of."""
    symbols = ("symbol", "exception_from_symbol")
    assert {k: v for k, v in own.items() if k not in symbols} == {
        k: v for k, v in live.items() if k not in symbols
    }


def _same_as_drgn(debugger: Debugger, dump: Dump, folder: Path) -> None:
    """drgn reads the same physical bytes, and walks the kernel's addresses to the same ones.

    It takes a core for a kernel's by VMCOREINFO, which is in memory and which QEMU writes only where the guest tells
    it; so a core with such a note is written here, which is a test of the writer, too.
    """
    try:
        import drgn
    except ImportError:
        tools.missing("drgn (the extra 'test')")
    stop = dump.stop(debugger.cpu)
    info = _vmcoreinfo(dump.memory)
    assert info is not None
    own = [notes.prstatus(number, cpu) for number, cpu in enumerate(dump.cpus)]
    path = folder / "with-vmcoreinfo"
    content = b"".join([*own, notes.note("VMCOREINFO", 0, info)])
    write_core(path, dump.memory, dump.ranges, content, [], lambda done, total: None)
    program = drgn.Program()
    program.set_core_dump(str(path))
    chance = random.Random(7)
    (start, end), *_ = dump.ranges
    for _ in range(300):
        address, size = chance.randrange(start, end - 256), chance.randrange(1, 256)
        assert program.read(address, size, physical=True) == dump.memory.read(address, size)
    _same_kernel(program, open_dump(str(path)), chance)
    # What VMCOREINFO says is what the kernel in memory says.
    said, found = kernel_roots(open_dump(str(path)).stop()), kernel_roots(stop)
    assert said.ttbr1 == found.ttbr1 & (1 << 48) - 2
    assert said.tcr >> 16 & 63 == found.tcr >> 16 & 63


def _same_kernel(program: Any, dump: Dump, chance: random.Random) -> None:
    from gdbhyp import api

    stop = dump.stop()
    roots = kernel_roots(stop)
    rows = [
        row
        for row in api.map_tables(
            stop, stages="1", regime=api.Regime.EL10, ttbr1=roots.ttbr1, tcr=roots.tcr
        ).rows
        if _is_memory(stop, row.pa, row.end - row.start)
    ]
    assert len(rows) > 20
    for row in [*rows[:20], *chance.sample(rows, min(200, len(rows)))]:
        offset = chance.randrange(0, row.end - row.start - 8)
        expected = dump.memory.read(row.pa + offset, 8)
        assert program.read(row.start + offset, 8) == expected, hex(row.start)


def _is_memory(stop: Stop, pa: int, size: int) -> bool:
    return any(start <= pa and pa + size <= end for start, end in stop.ram())


def _vmcoreinfo(memory: Reader) -> bytes | None:
    """Find the page in which the kernel keeps its VMCOREINFO."""
    for at in range(0x4000_0000, 0x6000_0000, 1 << 20):
        data = memory.read(at, 1 << 20)
        found = data.find(b"OSRELEASE=")
        while found >= 0:
            page = data[found : found + 4096]
            if found % 4096 == 0 and b"\nSYMBOL(swapper_pg_dir)=" in page:
                return page.rstrip(b"\0")
            found = data.find(b"OSRELEASE=", found + 1)
    return None
