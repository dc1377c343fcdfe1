#!/usr/bin/env python3
"""What gdbhyp costs, each beside its floor: the same reads with nothing done, a bare GDB, a bare Python.

    tests/bench/bench.py [--json FILE] [--compare OLD.json] [--quick]

A table is printed: the best of several rounds, what is wanted, the floor in the same run, and the ratio of the two.
The engine and Python processes are measured in processor time, what GDB and QEMU do together by the clock on the
wall; on a busy machine the ratios are what to compare. ``--json`` writes the numbers, ``--compare`` sets older ones
beside.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import socket
import struct
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:1] = [str(HERE.parent), str(HERE.parent.parent)]

from bench.engine import REGISTERS, Buffer, best, gibibyte  # noqa: E402
from support import qemu, tools  # noqa: E402
from support.demo import run_to  # noqa: E402
from support.gdb_session import GdbSession  # noqa: E402
from tabulate import tabulate  # noqa: E402

from gdbhyp.arch.syndrome import decode_esr  # noqa: E402
from gdbhyp.engine.machine import Machine  # noqa: E402
from gdbhyp.engine.translate import Regime  # noqa: E402
from gdbhyp.engine.walk import walker  # noqa: E402

GDBINIT = tools.ROOT / "gdbhyp" / "gdbinit.py"
BUILD = tools.ROOT / "qemu-scripts" / "demo-hypervisor" / "build"
MS, RATE = "ms", "/s"
GIB_TABLE = 0x4F00_0000
GIB_VTCR = 1 << 31 | 2 << 16 | 3 << 12 | 1 << 10 | 1 << 8 | 1 << 6 | 25


@dataclass(frozen=True)
class Row:
    """A measurement: milliseconds or a rate, what is wanted of it, and its floor.

    Over the wire went packets that read ``registers``, ``reads`` of physical memory, and ``other`` ones: three switch
    the stub to physical memory and back, and GDB itself looks at the code around the PC, as after every stop.
    ``traffic`` are the bytes both ways.
    """

    name: str
    value: float
    unit: str
    wanted: float | None = None
    floor: float | None = None
    registers: int | None = None
    reads: int | None = None
    other: int | None = None
    traffic: int | None = None

    @property
    def ratio(self) -> float | None:
        """How many times the floor it costs."""
        if not self.floor or not self.value:
            return None
        return self.value / self.floor if self.unit == MS else self.floor / self.value

    @property
    def missed(self) -> bool:
        if self.wanted is None:
            return False
        return self.value > self.wanted if self.unit == MS else self.value < self.wanted


def process_ms(command: Sequence[str], rounds: int, clock: Callable[[], float]) -> float:
    """Return the least time of a whole process, by ``clock``."""
    times = []
    for _ in range(rounds):
        start = clock()
        subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
        times.append((clock() - start) * 1e3)
    return min(times)


def processor_time() -> float:
    """Return the seconds that ended child processes have used: other work on the machine counts little."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def starting(rounds: int) -> Iterator[Row]:
    """Measure what loading the plugin adds to GDB, and the whole ``gdbhyp esr``."""
    os.environ["GDBHYP_SITE"] = sysconfig.get_path("purelib")
    for name, program in gdbs():
        bare = [program, "-nx", "-q", "-batch"]
        floor = process_ms(bare, rounds, time.perf_counter)
        loaded = process_ms([*bare, "-ex", f"source {GDBINIT}"], rounds, time.perf_counter)
        yield Row(f"loading into GDB {name}", min(loading_ms(program) for _ in range(rounds)), MS, 100)
        yield Row(f"GDB {name} with the plugin, whole process", loaded, MS, None, floor)
    python = [sys.executable, "-c", "pass"]
    main = [sys.executable, "-m", "gdbhyp.cli.main"]
    floor = process_ms(python, rounds, processor_time)
    for name, more in (("gdbhyp esr, whole process", []), ("gdbhyp esr --json", ["--json"])):
        took = process_ms([*main, "esr", "0x93c58045", *more], rounds, processor_time)
        yield Row(name, took, MS, 80, floor)


