"""What recording world switches costs a real KVM host, and how fast the recordings are read.

The cost of recording is the processor time that QEMU needs for the same work: so many rounds of the rig's two guests,
which exit as fast as they can, on a machine whose clock counts instructions (``-icount``). So the guests do the same
with and without, and other work on this machine counts little. Rates are taken on a machine with a clock of its own,
and the counts of a machine's whole life are compared with the kernel's own.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.measure import RATE, Row
from kvm.rig import NVHE, Rig, boot, build_initramfs
from support import tools
from support.gdb_session import GdbSession

from gdbhyp.trace.files import open_trace
from gdbhyp.trace.qemu_log import QemuLogParser
from gdbhyp.trace.statistics import Statistics
from gdbhyp.trace.tcg_build import build
from gdbhyp.trace.tcg_ring import Choice, Ring

_BUSY = "rig.vms=2 rig.spin=0 rig.wfi=0 rig.mmio-lines=1 rig.mmio-rate=1"
_PATIENCE = 300.0
_RUNS = 3
_COUNTED = ["-smp", "1", "-icount", "shift=2,sleep=off"]
_PLAIN_SECONDS = 10.0

PLAIN = """\
import time
import gdb
count = [0]
deadline = time.monotonic() + SECONDS
class Plain(gdb.Breakpoint):
    def stop(self):
        if time.monotonic() > deadline:
            # The stub does not hear a Ctrl-C while the machine stands, which it does most of the time.
            return True
        for name in ("ESR_EL2", "FAR_EL2", "HPFAR_EL2", "ELR_EL2", "VTTBR_EL2"):
            int(gdb.parse_and_eval("$" + name))
        count[0] += 1
        return False
