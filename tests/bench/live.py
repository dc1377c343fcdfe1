"""Questions to a live machine: their time, their packets, and each way to physical memory beside its floor."""

from __future__ import annotations

import json
import statistics
import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.dumps import from_a_dump
from bench.measure import MS, Row
from bench.starting import GDBINIT, gdbs
from support import qemu, tools
from support.demo import run_to
from support.gdb_session import GdbSession
from support.stub_proxy import Proxy, physical, proxy

BUILD = tools.ROOT / "qemu-scripts" / "demo-hypervisor" / "build"
TABLE, PAGE = 0x4F00_0000, 0x1000
VTCR = 1 << 31 | 2 << 16 | 3 << 12 | 1 << 10 | 1 << 8 | 1 << 6 | 25
SIZES = ((512, "512 MiB"), (1024, "1 GiB"), (4096, "4 GiB"))
RAM = 0x4000_0000
"""Where QEMU's virt board has memory."""
WAYS = ("qemu-pread", "ram-file")
"""The ways to memory past the stub."""

IN_GDB = """
import os, re, time
def timed(command, rounds, fresh):
    times = []
    for _ in range(rounds):
        if fresh:
            gdb.execute("maintenance flush register-cache", to_string=True)
        start = time.perf_counter()
        gdb.execute(command, to_string=True)
        times.append(1e3 * (time.perf_counter() - start))
    return times
def beside(command, rounds, floor):
    times = [(timed(command, 1, True)[0], floor()) for _ in range(rounds)]
    return [list(column) for column in zip(*times)]
def beside_packets(command, rounds, packets):
    send = gdb.selected_inferior().connection.send_packet
    def floor():
        start = time.perf_counter()
        for packet in packets:
            send(packet)
        return 1e3 * (time.perf_counter() - start)
    return beside(command, rounds, floor)
def beside_preads(command, rounds, path, offset, reads):
    descriptor = os.open(path, os.O_RDONLY)
    def floor():
        start = time.perf_counter()
        for address, size in reads:
            os.pread(descriptor, size, address + offset)
        return 1e3 * (time.perf_counter() - start)
    try:
        return beside(command, rounds, floor)
    finally:
        os.close(descriptor)
def host_address(address):
    return int(re.search("is 0x([0-9a-f]+)", gdb.execute("monitor gpa2hva %#x" % address, to_string=True))[1], 16)
"""


@dataclass(frozen=True)
class Asked:
    """What a command asked of the stub at a stop, and the bytes that went both ways."""

    requests: Sequence[bytes]
    traffic: int

    @property
    def registers(self) -> int:
        return sum(request[:1] in (b"p", b"g") for request in self.requests)

    @property
    def reads(self) -> list[tuple[int, int]]:
        """The physical addresses that were read, and the size of each read."""
        words = [
            request[1:].split(b",") for request in physical(self.requests) if request[:1] in (b"m", b"x")
        ]
        return [(int(address, 16), int(size, 16)) for address, size in words]

    @property
    def tables(self) -> list[tuple[int, int]]:
        """The same with reads joined that continue each other, as a table that takes two packets does."""
        joined: list[tuple[int, int]] = []
        for address, size in self.reads:
            if joined and sum(joined[-1]) == address and address % PAGE:
                joined[-1] = (joined[-1][0], joined[-1][1] + size)
            else:
                joined.append((address, size))
        return joined


def asked(session: GdbSession, line: Proxy, command: str) -> Asked:
    """Ask ``command`` by the stub in a GDB that is attached through ``line``, and return what that asked."""
    session.run("set hyp memory stub")
    session.run(command)  # what is asked once a connection is no part of a command
    session.run("maintenance flush register-cache")
    del line.requests[:]
    line.traffic = 0
    session.run(command)
    return Asked(tuple(line.requests), line.traffic)


