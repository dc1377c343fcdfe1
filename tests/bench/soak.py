#!/usr/bin/env python3
"""Whether anything piles up over a long time: memory of GDB while a KVM host is recorded, asked, and attached to.

    tests/bench/soak.py [--seconds N] [--rounds N] [--attach N] [--json FILE]

By default an hour of recording (QEMU's log, followed), 500 rounds of hyp-map, hyp-vms and hyp-snapshot in one GDB, and
200 attaches. Each row says what was done, GDB's resident memory before, half-way and after, and what a round added.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:1] = [str(HERE.parent), str(HERE.parent.parent)]

from kvm.debugger import Debugger  # noqa: E402
from kvm.rig import NVHE, Rig, boot, build_initramfs  # noqa: E402
from support import tools  # noqa: E402
from support.gdb_session import GdbSession  # noqa: E402
from support.growth import Growth, growth  # noqa: E402
from tabulate import tabulate  # noqa: E402

_FOLLOWED = 10  # seconds of a round of following
_WARM_UP = 20


@contextmanager
def attached(rig: Rig, folder: Path) -> Iterator[Debugger]:
    """A GDB with the plugin at the rig."""
    with GdbSession(tools.gdb_multiarch(), folder) as session:
        session.run("set architecture aarch64")
        session.run(f"source {tools.ROOT / 'gdbhyp' / 'gdbinit.py'}")
        session.run(f"target remote {rig.machine.gdb}")
        yield Debugger(session, rig)


def recording(debugger: Debugger, seconds: int) -> Growth:
    """Follow a recording of 20,000 events for so long."""
    session = debugger.session
    session.run("hyp-trace start --source log --buffer 20000")
    line = f"hyp-trace follow --interval 1 --seconds {_FOLLOWED} --json"
    measured = growth(session.pid, lambda: session.run(line), max(1, seconds // _FOLLOWED), 2)
    print(session.run("hyp-trace status"))
    session.run("hyp-trace stop")
    return measured


def asking(debugger: Debugger, line: str, rounds: int) -> Growth:
    """Ask the same again, each time at another stop."""

    def one() -> None:
        debugger.run_for(0.005)
        debugger.session.run(line)

    return growth(debugger.session.pid, one, rounds, _WARM_UP)


def attaching(debugger: Debugger, times: int) -> Growth:
    """Let go and attach again."""

    def one() -> None:
        debugger.session.run("detach")
        debugger.session.run(f"target remote {debugger.rig.machine.gdb}")
        debugger.session.run("hyp-status")

    # The kernel's names are read once, at the first stop that needs them.
    debugger.session.run("hyp-vms")
    return growth(debugger.session.pid, one, times, _WARM_UP)


def main() -> None:
    """Run all, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=3600, help="how long a recording is followed")
    parser.add_argument("--rounds", type=int, default=500, help="how often each question is asked")
    parser.add_argument("--attach", type=int, default=200, help="how often GDB lets go and attaches again")
    parser.add_argument("--json", help="write the figures to this file, too")
    arguments = parser.parse_args()
    results: dict[str, Growth] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        snapshot = f"hyp-snapshot --tables-only {folder / 'one.core'}"
        steps: dict[str, Callable[[Debugger], Growth]] = {
            f"{arguments.seconds} s of recording": lambda d: recording(d, arguments.seconds),
            "hyp-map": lambda d: asking(d, "hyp-map --max-tables 300", arguments.rounds),
            "hyp-vms": lambda d: asking(d, "hyp-vms", arguments.rounds),
            "hyp-snapshot": lambda d: asking(d, snapshot, arguments.rounds),
            "attach": lambda d: attaching(d, arguments.attach),
        }
        initramfs = build_initramfs(folder)
        with boot(folder, NVHE, initramfs, "rig.vms=2 rig.spin=10000 rig.mmio-lines=0") as rig:
            for what, step in steps.items():
                # A GDB of its own for each, so that one does not hide what another leaves.
                with attached(rig, folder) as debugger:
                    results[what] = step(debugger)
    rows = [(what, m.rounds, m.before, m.middle, m.after, f"{m.a_round:.2f}") for what, m in results.items()]
    print(tabulate(rows, ("what", "rounds", "KiB before", "half-way", "KiB after", "KiB a round")))
    if arguments.json:
        document = {what: asdict(measured) for what, measured in results.items()}
        Path(arguments.json).write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
