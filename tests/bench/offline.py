"""The engine and whole commands on memory at hand, in processor time; tables of up to 16 M leaves, and a TiB."""

from __future__ import annotations

import json
import random
import statistics
import struct
import subprocess
import sys
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.engine import REGISTERS, Buffer, gibibyte
from bench.measure import RATE, Row, children_time, median, timed
from bench.starting import PROGRAM, process_ms
from support import tools

from gdbhyp.analyses.map import Question, map_tables
from gdbhyp.arch.syndrome import decode_esr
from gdbhyp.engine.machine import Machine, Reader
from gdbhyp.engine.map import map_stage
from gdbhyp.engine.stop import Stop
from gdbhyp.engine.translate import Regime
from gdbhyp.engine.walk import walker
from gdbhyp.render import output
from gdbhyp.render.style import Style

PAGE = 0x1000
LEAF = 1 << 10 | 0b11 << 6 | 0b1111 << 2 | 0b11
MILLIONS = (1, 4, 16)
ROOT = 0
TIB = 1 << 40
KINDS: tuple[tuple[str, float], ...] = (
    ("in order", 40e6),
    ("runs of 1 to 16", 3e6),
    ("scattered", 3e6),
    ("two kinds of pages", 3e6),
)


class Recorded:
    """A reader that remembers what was read."""

    def __init__(self, memory: Reader) -> None:
        self.calls: list[tuple[int, int]] = []
        self._memory = memory

    def read(self, address: int, size: int, /) -> bytes:
        self.calls.append((address, size))
        return self._memory.read(address, size)


class Big:
    """Stage-2 tables of 4 KiB pages from IPA 0 on; the last ones are made when they are read, or kept.

    The root is at 0 and holds up to 512 GiB, or two concatenated tables with one TiB; ``page(n)`` is the output of
    page n.
    """

    def __init__(self, gibibytes: int, pages: Callable[[int], bytes], *, keep: bool) -> None:
        self.gibibytes = gibibytes
        root = [PAGE * (2 + n) | 3 for n in range(gibibytes)]
        self._last = PAGE * (2 + gibibytes)
        self._head = struct.pack(f"<{gibibytes}Q", *root).ljust(2 * PAGE, bytes(1)) + struct.pack(
            f"<{512 * gibibytes}Q", *(self._last + PAGE * n | 3 for n in range(512 * gibibytes))
        )
        self._kept = [pages(n) for n in range(512 * gibibytes)] if keep else None
        self._pages = pages

    def read(self, address: int, size: int, /) -> bytes:
        if address < self._last:
            return self._head[address : address + size]
        number = (address - self._last) // PAGE
        return self._kept[number] if self._kept is not None else self._pages(number)

    def machine(self, memory: Reader | None = None) -> Machine:
        """A machine whose stage 2 this is: 40-bit IPAs from level 1."""
        registers = {
            "ID_AA64MMFR0_EL1": 5,
            "VTCR_EL2": 24 | 1 << 6 | 5 << 16,
            "VTTBR_EL2": ROOT,
            "HCR_EL2": 0,
        }
        return Machine(registers, memory or self)


def table_maker(kind: str, count: int) -> Callable[[int], bytes]:
    """Return what makes the last table number n of ``count`` pages."""
    if kind == "in order":
        template = int.from_bytes(struct.pack("<512Q", *(LEAF | PAGE * n for n in range(512))), "little")
        ones = ((1 << 64 * 512) - 1) // ((1 << 64) - 1)
        return lambda number: (template + ones * (number * 512 * PAGE)).to_bytes(PAGE, "little")
    if kind == "runs of 1 to 16":
        return _runs
    flip = 1 << 7 if kind == "two kinds of pages" else 0
    # An odd factor brings every page somewhere else, and no two of them next to each other.
    mask = count - 1

    def scattered(number: int) -> bytes:
        first = number * 512
        return struct.pack(
            "<512Q",
            *(
                ((n * 0x9E371 & mask) << 12 | LEAF) ^ (flip * (n * 7 >> 2 & 1))
                for n in range(first, first + 512)
            ),
        )

    return scattered


def _runs(number: int) -> bytes:
    chance = random.Random(number)
    words: list[int] = []
    while len(words) < 512:
        first = chance.randrange(1 << 26) << 12 | LEAF
        words += range(first, first + PAGE * chance.randint(1, 16), PAGE)
    return struct.pack("<512Q", *words[:512])


def consume(machine: Machine) -> int:
    """Map all of stage 2 and return how many ranges there are."""
    counted = deque(enumerate(map_stage(machine, Regime.EL10, 2), 1), maxlen=1)
    return counted[0][0]