"""


def processor_seconds(rig: Rig) -> float:
    """Return what QEMU's threads have used so far."""
    tasks = Path(f"/proc/{rig.machine.process.pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def cost(folder: Path, initramfs: Path, rounds: int, more: list[str]) -> float:
    """Return the least processor seconds of several runs for so many rounds."""
    spent = []
    for number in range(_RUNS):
        place = folder / str(number)
        with machine(place, initramfs, [*_COUNTED, *more], f"rig.rounds={rounds}") as rig:
            before = used = processor_seconds(rig)
            deadline = time.monotonic() + _PATIENCE
            while "RIG DONE" not in rig.text():
                used = processor_seconds(rig)
                if time.monotonic() > deadline:
                    raise RuntimeError(f"the rig stands\n{rig.tail()}")
                time.sleep(0.01)
            spent.append(used - before)
    return min(spent)


def costs(folder: Path, initramfs: Path, rounds: int) -> Iterator[Row]:
    """Compare machines that record with one that does not."""
    plugin = build(str(folder / "gdbhyp-trace.so")).path
    cases = {
        "bare": [],
        "plugin, not recording": ["-plugin", f"{plugin},records=1048576"],
        "plugin, recording": ["-plugin", f"{plugin},records=1048576,on=on"],
        "log": ["-d", "int", "-D", str(folder / "cost.log")],
    }
    seconds: dict[str, float] = {}
    for name, more in cases.items():
        place = folder / f"cost-{len(seconds)}"
        place.mkdir()
        seconds[name] = cost(place, initramfs, rounds, more)
    bare = seconds.pop("bare")
    yield Row(f"{rounds} rounds without recording", bare, "s of CPU")
    for name, value in seconds.items():
        yield Row(f"{name}: the same", 100 * (value / bare - 1), "% more", 10)


@contextmanager
def machine(folder: Path, initramfs: Path, more: list[str], options: str = "") -> Iterator[Rig]:
    folder.mkdir()
    with boot(folder, NVHE, initramfs, f"{_BUSY} {options}", program=tools.newest_qemu(), more=more) as rig:
        yield rig


def ring_of(rig: Rig) -> Ring:
    """Map the ring of a machine's plugin."""
    folder = Path(f"/proc/{rig.machine.process.pid}/fd")
    link = next(link for link in folder.iterdir() if "gdbhyp-trace" in os.readlink(link))
    with link.open("r+b") as file:
        return Ring(mmap.mmap(file.fileno(), 0), "the ring")


def by_plugin(folder: Path, initramfs: Path) -> Iterator[Row]:
    plugin = build(str(folder / "gdbhyp-trace.so")).path
    with machine(folder / "plugin", initramfs, ["-plugin", f"{plugin},records=1048576"]) as rig:
        ring = ring_of(rig)
        ring.switch_on(Choice(), os.getpid())
        began = time.monotonic()
        time.sleep(_PLAIN_SECONDS)
        ring.switch_off()
        seconds = time.monotonic() - began
        events = [event for batch in ring.read(final=True) for event in batch]
        yield Row("plugin: events recorded", len(events) / seconds, RATE)
        ring.position = max(0, ring.begun - ring.capacity)
        yield Row("plugin: records into statistics", records_per_second(ring), "/s of CPU", 300_000)


def records_per_second(ring: Ring) -> float:
    first = ring.position
    best = 0.0
    for _ in range(3):
        ring.position = first
        counted = Statistics("plugin")
        began = time.process_time()
        for batch in ring.read(final=True):
            counted.extend(batch)
        best = max(best, (ring.position - first) / (time.process_time() - began))
    return best


def by_log(folder: Path, initramfs: Path) -> Iterator[Row]:
    log = folder / "int.log"
    with machine(folder / "log", initramfs, ["-D", str(log)]) as rig:
        command = rig.machine.command
        size = log.stat().st_size
        command("log int")
        began = time.monotonic()
        time.sleep(_PLAIN_SECONDS)
        command("log none")
        seconds = time.monotonic() - began
        with log.open("rb") as file:
            file.seek(size)
            data = file.read()
    parser = QemuLogParser()
    events = parser.feed(data)
    lines = data.count(b"\n")
    best = 0.0
    for _ in range(3):
        counted = Statistics("log")
        again = QemuLogParser()
        start = time.process_time()
        for at in range(0, len(data), 1 << 20):
            counted.extend(again.feed(data[at : at + (1 << 20)]))
        best = max(best, lines / (time.process_time() - start))
    yield Row("log: events recorded", len(events) / seconds, RATE)
    yield Row("log: lines into statistics", best, "/s of CPU", 400_000)


def plain(folder: Path, initramfs: Path) -> float:
    """Return the exceptions a second that a breakpoint with a Python stop method sees."""
    script = folder / "plain.py"
    script.write_text(PLAIN.replace("SECONDS", str(_PLAIN_SECONDS)))
    with (
        machine(folder / "plain", initramfs, []) as rig,
        GdbSession(tools.gdb_multiarch(), folder) as session,
    ):
        session.run("set architecture aarch64")
        session.run(f"target remote {rig.machine.gdb}")
        session.run(f"source {script}")
        base = session.register("VBAR_EL2")
        session.run(f"python Plain('*{base + 0x400:#x}', type=gdb.BP_HARDWARE_BREAKPOINT)")
        began = time.monotonic()
        session.run("continue")
        return float(session.python("count[0]")) / (time.monotonic() - began)


def every_exit(folder: Path, initramfs: Path) -> Iterator[Row]:
    """Record a machine's whole life both ways, and compare with KVM's own counters."""
    plugin = build(str(folder / "gdbhyp-trace.so")).path
    ring, log = folder / "whole.ring", folder / "whole.log"
    more = ["-plugin", f"{plugin},ring={ring},on=on,records=1048576", "-d", "int", "-D", str(log)]
    with machine(folder / "whole", initramfs, more, "rig.seconds=4") as rig:
        rig.machine.process.wait(_PATIENCE)
        (kernel,) = rig.said("kernel")
    reports = []
    for path in (ring, log):
        file = open_trace(str(path))
        counted = Statistics(file.header.source)
        for batch in file.batches:
            counted.extend(batch)
        reports.append(counted.report())
    runs = next(row.count for row in reports[0].calls if row.world == "host")
    yield Row("exits by KVM's own counter", kernel["exits"], "")
    yield Row("plugin: exits more or less than that", abs(runs - kernel["exits"]), "", 0)
    difference = abs(reports[0].exceptions - reports[1].exceptions)
    yield Row("log: exceptions more or less than the plugin's", difference, "", 0)


def trace(folder: Path, rounds: int) -> Iterator[Row]:
    """Measure all of it; ``rounds`` of each guest are compared for what recording costs."""
    initramfs = build_initramfs(folder)
    yield from every_exit(folder, initramfs)
    yield from costs(folder, initramfs, rounds)
    rows = [*by_log(folder, initramfs), *by_plugin(folder, initramfs)]
    yield from rows
    slow = plain(folder, initramfs)
    yield Row("a breakpoint with a Python stop method: events", slow, RATE)
    for name in ("plugin", "log"):
        events = next(row.value for row in rows if row.name == f"{name}: events recorded")
        yield Row(f"{name}: times as many events", events / slow, "times", 150)