class Live:
    """Measures commands in one GDB, straight at the stub; ``files`` are where each way past it reads, and from where.

    That is the file, and what is to be added to a physical address.
    """

    def __init__(self, session: GdbSession, files: Mapping[str, tuple[Path, int]], rounds: int) -> None:
        self.session = session
        self.rounds = rounds
        self._files = files
        session.run("set hyp memory stub")

    def by_stub(self, name: str, command: str, costs: Asked, wanted: float | None, ratio: float = 0) -> Row:
        """Measure a command by the stub; its floor, taken in turn with it, is sending the same packets.

        What is wanted is a time, or with ``ratio`` so many times the floor.
        """
        question = f"beside_packets({command!r}, {self.rounds}, {list(costs.requests)!r})"
        self.session.run(command)  # what is imported for the first answer is no part of those that follow
        times, floors = self.session.python(question)
        floor = statistics.median(floors)
        registers, reads = costs.registers, len(costs.reads)
        other = len(costs.requests) - registers - reads
        bound = ratio * floor if ratio else wanted
        median = statistics.median(times)
        return Row(name, median, MS, bound, floor, registers, reads, other, costs.traffic, min(times))

    def past_the_stub(self, name: str, command: str, costs: Asked, wanted: float | None) -> Iterator[Row]:
        """Measure a command by each way past the stub; the floor is reading the same tables from the same file."""
        for way in WAYS:
            self.session.run(f"set hyp memory {way}")
            self.session.run(command)
            answer = self.session.run("hyp-status -v --json")
            said = json.loads(answer[answer.index("{") :])["memory"]
            assert not said.startswith("by the stub"), said
            path, offset = self._files[way]
            question = f"beside_preads({command!r}, {self.rounds}, {str(path)!r}, {offset}, {costs.tables})"
            times, floors = self.session.python(question)
            median, floor = statistics.median(times), statistics.median(floors)
            yield Row(f"{name}, by {way}", median, MS, wanted, floor, least=min(times))
        self.session.run("set hyp memory stub")


@contextmanager
def attached(program: str, folder: Path, path: Path, symbols: Path | None = None) -> Iterator[GdbSession]:
    folder.mkdir(exist_ok=True)
    with GdbSession(program, folder) as session:
        session.run(f"file {symbols}" if symbols else "set architecture aarch64")
        session.run(f"source {GDBINIT}")
        session.run(f"target remote {path}")
        session.run(f"python exec({IN_GDB!r})")
        yield session


def files_of(session: GdbSession, running: qemu.Machine, ram: Path) -> dict[str, tuple[Path, int]]:
    """Return where each way past the stub reads: the process, and the file ``ram`` that holds its memory."""
    start = session.python(f"host_address({RAM:#x})")
    memory = Path(f"/proc/{running.process.pid}/mem")
    return {"qemu-pread": (memory, start - RAM), "ram-file": (ram, -RAM)}


