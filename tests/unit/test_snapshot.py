"""Snapshots: what is in the file, and that there is none under its name unless all of it is."""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from unit.cores import core, prstatus

from gdbhyp.analyses import snapshot, trees
from gdbhyp.analyses.snapshot import SnapshotReport
from gdbhyp.arch.spaces import Word
from gdbhyp.cli.main import main
from gdbhyp.engine.machine import Machine
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import BadInput, GdbhypError, MemoryUnavailable
from gdbhyp.hypervisors.vms import HostStage2, VmSearch
from gdbhyp.targets.corefile import Mapped, write_core
from gdbhyp.targets.dump import open_dump
from gdbhyp.targets.flat import FlatMemory, Segment

BASE = 0x4000_0000
VTCR = 0x8002_3558
REGISTERS = {
    "HCR_EL2": 1 << 31 | 1,
    "VTTBR_EL2": 5 << 48 | BASE,
    "VTCR_EL2": VTCR,
    "CPSR": 0x3C9,
    "PC": 0x1234,
}


def memory() -> bytes:
    """Stage-2 tables in three pages, a page of their own, and pages that nobody asks for."""
    found = bytearray(0x10000)
    struct.pack_into("<Q", found, 8 * 2, BASE + 0x2000 | 3)
    struct.pack_into("<Q", found, 0x2000, 0x9000_07FD)
    found[0x8000:0x8004] = b"data"
    return bytes(found)


def quiet(what: str, done: int, total: int) -> None:
    assert 0 <= done <= total


def machine(registers: Mapping[str, int] = REGISTERS) -> Stop:
    """Return a stop of two CPUs; the second is elsewhere and has a register more."""

    def stop(cpu: int) -> Stop:
        own = {**registers, "PC": 0x1234 + 8 * cpu, **({"TPIDR_EL2": 7} if cpu else {})}
        return Stop(
            Machine(own, FlatMemory([Segment(BASE, memory())])),
            cpu=cpu,
            count_cpus=lambda: 2,
            symbol={0x1234: "start", 0x123C: "start+8"}.get,
            others=lambda: [stop(1 - cpu)],
            ram=lambda: ((BASE, BASE + 0x10000), (0x8000_0000, 0x8000_1000)),
            every_register=lambda: own,
            versions=lambda: {"QEMU": "7.2"},
        )

    return stop(0)


def take(stop: Stop, path: Path, **options: object) -> SnapshotReport:
    return snapshot.take(stop, path, quiet, **options)  # type: ignore[arg-type]


def test_everything(tmp_path: Path) -> None:
    path = tmp_path / "snapshot"
    report = take(replace(machine(), ram=lambda: ((BASE, BASE + 0x10000),)), path)
    assert (report.contents, report.memory, report.ram, report.unread) == ("all", 0x10000, 0x10000, ())
    assert report.size == path.stat().st_size
    assert path.stat().st_mode & 0o777 == 0o600
    dump = open_dump(str(path))
    assert dump.memory.read(BASE, 0x10000) == memory()
    stop = dump.stop()
    assert [(cpu.cpu, cpu.register("PC"), cpu.optional("TPIDR_EL2")) for cpu in stop.cpus()] == [
        (0, 0x1234, None),
        (1, 0x123C, 7),
    ]
    assert [stop.symbol(at) for at in (0x1234, 0x123C, 0x1240)] == ["start", "start+8", None]
    assert stop.versions() == {"QEMU": "7.2"}


def test_pages_of_zeros_take_no_room(tmp_path: Path) -> None:
    path = tmp_path / "snapshot"
    large = replace(
        machine(),
        machine=Machine(
            REGISTERS, FlatMemory([Segment(BASE, memory()), Segment(0x8000_0000, bytes(1 << 24))])
        ),
        ram=lambda: ((BASE, BASE + 0x10000), (0x8000_0000, 0x8100_0000)),
    )
    take(large, path)
    assert path.stat().st_size > 1 << 24
    assert path.stat().st_blocks * 512 < 1 << 20
    assert open_dump(str(path)).memory.read(0x80FF_FFF8, 8) == bytes(8)


def test_tables_only(tmp_path: Path) -> None:
    """What the tables need is there, what nobody asked for is refused, and a hole of the machine is one."""
    path = tmp_path / "snapshot"
    report = take(machine(), path, tables_only=True)
    assert report.memory == 0x3000
    found = open_dump(str(path)).memory
    assert found.read(BASE + 0x2000, 8) == memory()[0x2000:0x2008]
    for address, unsaved, reason in (
        (BASE + 0x8000, True, "left out of the snapshot"),
        (0x7000_0000, False, "the machine has no memory there"),
    ):
        with pytest.raises(MemoryUnavailable, match=reason) as caught:
            found.read(address, 4)
        assert caught.value.unsaved == unsaved


