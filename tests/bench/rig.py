"""A Debian kernel as KVM host: its own tables and a guest's, by each way, and the neighbours on the same stop."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

from bench.live import IN_GDB, attached
from bench.measure import MS, Row
from bench.starting import gdbs
from kvm.debugger import Debugger
from kvm.rig import NVHE, boot, build_initramfs
from support.gdb_session import CommandError, GdbSession

OPTIONS = "rig.vms=2 rig.spin=1000000 rig.mmio-lines=0"
NEIGHBOURS = (
    ("GEF", "gef.py", "pagewalk"),
    ("gdb-pt-dump", "gdb-pt-dump/pt.py", "pt"),
    ("pwndbg", "pwndbg/gdbinit.py", "vmmap"),
)


def rig(folder: Path, rounds: int, neighbours: Path | None) -> Iterator[Row]:
    """Measure the host's stage 1, both ranges, of a machine of 1 GiB, and the stage 2 of a guest that is loaded."""
    place = folder / "rig"
    place.mkdir()
    ram = ["-object", f"memory-backend-file,id=ram,size=1G,share=on,mem-path={place / 'ram'}"]
    more = ["-m", "1024", *ram, "-machine", "memory-backend=ram"]
    program = gdbs()[0][1]
    with boot(place, NVHE, build_initramfs(place), OPTIONS, more=more) as running:
        with attached(program, place / "direct", running.machine.gdb) as session:
            debugger = Debugger(session, running)
            debugger.stop_in_host()
            yield from _host(session, max(5, rounds // 3))
            debugger.stop_in_guest()
            yield from _by_each_way(session, "guest's stage 2", "hyp-map --stage2", 5)
            debugger.stop_in_host()
            session.run("detach")
        if neighbours is not None:
            for tool, file, command in NEIGHBOURS:
                if (neighbours / file).exists():
                    yield _neighbour(program, place, running.machine.gdb, tool, neighbours / file, command)


def _host(session: GdbSession, rounds: int) -> Iterator[Row]:
    command = "hyp-map --regime EL1 --stage1"
    yield from _by_each_way(session, "host's stage 1 of 1 GiB", command, rounds)


def _by_each_way(session: GdbSession, name: str, command: str, rounds: int) -> Iterator[Row]:
    session.run(f"python exec({IN_GDB!r})")
    wanted = {"stub": 250.0, "qemu-pread": 80.0, "ram-file": 80.0}
    for way, limit in wanted.items():
        session.run(f"set hyp memory {way}")
        rows = session.run(command).count(chr(10))
        times = session.python(f"timed({command!r}, {rounds}, True)")
        yield Row(f"{name}, {rows} lines, by {way}", statistics.median(times), MS, limit, least=min(times))


def _neighbour(program: str, place: Path, path: Path, tool: str, file: Path, command: str) -> Row:
    with GdbSession(program, place) as session:
        session.run("set architecture aarch64")
        session.run(f"python exec({IN_GDB!r})")
        loading = session.python(f"timed('source {file}', 1, False)")
        session.run(f"target remote {path}")
        try:
            times = session.python(f"timed({command!r}, 5, True)")
        except CommandError as error:
            return Row(f"{tool}: {command} failed: {str(error)[:60]}", loading[0], MS)
        finally:
            session.run("detach")
        return Row(f"{tool}: {command} (floor: loading it)", statistics.median(times), MS, floor=loading[0])