def live(folder: Path, rounds: int) -> Iterator[Row]:
    """Measure questions to the demo hypervisor, stopped where a guest's store was trapped."""
    demo = folder / "demo"
    subprocess.run([str(BUILD), str(demo)], check=True, capture_output=True)
    truth = json.loads((demo / "truth.json").read_text())
    site = next(s for s in truth["vms"][0]["sites"] if s["symbol"] == "guest_perm_store")
    (folder / "tables.bin").write_bytes(tables(SIZES[-1][0]))
    for name, program in gdbs():
        place = folder / name
        place.mkdir()
        costs: dict[str, Asked] = {}
        with (
            machine(place, demo, folder) as running,
            proxy(place / "line.sock", running.gdb) as line,
            attached(program, place, line.path, demo / "demo.elf") as session,
        ):
            run_to(session, site)
            for command in (*(command for _, command, _ in QUESTIONS), *map(map_of, dict(SIZES))):
                costs[command] = asked(session, line, command)
            session.run("disconnect")
        with (
            machine(place, demo, folder) as running,
            attached(program, place, running.gdb, demo / "demo.elf") as session,
        ):
            run_to(session, site)
            bench = Live(session, files_of(session, running, place / "ram"), rounds)
            for question, command, wanted in QUESTIONS:
                yield bench.by_stub(f"{name}: {question}", command, costs[command], wanted)
            yield cached(bench, name)
            bench.rounds = max(5, rounds // 3)
            for mebibytes, size in SIZES:
                command, title = map_of(mebibytes), f"stage 2 of {size}, {mebibytes << 8:,} pages"
                yield from large(bench, f"{name}: {title}", command, costs[command], mebibytes)
                if (name, program) == gdbs()[0]:
                    yield dumped(
                        session, title, command, costs[command], place / "machine.core", bench.rounds
                    )


QUESTIONS: tuple[tuple[str, str, float | None], ...] = (
    ("stage 1, a VA of EL2", "hyp-walk $pc", 5),
    ("stage 2, an IPA", "hyp-walk --stage2 0x80204128", 5),
    ("both stages, a guest's VA", "hyp-walk --regime EL1 $ELR_EL2", 5),
    ("hyp-ipa by a stage-1 walk", "hyp-ipa", 5),
    ("hyp-esr", "hyp-esr", None),
    ("hyp-status", "hyp-status", None),
    ("map of EL2", "hyp-map", None),
    ("map of stage 2", "hyp-map --stage2", None),
    ("map of both stages", "hyp-map --regime EL1 --both", None),
)


def map_of(mebibytes: int) -> str:
    """Return the command that maps so much of the large VM."""
    return f"hyp-map --stage2 --vttbr {TABLE:#x} --vtcr {VTCR:#x} --range {RAM:#x}+{mebibytes << 20:#x}"


def cached(bench: Live, name: str) -> Row:
    """Measure an address when GDB knows the registers, and memory is read past the stub."""
    bench.session.run("set hyp memory auto")
    command = "hyp-walk --regime EL1 $ELR_EL2"
    for _ in range(3):
        bench.session.run(command)
    times = bench.session.python(f"timed({command!r}, {bench.rounds}, False)")
    bench.session.run("set hyp memory stub")
    return Row(f"{name}: both stages, cached", statistics.median(times), MS, 1, least=min(times))


def large(bench: Live, title: str, command: str, costs: Asked, mebibytes: int) -> Iterator[Row]:
    """Measure stage 2 of a large VM by each way to memory: 512 MiB in 1.25 times the floor, or 40 ms."""
    wanted = 250.0 if mebibytes == 1024 else None
    ratio = 1.25 if mebibytes == 512 else 0
    yield bench.by_stub(f"{title}, by stub", command, costs, wanted, ratio)
    yield from bench.past_the_stub(title, command, costs, 40.0 * mebibytes / 512)


def dumped(
    session: GdbSession, title: str, command: str, costs: Asked, file: Path, rounds: int, how: str = ""
) -> Row:
    """Measure the same question about a snapshot of the machine, which is taken once."""
    if not file.exists():
        session.run("set hyp memory ram-file")
        session.run(f"hyp-snapshot {how} {file}")
        session.run("set hyp memory stub")
    return from_a_dump(f"{title}, from a snapshot", file, command.split()[1:], costs.tables, rounds)


def table_addresses(mebibytes: int) -> list[int]:
    """Return the addresses of the last tables of a VM."""
    first = TABLE + PAGE * (1 + SIZES[-1][0] // 1024)
    return [first + PAGE * n for n in range(mebibytes // 2)]


def tables(mebibytes: int) -> bytes:
    """Return the tables at TABLE: 4 KiB pages from IPA 1 GiB on that merge into one range."""
    gibibytes = mebibytes // 1024
    root = [0, *(TABLE + PAGE * (1 + n) | 3 for n in range(gibibytes))]
    middle = [address | 3 for address in table_addresses(mebibytes)]
    leaf = 1 << 10 | 3 << 8 | 3 << 6 | 0xF << 2 | 3
    pages = [0x4000_0000 + PAGE * n | leaf for n in range(mebibytes << 8)]
    words: Sequence[int] = [*root, *[0] * (512 - len(root)), *middle, *pages]
    return struct.pack(f"<{len(words)}Q", *words)


@contextmanager
def machine(folder: Path, demo: Path, made: Path) -> Iterator[qemu.Machine]:
    """The demo hypervisor with the large VMs' tables, its memory in a shared file ``ram``."""
    for left in ("gdb.sock", "monitor.sock"):
        (folder / left).unlink(missing_ok=True)
    arguments = [
        *("-M", "virt,virtualization=on,gic-version=3,memory-backend=ram", "-cpu", "max", "-m", "256M"),
        *("-object", f"memory-backend-file,id=ram,size=256M,share=on,mem-path={folder / 'ram'}"),
        *("-serial", "null", "-kernel", str(demo / "demo.elf")),
        *("-device", f"loader,file={made / 'tables.bin'},addr={TABLE:#x},force-raw=on"),
    ]
    with qemu.machine(folder, arguments) as running:
        yield running
