"""Fuzz for as long as is wanted: ``cd tests && python -m fuzz [TARGET…] [--seconds N | --runs N] [--by chance]``.

Guided by coverage where atheris is installed (``pip install 'gdbhyp[fuzz]'``), by chance where it is not, or where
that is asked for: chance is several times as fast, and starts from what coverage has found in ``--findings``. Each
target runs in a process of its own, which ends when one input takes over a second of processor time, or the process
more memory than is said in ``fuzz.limits``. What fails is written to ``--findings`` and becomes a test. The last line
of a target says how many inputs it was given, and in which way.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import itertools
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fuzz.limits import SECONDS, bound_memory, bound_time
from fuzz.mutate import mutations

_FOREVER = 1 << 62
_WAYS = ("coverage", "chance")


def main() -> int:
    """Run every target that is named, or all, one after another; return how many failed."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help="one of fuzz.targets; all if none is named"
    )
    parser.add_argument("--seconds", type=int, default=60, help="how long each target runs; 60 if not said")
    parser.add_argument(
        "--runs", type=int, help="how many inputs each target is given, however long that takes"
    )
    parser.add_argument(
        "--by", choices=_WAYS, help="coverage if atheris is installed, else chance, if not said"
    )
    parser.add_argument("--findings", default="findings", help="where inputs that fail are written")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    way = arguments.by or _WAYS[importlib.util.find_spec("atheris") is None]
    findings = Path(arguments.findings)
    findings.mkdir(exist_ok=True)
    if arguments.one:
        fuzz = _by_coverage if way == "coverage" else _by_chance
        fuzz(arguments.targets[0], arguments.seconds, arguments.runs, findings)
        return 0
    known = importlib.import_module("fuzz.targets").TARGETS
    unknown = set(arguments.targets) - set(known)
    if unknown:
        parser.error(f"there is no target {sorted(unknown)[0]}; they are {', '.join(known)}")
    options = ["--one", "--by", way, "--seconds", str(arguments.seconds), "--findings", str(findings)]
    options += ["--runs", str(arguments.runs)] if arguments.runs else []
    return sum(_in_a_process(name, options) for name in arguments.targets or known)


def _in_a_process(name: str, options: Sequence[str]) -> bool:
    """Run a target; say how it went, and return whether it failed."""
    command = [sys.executable, "-m", "fuzz", name, *options]
    run = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace")
    last = run.stderr.strip().splitlines()
    ran = next((line for line in reversed(last) if line.startswith(("Done ", "stat::number_of_exec"))), "")
    shown = last[-25:] if run.returncode else [ran]
    print(f"{name}: {'failed' if run.returncode else 'passed'}", *shown, sep="\n  ", flush=True)
    return run.returncode != 0


def _by_chance(name: str, seconds: int, count: int | None, findings: Path) -> None:
    target = importlib.import_module("fuzz.targets").TARGETS[name]
    run, seeds = bound_time(target.run), [*target.seeds(), *_found(findings, name)]
    end = None if count else time.monotonic() + seconds
    bound_memory()
    runs = 0
    inputs = mutations(seeds, _FOREVER, target.longest, seed=time.time_ns())
    for runs, data in enumerate(itertools.islice(inputs, count), 1):
        try:
            run(data)
        except BaseException:
            (findings / f"{name}-{runs}").write_bytes(data)
            raise
        if end is not None and time.monotonic() > end:
            break
    print(f"Done {runs} runs by chance from {len(seeds)} seeds", file=sys.stderr)


def _found(findings: Path, name: str) -> list[bytes]:
    """Return the inputs that reached something new when coverage was asked."""
    return [path.read_bytes() for path in sorted((findings / f"corpus-{name}").glob("*"))]


def _by_coverage(name: str, seconds: int, count: int | None, findings: Path) -> None:
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["gdbhyp"]):
        target = importlib.import_module("fuzz.targets").TARGETS[name]
        for module in _modules():
            importlib.import_module(module)
    corpus = findings / f"corpus-{name}"
    corpus.mkdir(exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed[: target.longest])
    bound_memory()
    options = [f"-runs={count}"] if count else [f"-max_total_time={seconds}"]
    # The library's own limits stand behind those of fuzz.limits, for code that no signal interrupts.
    options += ["-rss_limit_mb=1024", f"-timeout={int(60 * SECONDS)}", f"-max_len={target.longest}"]
    options += [f"-artifact_prefix={findings}/{name}-", "-print_final_stats=1"]
    atheris.Setup(["fuzz", *options, str(corpus)], bound_time(target.run))
    atheris.Fuzz()


def _modules() -> list[str]:
    """Return the modules of gdbhyp that a target may import later, which would not be instrumented then."""
    package = Path(importlib.import_module("gdbhyp").__path__[0])
    names = (path.relative_to(package.parent).with_suffix("") for path in sorted(package.rglob("*.py")))
    dotted = (".".join(name.parts).removesuffix(".__init__") for name in names)
    return [name for name in dotted if not name.startswith(("gdbhyp.plugin", "gdbhyp.gdbinit"))]


if __name__ == "__main__":
    sys.exit(main())