def test_tables_that_no_cpu_has_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While every CPU runs a guest, pKVM's host stage 2 is known by the hypervisor's own data alone."""
    host = HostStage2(Word(BASE), Word(VTCR), "in the hypervisor's own data")
    monkeypatch.setattr(trees, "find_vms", lambda stop: VmSearch((), (), "Linux", host))
    path = tmp_path / "snapshot"
    take(machine({**REGISTERS, "VTTBR_EL2": 0, "ID_AA64MMFR0_EL1": 5}), path, tables_only=True)
    assert open_dump(str(path)).memory.read(BASE + 0x2000, 8) == memory()[0x2000:0x2008]


def test_ranges(tmp_path: Path) -> None:
    path = tmp_path / "snapshot"
    take(machine(), path, ranges=[(BASE + 0x8000, BASE + 0x9000), (0, BASE + 8)])
    assert open_dump(str(path)).ranges == ((BASE, BASE + 8), (BASE + 0x8000, BASE + 0x9000))
    with pytest.raises(BadInput, match="none of these ranges is memory"):
        take(machine(), path, ranges=[(0, 8)])


def test_unreadable_memory_is_said(tmp_path: Path) -> None:
    path = tmp_path / "snapshot"
    report = take(machine(), path)
    assert [(gap.start, gap.end) for gap in report.unread] == [(0x8000_0000, 0x8000_1000)]
    assert "none of the given files" in report.unread[0].reason


def test_a_target_without_a_memory_map(tmp_path: Path) -> None:
    """What is to be written has to be said; outside of it, nothing is known to be memory."""
    path = tmp_path / "snapshot"
    unknown = replace(machine(), ram=lambda: ())
    with pytest.raises(GdbhypError, match="does not say where the machine has memory: say with --range"):
        take(unknown, path)
    take(unknown, path, ranges=[(BASE, BASE + 0x4000)])
    assert open_dump(str(path)).stop().ram() == ((BASE, BASE + 0x4000),)


class Ending:
    """Memory that ends a snapshot in its middle, by ``error``."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def read(self, address: int, size: int, /) -> bytes:
        if address >= BASE + 0x2_0000:
            raise self.error
        return b"x" * size


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), OSError(28, "No space left on device"), ZeroDivisionError()]
)
def test_no_half_file(error: BaseException, tmp_path: Path) -> None:
    """Whatever ends it, the file that was there before is there, and nothing else."""
    path = tmp_path / "snapshot"
    path.write_text("older")
    expected = GdbhypError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected) as caught:
        write_core(path, Ending(error), [(BASE, BASE + 0x10_0000)], lambda: b"", [], lambda done, total: None)
    assert path.read_text() == "older"
    assert [entry.name for entry in tmp_path.iterdir()] == ["snapshot"]
    if isinstance(error, OSError):
        assert "No space left on device; it can take 1,048,576 bytes, and " in str(caught.value)


def test_a_full_disk(tmp_path: Path) -> None:
    """A real refusal of the system: files may not grow beyond 64 KiB."""
    image = tmp_path / "ram"
    image.write_bytes(b"x" * (1 << 20))
    command = [
        sys.executable,
        "-m",
        "gdbhyp.cli.main",
        "snapshot",
        f"{image}@{BASE:#x}",
        str(tmp_path / "out"),
        "--range",
        f"{BASE:#x}+0x100000",
    ]
    ran = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16)),
    )
    assert ran.returncode == 1, ran.stderr
    assert "cannot write" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    assert sorted(os.listdir(tmp_path)) == ["ram"]


