"""How fast the engine is, from a bytes buffer: walks, AT cases, whole tables, and where a walk's time goes.

Run it as a script. Times are processor time, the best of several rounds, so that other work on the machine counts
as little as possible.
"""

from __future__ import annotations

import cProfile
import json
import pstats
import random
import struct
import time
from collections.abc import Callable

from gdbhyp.engine.at import run_case
from gdbhyp.engine.machine import Machine
from gdbhyp.engine.map import map_stage
from gdbhyp.engine.translate import Regime, translate
from gdbhyp.engine.walk import walker
from gdbhyp.errors import MemoryUnavailable

PAGE, AF, USABLE = 0b11, 1 << 10, 0b11 << 6 | 0b1111 << 2
REMOTE_TABLE = 270e-6
"""Seconds that one 4 KiB table takes through the stub's physical memory mode."""

REGISTERS = {
    "ID_AA64MMFR0_EL1": 5,
    "ID_AA64MMFR1_EL1": 1 << 8,
    "SCTLR_EL1": 5,
    "TCR_EL1": 16 | 16 << 16 | 0b10 << 30 | 5 << 32,
    "MAIR_EL1": 0xFF,
    "VTCR_EL2": 16 | 2 << 6 | 5 << 16,
}


class Buffer:
    """Physical memory from address 0 on."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)

    def read(self, address: int, size: int, /) -> bytes:
        if address < 0 or address + size > len(self.data):
            raise MemoryUnavailable("PA", address, size, "beyond the buffer")
        return bytes(self.data[address : address + size])

    def put(self, address: int, words: list[int]) -> None:
        struct.pack_into(f"<{len(words)}Q", self.data, address, *words)


def gibibyte(memory: Buffer, root: int, output: Callable[[int], int], start: int) -> None:
    """Map the first GiB by pages, 262,144 of them, with tables from ``root`` on, lookups from level ``start``."""
    last = root + (2 - start) * 0x1000
    for above in range(root, last, 0x1000):
        memory.put(above, [above + 0x1000 | PAGE])
    memory.put(last, [last + 0x1000 * (1 + i) | PAGE for i in range(512)])
    for i in range(512):
        pages = [output(i << 9 | j) << 12 | AF | USABLE | PAGE for j in range(512)]
        memory.put(last + 0x1000 * (1 + i), pages)


def best(work: Callable[[], object], rounds: int = 5) -> float:
    """Return the least processor time of several rounds, in seconds."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    rng = random.Random(1)
    memory = Buffer(16 << 20)
    gibibyte(memory, 0x10_0000, lambda page: page, 0)  # stage 2, IPA = PA
    gibibyte(memory, 0x80_0000, lambda page: page ^ 0x155, 0)  # stage 1
    roots = {"TTBR0_EL1": 0x80_0000, "VTTBR_EL2": 0x10_0000}
    one = Machine(REGISTERS | roots, memory)
    two = Machine(REGISTERS | roots | {"HCR_EL2": 1}, memory)
    addresses = [rng.randrange(1 << 30) for _ in range(20_000)]
    few = addresses[:2000]

    for name, machine in (("stage 1", one), ("both stages", two)):
        walk = walker(machine, Regime.EL10)
        seconds = best(lambda walk=walk: [walk.resolve(va) for va in addresses])  # type: ignore[misc]
        print(f"{name + ' walks':28}{len(addresses) / seconds:12,.0f} a second")
        seconds = best(lambda m=machine: [translate(m, va, Regime.EL10) for va in few])  # type: ignore[misc]
        print(f"{name + ' reports':28}{len(few) / seconds:12,.0f} a second")

    print("\nWhere a two-stage walk's time goes:")
    walk = walker(two, Regime.EL10)
    profile = cProfile.Profile()
    profile.runcall(lambda: [walk.resolve(va) for va in addresses])
    pstats.Stats(profile).sort_stats("tottime").print_stats(8)

    lines = []
    for va in addresses[:5000]:
        registers = {k: hex(v) for k, v in {**REGISTERS, **roots, "HCR_EL2": 1, "TTBR1_EL1": va}.items()}
        registers |= {f"UNUSED{i}_EL1": hex(rng.getrandbits(64)) for i in range(20)}
        lines.append(json.dumps({"op": "S12E1R", "va": hex(va), "regs": registers, "pstate": {"PAN": 0}}))
    seconds = best(lambda: [json.dumps(run_case(json.loads(line), memory)) for line in lines])
    print(f"{'AT cases, each its own CPU':28}{len(lines) / seconds:12,.0f} a second")

    seconds = best(lambda: list(map_stage(two, Regime.EL10, 2)))
    print(f"{'1 GiB of pages, in order':28}{seconds * 1e3:12,.1f} ms = {seconds / 515 * 1e3:.3f} ms a table")
    pages = list(range(1 << 18))
    rng.shuffle(pages)
    gibibyte(memory, 0x10_0000, lambda page: pages[page], 0)
    rows = len(list(map_stage(two, Regime.EL10, 2)))
    seconds = best(lambda: list(map_stage(two, Regime.EL10, 2)), 2)
    print(f"{'1 GiB of pages, shuffled':28}{seconds * 1e3:12,.1f} ms for {rows:,} ranges")
    print(
        f"{'reading 515 tables remotely':28}{515 * REMOTE_TABLE * 1e3:12,.1f} ms = {REMOTE_TABLE * 1e3} ms a table"
    )


if __name__ == "__main__":
    main()
