"""Run the oracle by hand: ``python -m tests.oracle --cases 100000 --model max``, from the repository's root."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import tempfile
from pathlib import Path

from .compare import compare
from .machine import Machine
from .quirks import Difference


def line(difference: Difference) -> str:
    """Return the case as ``gdbhyp at`` reads it, with both answers."""
    answers = {"qemu": hex(difference.par), "ours": hex(difference.ours.par)}
    return json.dumps({**difference.case, **answers})


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.oracle", description=__doc__)
    parser.add_argument("--qemu", default="qemu-system-aarch64", help="the QEMU binary to ask")
    parser.add_argument("--model", default="max", help="its -cpu argument")
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument(
        "--histogram", action="store_true", help="count outcomes by regime, granule, kind, level and stage"
    )
    parser.add_argument("--examples", action="store_true", help="show a case for each known difference")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gdbhyp-oracle-") as directory:
        machine = Machine(arguments.qemu, arguments.model, Path(directory))
        report = compare(machine, arguments.seed, arguments.cases)
    print("\n".join(report.lines(histogram=arguments.histogram)))
    if arguments.examples:
        for name, difference in sorted(report.examples.items()):
            print(f"{name}: {line(difference)}")
    for difference in report.unexplained[:20]:
        print(f"unexplained: {line(difference)}")
    return 1 if report.unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