def large_tables(rounds: int, sizes: tuple[int, ...]) -> Iterator[Row]:
    """Measure tables of 1, 4 and 16 million leaves, and what a leaf costs in the largest against the smallest."""
    for kind, wanted in KINDS:
        cost = {}
        for millions in sizes:
            count = millions << 20
            memory = Big(count >> 18, table_maker(kind, count), keep=True)
            machine = memory.machine()
            read = Recorded(memory)
            rows = consume(memory.machine(read))
            seconds = timed(lambda: consume(machine), max(5, rounds // millions))  # noqa: B023
            floor = median(lambda: deque((memory.read(*call) for call in read.calls), maxlen=0), 5)  # noqa: B023
            cost[millions] = statistics.median(seconds) / count
            name = f"{millions} M leaves {kind} ({rows:,} ranges)"
            value = count / statistics.median(seconds)
            yield Row(name, value, RATE, wanted, count / floor, least=count / min(seconds))
        slope = cost[sizes[-1]] / cost[sizes[0]]
        yield Row(f"{kind}: a leaf of {sizes[-1]} M costs, of {sizes[0]} M = 100", 100 * slope, "%", 115)


def peaks() -> Iterator[Row]:
    """Measure the most memory that mapping takes, with the last tables made when they are read."""
    for kind, _ in KINDS:
        most = {}
        for millions in (1, 4):
            memory = Big(millions << 2, table_maker(kind, millions << 20), keep=False)
            tracemalloc.start()
            consume(memory.machine())
            most[millions] = tracemalloc.get_traced_memory()[1] / 1024
            tracemalloc.stop()
        yield Row(
            f"{kind}: memory for 4 M leaves (floor: for 1 M)", most[4], "KiB", 1.1 * most[1] + 64, most[1]
        )


def tebibyte() -> Iterator[Row]:
    """Measure a VM of a TiB in 4 KiB pages in a process of its own; its tables are made as they are read."""
    program = (
        "import resource, sys, time; sys.path[:0] = sys.argv[1:]\n"
        "from bench.offline import Big, consume, table_maker\n"
        "memory = Big(1024, table_maker('in order', 1 << 28), keep=False)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "start = time.process_time(); rows = consume(memory.machine()); took = time.process_time() - start\n"
        "start = time.process_time()\n"
        "for n in range(512 * 1024): memory.read(memory._last + 4096 * n, 4096)\n"
        "floor = time.process_time() - start\n"
        "print(rows, took, floor, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    command = [sys.executable, "-c", program, str(tools.ROOT / "tests"), str(tools.ROOT)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    rows, took, floor, more = done.stdout.split()
    assert rows == "1"
    count = TIB // PAGE
    yield Row("a TiB of pages in order, streamed", count / float(took), RATE, None, count / float(floor))
    yield Row("a TiB of pages: memory beyond that of the start", float(more), "KiB", 4096)


def rows_of_a_map(rounds: int) -> Iterator[Row]:
    """Measure what making rows of scattered pages costs, and printing them as JSON; the floor is decoding them."""
    memory = Big(1, table_maker("scattered", 1 << 18), keep=True)
    stop, question, count = Stop(memory.machine()), Question(stages="2"), 1 << 18
    floor = median(lambda: consume(memory.machine()), rounds)
    seconds = median(lambda: deque(map_tables(stop, question).rows, maxlen=0), rounds)
    yield Row("rows of a map, scattered pages", count / seconds, RATE, None, count / floor)
    with open("/dev/null", "w") as nowhere:

        def show() -> None:
            report = map_tables(stop, question)
            output.write(report, nowhere.write, form="json", style=Style(), warn=print)

        seconds = median(show, rounds)
    yield Row("rows of a map as JSON, scattered pages", count / seconds, RATE, 500_000, count / floor)


def single_addresses(folder: Path, rounds: int) -> Iterator[Row]:
    """Measure syndromes, single walks and AT cases."""
    rng = random.Random(1)
    values = [rng.getrandbits(64) for _ in range(4000)]
    seconds = median(lambda: [decode_esr(value, el=2) for value in values], rounds)
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
        seconds = median(lambda walk=walk: [walk.resolve(va) for va in addresses], rounds)  # type: ignore[misc]
        read = Recorded(memory)
        counted = walker(Machine(REGISTERS | roots | extra, read), Regime.EL10)
        for va in addresses:
            counted.resolve(va)
        least = median(lambda calls=read.calls: [memory.read(*call) for call in calls], rounds)  # type: ignore[misc]
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
    command = [*PROGRAM, "at", "--memory", f"{image}@0", str(cases)]
    nothing = (
        "import json, sys\nfor line in open(sys.argv[1]): print(json.dumps({'par': json.loads(line)['va']}))"
    )
    seconds = statistics.median(process_ms(command, 3, children_time)) / 1e3
    least = statistics.median(process_ms([sys.executable, "-c", nothing, str(cases)], 3, children_time)) / 1e3
    count = len(addresses)
    return Row("gdbhyp at, cases of a file", count / seconds, RATE, 5000, count / least)


def logs(folder: Path, rounds: int) -> Iterator[Row]:
    """Measure reading logs: QEMU's own, of a machine that runs guests, many times over."""
    text = (tools.ROOT / "tests" / "unit" / "data" / "demo-int.log").read_text()
    copies = 40
    log = folder / "int.log"
    log.write_text(text * copies)
    lines = text.count("\n") * copies
    nothing = [
        sys.executable,
        "-c",
        "import sys\nfor line in open(sys.argv[1]): sys.stdout.write(line)",
        str(log),
    ]
    floor = lines / (statistics.median(process_ms(nothing, rounds, children_time)) / 1e3)
    for name, command in (
        ("gdbhyp annotate, lines of a log", ["annotate", str(log)]),
        ("gdbhyp trace stat, lines of a log", ["trace", "stat", str(log)]),
    ):
        seconds = statistics.median(process_ms([*PROGRAM, *command], rounds, children_time)) / 1e3
        yield Row(name, lines / seconds, RATE, None, floor)


def offline(folder: Path, rounds: int, quick: bool) -> Iterator[Row]:
    """Measure all of it; ``quick`` leaves out the largest tables."""
    yield from single_addresses(folder, rounds)
    yield from logs(folder, max(5, rounds // 3))
    yield from rows_of_a_map(rounds)
    yield from large_tables(rounds, MILLIONS[:-1] if quick else MILLIONS)
    yield from peaks()
    yield from tebibyte()
