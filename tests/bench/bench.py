#!/usr/bin/env python3
"""What gdbhyp costs, each beside its floor: the same reads with nothing done, a bare GDB, a bare Python.

    tests/bench/bench.py [--only PART...] [--rig] [--neighbours FOLDER] [--json FILE] [--compare OLD.json] [--quick]

A table is printed, ratios to the floor in the same run first: medians of several rounds, the best of them, and what is
wanted. The engine and Python processes are measured in processor time, what GDB and QEMU do together by the clock on
the wall; on a busy machine the ratios are what to compare. Over the wire went packets that read registers, reads of
physical memory and other ones, and so many bytes both ways.

``--rig`` also asks a Debian kernel as KVM host and its guest, and measures what recording their world switches costs;
``--neighbours`` the tools that it finds in a folder, on the same stop. ``--json`` writes the numbers, ``--compare``
sets older ones beside.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:1] = [str(HERE.parent), str(HERE.parent.parent)]

from bench.live import live  # noqa: E402
from bench.measure import Row, number, show  # noqa: E402
from bench.offline import offline  # noqa: E402
from bench.rig import rig  # noqa: E402
from bench.starting import starting  # noqa: E402
from bench.trace import trace  # noqa: E402

PARTS = ("start", "live", "offline", "rig", "trace")
ON_THE_RIG = ("rig", "trace")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--rig", action="store_true", help="also boot a Debian kernel as KVM host")
    parser.add_argument(
        "--neighbours", type=Path, metavar="FOLDER", help="holds gef.py, gdb-pt-dump/pt.py, pwndbg/gdbinit.py"
    )
    parser.add_argument("--json", metavar="FILE", help="write the numbers to FILE")
    parser.add_argument("--compare", metavar="OLD.json", help="show the numbers of OLD.json beside")
    parser.add_argument("--quick", action="store_true", help="few rounds, smaller tables: less certain")
    arguments = parser.parse_args()
    rounds = 5 if arguments.quick else 15
    wanted = arguments.only or [part for part in PARTS if part not in ON_THE_RIG or arguments.rig]
    older: dict[str, float] = {}
    if arguments.compare:
        known: list[dict[str, Any]] = json.loads(Path(arguments.compare).read_text())
        older = {row["name"]: row["value"] for row in known}
    parts: dict[str, Callable[[Path], Iterator[Row]]] = {
        "start": lambda place: starting(max(5, rounds // 3)),
        "live": lambda place: live(place, rounds),
        "offline": lambda place: offline(place, 5, arguments.quick),
        "rig": lambda place: rig(place, max(5, rounds // 3), arguments.neighbours),
        "trace": lambda place: trace(place, 200 if arguments.quick else 1000),
    }
    with tempfile.TemporaryDirectory(prefix="gdbhyp-bench-") as folder:
        rows = []
        for part in wanted:
            for row in parts[part](Path(folder)):
                rows.append(row)
                print(f"{row.name}: {number(row.value)} {row.unit}", file=sys.stderr)
    print(show(rows, older))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
