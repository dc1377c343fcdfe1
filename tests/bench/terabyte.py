"""How the map of a stage 2 grows with it: files of real tables, mapped offline, with the slope and the memory used.

    python tests/bench/terabyte.py [--leaves 1M 4M 16M] [--keep FOLDER]

A file is a machine whose RAM is nothing but stage-2 tables: 4 KiB granule, 48-bit IPAs, one leaf a page. The tables lie
apart from each other as they do in a machine that has run for a while, so that the file is sparse. ``--leaves 256M`` is
a VM of a terabyte: 2 GiB of tables. Processor time is measured in a process of its own for each size, best of three;
memory is the most that the process had of its own (RssAnon), for the mapped file is the system's to drop.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from array import array
from pathlib import Path

BASE = 0x4000_0000
# VTCR_EL2: RES1 [31], PS = 5 (48 bits), SH0, ORGN0, IRGN0, SL0 = 2 (from level 0), T0SZ = 16 (48-bit IPAs).
VTCR = (1 << 31) | (5 << 16) | (3 << 12) | (1 << 10) | (1 << 8) | (2 << 6) | 16
_TABLE, _ENTRIES, _PAGE = 3, 512, 4096
_LEAF = 0x7FF  # AF, Inner Shareable, S2AP read and write, Normal Write-Back
# Where the VM's memory lies: behind everything else, so that no table is mapped.
_MEMORY = 1 << 40
_SPREAD = 4 * _PAGE


class Tables:
    """Writes tables into a sparse file, each at the next place."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._next = BASE

    def add(self, entries: array[int]) -> int:
        """Write a table and return its address."""
        address, self._next = self._next, self._next + _SPREAD
        self._file.seek(address - BASE)
        self._file.write(entries.tobytes())
        return address

    def close(self) -> None:
        self._file.truncate(self._next - BASE)
        self._file.close()


def generate(path: Path, leaves: int, holes: int) -> int:
    """Write tables of ``leaves`` pages, every ``holes``-th of which is not mapped; return the root's address."""
    tables = Tables(path)
    below = [tables.add(_last_level(first, holes)) for first in range(0, leaves, _ENTRIES)]
    for _ in range(2):
        below = [tables.add(_directory(below[at : at + _ENTRIES])) for at in range(0, len(below), _ENTRIES)]
    root = tables.add(_directory(below))
    tables.close()
    return root


def _last_level(first: int, holes: int) -> array[int]:
    start = _MEMORY + first * _PAGE | _LEAF
    table = array("Q", range(start, start + _ENTRIES * _PAGE, _PAGE))
    for at in range(holes - 1, _ENTRIES, holes):
        table[at] = 0
    return table


def _directory(below: list[int]) -> array[int]:
    return array("Q", [address | _TABLE for address in below] + [0] * (_ENTRIES - len(below)))


_MEASURE = """
import json, sys, time
from gdbhyp.targets.dump import open_dump
from gdbhyp.analyses.map import Question, map_tables
from gdbhyp.analyses.walk import Roots
stop = open_dump(sys.argv[1]).stop()
def own_kib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))
started = time.process_time()
most = 0
report = map_tables(stop, Question(None, "2", Roots(vttbr=int(sys.argv[2]), vtcr=int(sys.argv[3]))))
rows = mapped = 0
for row in report.rows:
    rows += 1
    mapped += row.end - row.start
    if rows % 1024 == 0:
        most = max(most, own_kib())
spent = time.process_time() - started
assert not report.problems, report.problems
most = max(most, own_kib())
print(json.dumps({"seconds": spent, "rows": rows, "mapped": mapped, "peak_kib": most}))
"""


def measure(path: Path, root: int) -> dict[str, float]:
    """Map the file in a process of its own, three times; return the quickest run's figures."""
    command = [sys.executable, "-c", _MEASURE, f"{path}@{BASE:#x}", str(root), str(VTCR)]
    runs = [
        json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        for _ in range(3)
    ]
    best: dict[str, float] = min(runs, key=lambda run: float(run["seconds"]))
    return best


def _count(text: str) -> int:
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    return int(text[:-1]) * units[text[-1]] if text[-1] in units else int(text)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how mapping a stage 2 grows with it.")
    parser.add_argument("--leaves", nargs="+", type=_count, default=[1 << 20, 4 << 20, 16 << 20])
    parser.add_argument("--holes", type=int, default=64, help="one page in this many is not mapped")
    parser.add_argument("--keep", type=Path, help="leave the files in this folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        found = []
        for leaves in arguments.leaves:
            path = folder / f"stage2-{leaves}.img"
            root = generate(path, leaves, arguments.holes)
            run = measure(path, root)
            found.append((leaves, run["seconds"]))
            cost = f"{run['seconds']:8.3f} s CPU  {1e9 * run['seconds'] / leaves:6.1f} ns a leaf"
            size = f"{run['rows']:>9,} rows  {run['mapped'] / (1 << 30):9.2f} GiB mapped"
            peak = f"peak {run['peak_kib'] / 1024:.0f} MiB"
            print(f"{leaves:>12,} leaves  {cost}  {size}  {peak}  root {root:#x}, VTCR_EL2 {VTCR:#x}")
            if not arguments.keep:
                path.unlink()
    for (fewer, sooner), (more, later) in itertools.pairwise(found):
        print(f"{more / fewer:.1f} times the leaves: {later / sooner:.2f} times the time")


if __name__ == "__main__":
    main()
