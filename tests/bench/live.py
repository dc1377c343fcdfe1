"""Questions to a live machine: their time, their packets, and each way to physical memory beside its floor."""

from __future__ import annotations

import json
import socket
import statistics
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.measure import MS, Row
from bench.starting import GDBINIT, gdbs
from support import qemu, tools
from support.demo import run_to
from support.gdb_session import GdbSession

BUILD = tools.ROOT / "qemu-scripts" / "demo-hypervisor" / "build"
TABLE, PAGE = 0x4F00_0000, 0x1000
VTCR = 1 << 31 | 2 << 16 | 3 << 12 | 1 << 10 | 1 << 8 | 1 << 6 | 25
SIZES = ((512, "512 MiB"), (1024, "1 GiB"), (4096, "4 GiB"))
WAYS = ("stub", "qemu-pread", "ram-file")


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
def replayed(packets, rounds):
    send = gdb.selected_inferior().connection.send_packet
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        for packet in packets:
            send(packet)
        times.append(1e3 * (time.perf_counter() - start))
    return times
def preads(path, offsets, size, rounds):
    descriptor = os.open(path, os.O_RDONLY)
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        for offset in offsets:
            os.pread(descriptor, size, offset)
        times.append(1e3 * (time.perf_counter() - start))
    os.close(descriptor)
    return times
def host_address(address):
    return int(re.search("is 0x([0-9a-f]+)", gdb.execute("monitor gpa2hva %#x" % address, to_string=True))[1], 16)