@pytest.mark.parametrize(
    ("name", "status", "sentence"),
    [
        ("nowhere/snapshot", 1, "No such file or directory"),
        (".", 2, "is a folder: say the name of a file"),
    ],
)
def test_bad_names(
    name: str, status: int, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dump = core(tmp_path / "core", {BASE: memory()}, prstatus(1, 2, 3, 0x3C5))
    assert main(["snapshot", dump, str(tmp_path / name)]) == status
    assert sentence in capsys.readouterr().err


def test_a_dump_becomes_a_snapshot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the registers that were given, and none that were not."""
    dump = core(tmp_path / "core", {BASE: memory()}, prstatus(1, 2, 3, 0x3C5))
    words = [f"--reg={name}={value:#x}" for name, value in REGISTERS.items() if name.endswith("EL2")]
    path = tmp_path / "snapshot"
    assert main(["snapshot", dump, str(path), "--tables-only", *words]) == 0
    capsys.readouterr()
    registers = open_dump(str(path)).cpus[0]
    assert {name: registers[name] for name in ("HCR_EL2", "X0", "PC")} == {
        "HCR_EL2": 1 << 31 | 1,
        "X0": 1,
        "PC": 2,
    }
    assert not any(name.startswith("ID_") for name in registers)
    assert main(["map", str(path), "--stage2", "--json"]) == 0
    assert '"pa": "0x90000000"' in capsys.readouterr().out


def test_more_segments_than_a_header_can_count(tmp_path: Path) -> None:
    """Every other page of a large machine: readelf, and our reader, find the number in the first section header."""
    count = 70_000
    path = tmp_path / "snapshot"
    ranges = [(BASE + n * 0x2000, BASE + n * 0x2000 + 8) for n in range(count)]

    class Numbers:
        def read(self, address: int, size: int, /) -> bytes:
            return struct.pack("<Q", address)[:size]

    write_core(path, Numbers(), ranges, lambda: prstatus(1, 2, 3, 4), [], lambda done, total: None)
    dump = open_dump(str(path))
    assert len(dump.ranges) == count
    last = BASE + (count - 1) * 0x2000
    assert dump.memory.read(last, 8) == struct.pack("<Q", last)
    ran = subprocess.run(["readelf", "-hW", str(path)], capture_output=True, text=True, check=False)
    assert f"65535 ({count + 1})" in ran.stdout


def test_views(tmp_path: Path) -> None:
    """A debugger's virtual addresses are segments over the same bytes, and change nothing for physical ones."""
    path = tmp_path / "snapshot"
    source = FlatMemory([Segment(BASE, memory())])
    views = [Mapped(0xFFFF_8000_0000_0000, BASE + 0x1000, 0x2000), Mapped(0x1000, 0x9000_0000, 0x1000)]
    write_core(path, source, [(BASE, BASE + 0x10000)], lambda: b"", views, lambda done, total: None)
    assert open_dump(str(path)).memory.read(BASE, 0x10000) == memory()
    contents = path.read_bytes()
    (at,) = struct.unpack_from("<Q", contents, 32)
    (count,) = struct.unpack_from("<H", contents, 56)
    headers = [struct.unpack_from("<IIQQQQQQ", contents, at + 56 * n) for n in range(count)]
    offset, va, pa, size = next(h[2:6] for h in headers if h[3] == 0xFFFF_8000_0000_0000)
    assert (va, pa, size) == (0xFFFF_8000_0000_0000, BASE + 0x1000, 0x2000)
    assert contents[offset : offset + size] == memory()[0x1000:0x3000]


def test_vmcoreinfo(tmp_path: Path) -> None:
    """The host's, told from a guest's by the table that a CPU has loaded."""

    def info(root: int) -> bytes:
        lines = (
            b"OSRELEASE=6.1",
            b"PAGESIZE=4096",
            b"SYMBOL(swapper_pg_dir)=%x" % (root + (1 << 40)),
            b"NUMBER(kimage_voffset)=0x%x" % (1 << 40),
            b"NUMBER(VA_BITS)=48",
        )
        return b"\n".join(lines) + b"\n"

    contents = bytearray(memory())
    for at, root in ((0xA000, 0x5000_0000), (0xC000, BASE + 0x3000), (0xE010, BASE + 0x3000)):
        text = info(root)
        contents[at : at + len(text)] = text
    stop = machine({**REGISTERS, "TTBR1_EL1": 1 << 48 | BASE + 0x3000 | 1})
    stop = replace(
        stop,
        machine=Machine(stop.machine.registers, FlatMemory([Segment(BASE, bytes(contents))])),
        ram=lambda: ((BASE, BASE + 0x10000),),
    )
    path = tmp_path / "snapshot"
    take(stop, path)
    found = open_dump(str(path)).vmcoreinfo
    assert found is not None
    assert int(found["SYMBOL(swapper_pg_dir)"], 16) == BASE + 0x3000 + (1 << 40)
    take(replace(stop, machine=Machine(REGISTERS, stop.machine.memory), others=lambda: ()), path)
    assert open_dump(str(path)).vmcoreinfo is None, "which of the two is the host's is not clear"


def test_a_device_is_not_replaced(tmp_path: Path) -> None:
    """As root, a file could take the place of /dev/null."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(GdbhypError, match="no regular file"):
        write_core(pipe, FlatMemory([]), (), lambda: b"", (), lambda done, total: None)
    assert pipe.is_fifo()
