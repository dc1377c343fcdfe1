"""A Debian kernel as KVM host: its own tables and a guest's, by each way, and the neighbours on the same stop."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.live import IN_GDB, Live, asked, attached, dumped, files_of
from bench.measure import MS, Row
from bench.starting import gdbs
from kvm.debugger import Debugger
from kvm.rig import NVHE, Rig, boot, build_initramfs
from support.gdb_session import CommandError, GdbSession
from support.stub_proxy import proxy

OPTIONS = "rig.vms=2 rig.spin=1000000 rig.mmio-lines=0"
HOST, GUEST = "hyp-map --regime EL1 --stage1", "hyp-map --stage2"


@dataclass(frozen=True)
class Neighbour:
    """Another tool: what is sourced of a folder, what shows the host's whole stage 1, and what makes it forget that."""

    name: str
    file: str
    command: str
    forget: str = "pass"


NEIGHBOURS = (
    Neighbour("GEF", "gef.py", "pagewalk -q", "Cache.reset_gef_caches(all=True)"),
    Neighbour("gdb-pt-dump", "gdb-pt-dump/pt.py", "pt"),
    Neighbour(
        "pwndbg", "pwndbg/gdbinit.py", "vmmap", "import pwndbg.lib.cache; pwndbg.lib.cache.clear_caches()"
    ),
)


def rig(folder: Path, rounds: int, neighbours: Path | None) -> Iterator[Row]:
    """Measure the host's stage 1, both ranges, of a machine of 1 GiB, and the stage 2 of a guest that is loaded."""
    place = folder / "rig"
    place.mkdir()
    ram = ["-object", f"memory-backend-file,id=ram,size=1G,share=on,mem-path={place / 'ram'}"]
    more = ["-m", "1024", *ram, "-machine", "memory-backend=ram"]
    with boot(place, NVHE, build_initramfs(place), OPTIONS, more=more) as running:
        yield from _questions(running, place, "guest's stage 2", GUEST, Debugger.stop_in_guest, None, rounds)
        yield from _questions(
            running, place, "host's stage 1 of 1 GiB", HOST, Debugger.stop_in_host, 250.0, rounds
        )
        for tool in NEIGHBOURS if neighbours is not None else ():
            if neighbours is not None and (neighbours / tool.file).exists():
                yield from _neighbour(place, running, tool, neighbours / tool.file, rounds)


def _questions(
    running: Rig,
    place: Path,
    name: str,
    command: str,
    stop: Callable[[Debugger], None],
    wanted: float | None,
    rounds: int,
) -> Iterator[Row]:
    """Count what a command asks, and measure it, at one stop; GDB leaves the machine where it is in between."""
    program = gdbs()[0][1]
    with (
        proxy(place / f"{stop.__name__}.sock", running.machine.gdb) as line,
        attached(program, place / "counted", line.path) as session,
    ):
        debugger = Debugger(session, running)
        stop(debugger)
        cpu = debugger.cpu
        costs = asked(session, line, command)
        rows = session.run(command).count(chr(10))
        session.run("disconnect")
    with attached(program, place / "direct", running.machine.gdb) as session:
        session.run(f"thread {cpu + 1}")
        bench = Live(session, files_of(session, running.machine, place / "ram"), rounds)
        title = f"{name}, {rows} lines"
        assert session.run(command).count(chr(10)) == rows, "the machine did not stand still"
        yield bench.by_stub(f"{title}, by stub", command, costs, wanted)
        yield from bench.past_the_stub(title, command, costs, 80.0 if wanted else None)
        file = place / f"{stop.__name__}.core"
        yield dumped(session, title, command, costs, file, rounds, "--tables-only")
        session.run("disconnect")


def _neighbour(place: Path, running: Rig, tool: Neighbour, file: Path, rounds: int) -> Iterator[Row]:
    """Measure how long another tool takes to be loaded, and to show the host's stage 1 at the stop that is left."""
    with GdbSession(gdbs()[0][1], place) as session:
        session.run("set architecture aarch64")
        session.run(f"python exec({IN_GDB!r})")
        # The tools look for their own files beside this, which is the driver's where a driver sources them.
        session.run(f"python __file__ = {str(file)!r}")
        try:
            (loading,) = session.python(f"timed('source {file}', 1, False)")
            session.run(f"target remote {running.machine.gdb}")
            times = []
            for _ in range(rounds):
                session.run(f"python {tool.forget}")
                times += session.python(f"timed({tool.command!r}, 1, True)")
            session.run("disconnect")
        except (CommandError, AssertionError, RuntimeError) as error:
            yield Row(f"{tool.name} failed: {str(error)[:200]}", 0, MS)
            return
    yield Row(f"{tool.name}: loading", loading, MS)
    yield Row(f"{tool.name}: host's stage 1", statistics.median(times), MS, least=min(times))