def loading_ms(program: str) -> float:
    """Return how long ``source gdbinit.py`` takes in a new GDB."""
    before = "python import time; start = time.perf_counter()"
    after = "python print((time.perf_counter() - start) * 1e3)"
    command = [program, "-nx", "-q", "-batch", "-ex", before, "-ex", f"source {GDBINIT}", "-ex", after]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def gdbs() -> list[tuple[str, str]]:
    """Return the GDBs at hand."""
    own = Path(sys.executable).parent / "gdb"
    found = [("13.1", shutil.which("gdb-multiarch")), ("18.1", str(own) if own.exists() else None)]
    return [(name, path) for name, path in found if path]


class Proxy:
    """Stands between GDB and the stub, and remembers the packets that GDB sends."""

    def __init__(self, folder: Path, target: Path) -> None:
        self.path = folder / "proxy.sock"
        self.sent = bytearray()
        self.received = 0
        self._target = target
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(self.path))
        self._listening.listen(1)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        debugger, _ = self._listening.accept()
        stub = socket.socket(socket.AF_UNIX)
        stub.connect(str(self._target))
        threading.Thread(target=self._answers, args=(stub, debugger), daemon=True).start()
        while data := debugger.recv(65536):
            self.sent += data
            stub.sendall(data)

    def _answers(self, stub: socket.socket, debugger: socket.socket) -> None:
        while data := stub.recv(65536):
            self.received += len(data)
            debugger.sendall(data)

    def packets(self, work: Callable[[], object]) -> tuple[list[bytes], int]:
        """Return the packets that ``work`` sends, and the bytes that went both ways."""
        del self.sent[:]
        self.received = 0
        work()
        payloads = [part.partition(b"#")[0] for part in bytes(self.sent).split(b"$")[1:]]
        return payloads, len(self.sent) + self.received


IN_GDB = """
import time
def timed(command, rounds, fresh):
    least = 1e9
    for _ in range(rounds):
        if fresh:
            gdb.execute("maintenance flush register-cache", to_string=True)
        start = time.perf_counter()
        gdb.execute(command, to_string=True)
        least = min(least, time.perf_counter() - start)
    return least * 1e3
def replayed(packets, rounds):
    send = gdb.selected_inferior().connection.send_packet
    least = 1e9
    for _ in range(rounds):
        start = time.perf_counter()
        for packet in packets:
            send(packet)
        least = min(least, time.perf_counter() - start)
    return least * 1e3
"""


def physical(packets: list[bytes]) -> list[bytes]:
    """Return the packets between the switch to physical memory and the one back."""
    on, off = b"Qqemu.PhyMemMode:1", b"Qqemu.PhyMemMode:0"
    return packets[packets.index(on) + 1 : packets.index(off)] if on in packets and off in packets else []


class Live:
    """Measures commands in one GDB: their time straight to the stub, their packets through the proxy."""

    def __init__(self, direct: GdbSession, rounds: int) -> None:
        self.session = direct
        self.rounds = rounds
        direct.run(f"python exec({IN_GDB!r})")

    def row(self, name: str, command: str, counted: Proxy, counting: GdbSession, wanted: float | None) -> Row:
        counting.run(command)  # what is asked once a connection is no part of a command
        counting.run("maintenance flush register-cache")
        packets, size = counted.packets(lambda: counting.run(command))
        value = self.session.python(f"timed({command!r}, {self.rounds}, True)")
        floor = self.session.python(f"replayed({packets!r}, {self.rounds})")
        registers = sum(packet[:1] in (b"p", b"g") for packet in packets)
        reads = sum(packet[:1] == b"m" for packet in physical(packets))
        other = len(packets) - registers - reads
        return Row(name, value, MS, wanted, floor, registers, reads, other, size)


@contextmanager
def attached(program: str, folder: Path, demo: Path, path: Path, plugin: bool = True) -> Iterator[GdbSession]:
    folder.mkdir(exist_ok=True)
    with GdbSession(program, folder) as session:
        session.run(f"file {demo / 'demo.elf'}")
        session.run(f"source {GDBINIT}")
        session.run(f"target remote {path}")
        yield session


