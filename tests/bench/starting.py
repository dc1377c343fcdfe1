"""What loading the plugin adds to GDB, and what a whole ``gdbhyp`` process takes."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench.measure import MS, Row, children_time, timed
from support import tools

GDBINIT = tools.ROOT / "gdbhyp" / "gdbinit.py"
PROGRAM = [sys.executable, "-m", "gdbhyp.cli.main"]


def process_ms(command: Sequence[str], rounds: int, clock: Callable[[], float]) -> list[float]:
    """Return what whole processes took, by ``clock``."""

    def run() -> None:
        subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)

    return [1e3 * seconds for seconds in timed(run, rounds, clock)]


def gdbs() -> list[tuple[str, str]]:
    """Return the GDBs at hand."""
    own = Path(sys.executable).parent / "gdb"
    found = [("13.1", shutil.which("gdb-multiarch")), ("18.1", str(own) if own.exists() else None)]
    return [(name, path) for name, path in found if path]


def loading_ms(program: str) -> float:
    """Return the processor time that ``source gdbinit.py`` takes in a new GDB."""
    before = "python import time; start = time.process_time()"
    after = "python print((time.process_time() - start) * 1e3)"
    command = [program, "-nx", "-q", "-batch", "-ex", before, "-ex", f"source {GDBINIT}", "-ex", after]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def starting(rounds: int) -> Iterator[Row]:
    """Measure it."""
    os.environ["GDBHYP_SITE"] = sysconfig.get_path("purelib")
    for name, program in gdbs():
        bare = [program, "-nx", "-q", "-batch"]
        floor = statistics.median(process_ms(bare, rounds, time.perf_counter))
        whole = process_ms([*bare, "-ex", f"source {GDBINIT}"], rounds, time.perf_counter)
        loads = [loading_ms(program) for _ in range(rounds)]
        yield Row(f"loading into GDB {name}", statistics.median(loads), MS, 100, least=min(loads))
        yield Row(
            f"GDB {name} with the plugin, whole process",
            statistics.median(whole),
            MS,
            None,
            floor,
            least=min(whole),
        )
    floor = statistics.median(process_ms([sys.executable, "-c", "pass"], rounds, children_time))
    for name, more in (("gdbhyp esr, whole process", []), ("gdbhyp esr --json", ["--json"])):
        took = process_ms([*PROGRAM, "esr", "0x93c58045", *more], rounds, children_time)
        yield Row(name, statistics.median(took), MS, 80, floor, least=min(took))