"""


def physical(packets: list[bytes]) -> list[bytes]:
    """Return the packets between the switch to physical memory and the one back."""
    on, off = b"Qqemu.PhyMemMode:1", b"Qqemu.PhyMemMode:0"
    return packets[packets.index(on) + 1 : packets.index(off)] if on in packets and off in packets else []


class Live:
    """Measures commands in one GDB, straight to the stub; another one, through the proxy, counts their packets."""

    def __init__(self, direct: GdbSession, counting: GdbSession, proxy: Proxy, rounds: int) -> None:
        self.session = direct
        self.rounds = rounds
        self._counting = counting
        self._proxy = proxy
        for session in (direct, counting):
            session.run("set hyp memory stub")
        direct.run(f"python exec({IN_GDB!r})")

    def times(self, command: str, *, fresh: bool = True) -> list[float]:
        """Return the milliseconds of each round; with ``fresh`` GDB has to ask for the registers again."""
        found: list[float] = self.session.python(f"timed({command!r}, {self.rounds}, {fresh})")
        return found

    def packets(self, command: str) -> tuple[list[bytes], int]:
        """Return the packets that a command sends, and the bytes both ways."""
        self._counting.run(command)  # what is asked once a connection is no part of a command
        self._counting.run("maintenance flush register-cache")
        return self._proxy.packets(lambda: self._counting.run(command))

    def row(self, name: str, command: str, wanted: float | None) -> Row:
        """Measure a command by the stub; its floor is sending the same packets."""
        packets, size = self.packets(command)
        times = self.times(command)
        floor = statistics.median(self.session.python(f"replayed({packets!r}, {self.rounds})"))
        registers = sum(packet[:1] in (b"p", b"g") for packet in packets)
        reads = sum(packet[:1] in (b"m", b"x") for packet in physical(packets))
        other = len(packets) - registers - reads
        median = statistics.median(times)
        return Row(name, median, MS, wanted, floor, registers, reads, other, size, min(times))

    def past_the_stub(self, name: str, command: str, way: str, floor: float, wanted: float | None) -> Row:
        """Measure a command whose memory is read past the stub; ``floor`` is reading the same tables."""
        self.session.run(f"set hyp memory {way}")
        self.session.run(command)
        answer = self.session.run("hyp-status -v --json")
        said = json.loads(answer[answer.index("{") :])["memory"]
        times = self.times(command)
        self.session.run("set hyp memory stub")
        if said.startswith("by the stub"):
            return Row(f"{name}: {said}", statistics.median(times), MS, least=min(times))
        return Row(name, statistics.median(times), MS, wanted, floor, 0, 0, 0, 0, min(times))


@contextmanager
def attached(program: str, folder: Path, path: Path, symbols: Path | None = None) -> Iterator[GdbSession]:
    folder.mkdir(exist_ok=True)
    with GdbSession(program, folder) as session:
        session.run(f"file {symbols}" if symbols else "set architecture aarch64")
        session.run(f"source {GDBINIT}")
        session.run(f"target remote {path}")
        yield session


def live(folder: Path, rounds: int) -> Iterator[Row]:
    """Measure questions to the demo hypervisor, stopped where a guest's store was trapped."""
    demo = folder / "demo"
    subprocess.run([str(BUILD), str(demo)], check=True, capture_output=True)
    truth = json.loads((demo / "truth.json").read_text())
    site = next(s for s in truth["vms"][0]["sites"] if s["symbol"] == "guest_perm_store")
    (folder / "tables.bin").write_bytes(tables(SIZES[-1][0]))
    for name, program in gdbs():
        direct_folder, counted_folder = folder / f"{name}-direct", folder / f"{name}-counted"
        for part in (direct_folder, counted_folder):
            part.mkdir()
        with machine(direct_folder, demo, folder) as one, machine(counted_folder, demo, folder) as other:
            proxy = Proxy(counted_folder, other.gdb)
            with (
                attached(program, direct_folder, one.gdb, demo / "demo.elf") as direct,
                attached(program, counted_folder, proxy.path, demo / "demo.elf") as counting,
            ):
                run_to(direct, site)
                run_to(counting, site)
                bench = Live(direct, counting, proxy, rounds)
                for question, command, wanted in QUESTIONS:
                    yield bench.row(f"{name}: {question}", command, wanted)
                yield cached(bench, name)
                bench.rounds = max(5, rounds // 3)
                yield from large(bench, name, one, direct_folder / "ram")


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


def cached(bench: Live, name: str) -> Row:
    """Measure an address when GDB knows the registers, and memory is read past the stub."""
    bench.session.run("set hyp memory auto")
    command = "hyp-walk --regime EL1 $ELR_EL2"
    for _ in range(3):
        bench.session.run(command)
    times = bench.times(command, fresh=False)
    bench.session.run("set hyp memory stub")
    return Row(f"{name}: both stages, cached", statistics.median(times), MS, 1, least=min(times))


def large(bench: Live, name: str, running: qemu.Machine, ram: Path) -> Iterator[Row]:
    """Measure stage 2 of large VMs by each way to memory."""
    for mebibytes, size in SIZES:
        command = (
            f"hyp-map --stage2 --vttbr {TABLE:#x} --vtcr {VTCR:#x} --range 0x40000000+{mebibytes << 20:#x}"
        )
        pages = mebibytes << 8
        wanted = 250.0 if mebibytes == 1024 else None
        yield bench.row(f"{name}: stage 2 of {size}, {pages:,} pages, by stub", command, wanted)
        offsets = table_addresses(mebibytes)
        start = bench.session.python(f"host_address({TABLE:#x})")
        for way in WAYS[1:]:
            path, base = (
                (f"/proc/{running.process.pid}/mem", start) if way == "qemu-pread" else (ram, RAM_OFFSET)
            )
            places = [base + address - TABLE for address in offsets]
            floor = statistics.median(
                bench.session.python(f"preads({str(path)!r}, {places}, {PAGE}, {bench.rounds})")
            )
            wanted = 40 * pages / 131072
            yield bench.past_the_stub(
                f"{name}: stage 2 of {size}, {pages:,} pages, by {way}", command, way, floor, wanted
            )


RAM_OFFSET = TABLE - 0x4000_0000
"""Where the tables are in the file that holds RAM."""


def table_addresses(mebibytes: int) -> list[int]:
    """Return the addresses of all tables of a VM."""
    return [TABLE, *(TABLE + PAGE * (1 + n) for n in range(-(-mebibytes // 1024))), *last_tables(mebibytes)]


def last_tables(mebibytes: int) -> list[int]:
    first = TABLE + PAGE * (1 + SIZES[-1][0] // 1024)
    return [first + PAGE * n for n in range(mebibytes // 2)]


def tables(mebibytes: int) -> bytes:
    """Return the tables at TABLE: 4 KiB pages from IPA 1 GiB on that merge into one range."""
    gibibytes = mebibytes // 1024
    root = [0, *(TABLE + PAGE * (1 + n) | 3 for n in range(gibibytes))]
    middle = [address | 3 for address in last_tables(mebibytes)]
    leaf = 1 << 10 | 3 << 8 | 3 << 6 | 0xF << 2 | 3
    pages = [0x4000_0000 + PAGE * n | leaf for n in range(mebibytes << 8)]
    words: Sequence[int] = [*root, *[0] * (512 - len(root)), *middle, *pages]
    return struct.pack(f"<{len(words)}Q", *words)


@contextmanager
def machine(folder: Path, demo: Path, made: Path) -> Iterator[qemu.Machine]:
    """The demo hypervisor with the large VMs' tables, its memory in a shared file ``ram``."""
    arguments = [
        *("-M", "virt,virtualization=on,gic-version=3,memory-backend=ram", "-cpu", "max", "-m", "256M"),
        *("-object", f"memory-backend-file,id=ram,size=256M,share=on,mem-path={folder / 'ram'}"),
        *("-serial", "null", "-kernel", str(demo / "demo.elf")),
        *("-device", f"loader,file={made / 'tables.bin'},addr={TABLE:#x},force-raw=on"),
    ]
    with qemu.machine(folder, arguments) as running:
        yield running