def live(folder: Path, rounds: int) -> Iterator[Row]:
    """Measure questions to the demo hypervisor, stopped where a guest's store was trapped."""
    demo = folder / "demo"
    subprocess.run([str(BUILD), str(demo)], check=True, capture_output=True)
    truth = json.loads((demo / "truth.json").read_text())
    site = next(s for s in truth["vms"][0]["sites"] if s["symbol"] == "guest_perm_store")
    (folder / "gib.bin").write_bytes(gib_table())
    for name, program in gdbs():
        for part in (folder / f"{name}-direct", folder / f"{name}-counted"):
            part.mkdir()
        with (
            machine(folder / f"{name}-direct", demo, folder) as direct_machine,
            machine(folder / f"{name}-counted", demo, folder) as counted_machine,
        ):
            proxy = Proxy(folder / f"{name}-counted", counted_machine.gdb)
            with (
                attached(program, folder / f"{name}-direct", demo, direct_machine.gdb) as direct,
                attached(program, folder / f"{name}-counted", demo, proxy.path) as counting,
            ):
                run_to(direct, site)
                run_to(counting, site)
                bench = Live(direct, rounds)
                for question, command, wanted in QUESTIONS:
                    yield bench.row(f"{name}: {question}", command, proxy, counting, wanted)


QUESTIONS: tuple[tuple[str, str, float | None], ...] = (
    ("stage 1, a VA of EL2", "hyp-walk $pc", 5),
    ("stage 2, an IPA", "hyp-walk --stage2 0x80204128", 5),
    ("both stages, a guest's VA", "hyp-walk --regime EL1 $ELR_EL2", 5),
    ("hyp-ipa by a stage-1 walk", "hyp-ipa", 5),
    ("hyp-esr", "hyp-esr", None),
    ("hyp-status", "hyp-status", None),
    ("map of EL2", "hyp-map", None),
    ("map of stage 2", "hyp-map --stage2", None),
    (
        "map of a GiB, 262144 pages",
        f"hyp-map --stage2 --vttbr {GIB_TABLE:#x} --vtcr {GIB_VTCR:#x}",
        250,
    ),
)


def gib_table() -> bytes:
    """Return the tables at GIB_TABLE: a GiB of 4 KiB pages that merge into one range."""
    level2, level3 = GIB_TABLE + 0x1000, GIB_TABLE + 0x2000
    level1 = [0, level2 | 3] + [0] * 510
    tables = [level3 + 0x1000 * n | 3 for n in range(512)]
    pages = [0x4000_0000 + 0x1000 * n | 1 << 10 | 3 << 8 | 3 << 6 | 0xF << 2 | 3 for n in range(1 << 18)]
    return struct.pack(f"<{514 * 512}Q", *level1, *tables, *pages)


@contextmanager
def machine(folder: Path, demo: Path, tables: Path) -> Iterator[qemu.Machine]:
    arguments = [
        *("-M", "virt,virtualization=on,gic-version=3", "-cpu", "max", "-m", "256M", "-serial", "null"),
        *("-kernel", str(demo / "demo.elf")),
        *("-device", f"loader,file={tables / 'gib.bin'},addr={GIB_TABLE:#x},force-raw=on"),
    ]
    with qemu.machine(folder, arguments) as running:
        yield running


class Recorded:
    """A reader that remembers what was read."""

    def __init__(self, memory: Buffer) -> None:
        self.calls: list[tuple[int, int]] = []
        self._memory = memory

    def read(self, address: int, size: int, /) -> bytes:
        self.calls.append((address, size))
        return self._memory.read(address, size)


def engine(folder: Path) -> Iterator[Row]:
    """Measure the engine on a bytes buffer, in processor time."""
    rng = random.Random(1)
    values = [rng.getrandbits(64) for _ in range(4000)]
    seconds = best(lambda: [decode_esr(value, el=2) for value in values], 3)
    yield Row("syndromes decoded", len(values) / seconds, RATE)

    memory = Buffer(16 << 20)
    gibibyte(memory, 0x10_0000, lambda page: page, 0)
    gibibyte(memory, 0x80_0000, lambda page: page ^ 0x155, 0)
    roots = {"TTBR0_EL1": 0x80_0000, "VTTBR_EL2": 0x10_0000}
    addresses = [rng.randrange(1 << 30) for _ in range(20_000)]
    cases: tuple[tuple[str, dict[str, int], float], ...] = (
        ("stage 1", {}, 60_000),
        ("both stages", {"HCR_EL2": 1}, 20_000),
    )
    for name, extra, wanted in cases:
        walk = walker(Machine(REGISTERS | roots | extra, memory), Regime.EL10)
        seconds = best(lambda walk=walk: [walk.resolve(va) for va in addresses], 3)  # type: ignore[misc]
        read = Recorded(memory)
        counted = walker(Machine(REGISTERS | roots | extra, read), Regime.EL10)
        for va in addresses:
            counted.resolve(va)
        least = best(lambda calls=read.calls: [memory.read(*call) for call in calls], 3)  # type: ignore[misc]
        count = len(addresses)
        yield Row(f"walks of {name}, one address each", count / seconds, RATE, wanted, count / least)
    yield at_cases(folder, memory, roots, addresses)


def at_cases(folder: Path, memory: Buffer, roots: dict[str, int], addresses: list[int]) -> Row:
    """Measure the whole ``gdbhyp at`` process; its floor parses and prints the same lines of JSON."""
    image, cases = folder / "image.bin", folder / "cases.jsonl"
    image.write_bytes(memory.data)
    registers = {k: hex(v) for k, v in {**REGISTERS, **roots, "HCR_EL2": 1}.items()}
    with cases.open("w") as file:
        for number, va in enumerate(addresses):
            own = {**registers, "TTBR1_EL1": hex(number)}
            case = {"op": "S12E1R", "va": hex(va), "regs": own, "pstate": {"PAN": 0}}
            file.write(json.dumps(case) + "\n")
    command = [sys.executable, "-m", "gdbhyp.cli.main", "at", "--memory", f"{image}@0", str(cases)]
    nothing = (
        "import json, sys\nfor line in open(sys.argv[1]): print(json.dumps({'par': json.loads(line)['va']}))"
    )
    seconds = process_ms(command, 2, processor_time) / 1e3
    least = process_ms([sys.executable, "-c", nothing, str(cases)], 2, processor_time) / 1e3
    count = len(addresses)
    return Row("gdbhyp at, cases of a file", count / seconds, RATE, 5000, count / least)


def show(rows: list[Row], older: dict[str, float]) -> str:
    """Return the table."""
    headers = ["", "measured", "wanted", "floor", "x floor", "registers", "reads", "other", "bytes"]
    cells = []
    for row in rows:
        bound = "" if row.wanted is None else ("<= " if row.unit == MS else ">= ") + number(row.wanted)
        cell = [
            row.name,
            f"{number(row.value)} {row.unit}",
            bound + (" MISSED" if row.missed else ""),
            "" if row.floor is None else number(row.floor),
            "" if row.ratio is None else f"{row.ratio:.1f}",
            *("" if n is None else f"{n:,}" for n in (row.registers, row.reads, row.other, row.traffic)),
        ]
        if older:
            before = older.get(row.name)
            cell += (
                ["", ""] if before is None else [number(before), f"{100 * (row.value / before - 1):+.0f} %"]
            )
        cells.append(cell)
    if older:
        headers += ["before", "change"]
    align = ["left"] + ["right"] * (len(headers) - 1)
    return tabulate(cells, headers, tablefmt="simple", colalign=align, disable_numparse=True)


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="write the numbers to FILE")
    parser.add_argument("--compare", metavar="OLD.json", help="show the numbers of OLD.json beside")
    parser.add_argument("--quick", action="store_true", help="few rounds: less certain")
    arguments = parser.parse_args()
    rounds = 5 if arguments.quick else 25
    older: dict[str, float] = {}
    if arguments.compare:
        known: list[dict[str, Any]] = json.loads(Path(arguments.compare).read_text())
        older = {row["name"]: row["value"] for row in known}
    with tempfile.TemporaryDirectory(prefix="gdbhyp-bench-") as folder:
        place = Path(folder)
        rows = [*starting(max(3, rounds // 3)), *live(place, rounds), *engine(place)]
    print(show(rows, older))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
