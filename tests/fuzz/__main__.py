"""Fuzz for as long as is wanted: ``cd tests && python -m fuzz [TARGET…] [--seconds N]``.

Guided by coverage where atheris is installed (``pip install atheris``), by chance where it is not. Each target runs in
a process of its own, which is ended when one input takes over a second of processor time, or memory passes the bound.
What fails is written to ``--findings`` and becomes a test.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import resource
import subprocess
import sys
import time
from pathlib import Path

from fuzz.mutate import mutations
from fuzz.targets import TARGETS, Target

_MEMORY = 1024  # MiB
_SLOWEST = 1  # seconds of processor time for an input, before it is repeated to be sure


def main() -> int:
    """Run every target that is named, or all, one after another; return how many failed."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=60, help="how long each target runs; 60 if not said")
    parser.add_argument("--findings", default="findings", help="where inputs that fail are written")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    unknown = set(arguments.targets) - set(TARGETS)
    if unknown:
        parser.error(f"there is no target {sorted(unknown)[0]}; they are {', '.join(TARGETS)}")
    findings = Path(arguments.findings)
    findings.mkdir(exist_ok=True)
    if arguments.one:
        _fuzz(arguments.targets[0], arguments.seconds, findings)
        return 0
    failed = 0
    for name in arguments.targets or TARGETS:
        command = [sys.executable, "-m", "fuzz", name, "--one", "--seconds", str(arguments.seconds)]
        run = subprocess.run([*command, "--findings", str(findings)], stderr=subprocess.PIPE, text=True)
        last = run.stderr.strip().splitlines()[-12:]
        figures = [line.removeprefix("stat::") for line in last if line.startswith("stat::")] or last[-1:]
        verdict, shown = ("failed", last) if run.returncode else ("passed", figures)
        print(f"{name}: {verdict}", *shown, sep="\n  ")
        failed += run.returncode != 0
    return failed


def _fuzz(name: str, seconds: int, findings: Path) -> None:
    target = TARGETS[name]
    if importlib.util.find_spec("atheris") is None:
        _by_chance(target, name, seconds, findings)
    else:
        _by_coverage(target, name, seconds, findings)


def _by_chance(target: Target, name: str, seconds: int, findings: Path) -> None:
    _bound_memory()
    end, runs = time.monotonic() + seconds, 0
    for data in mutations(target.seeds(), 1 << 62, target.longest, seed=time.time_ns()):
        if time.monotonic() > end:
            break
        runs += 1
        try:
            began = time.process_time()
            target.run(data)
            if time.process_time() - began > _SLOWEST:
                raise TimeoutError("over a second of processor time")
        except BaseException:
            (findings / f"{name}-{runs}").write_bytes(data)
            raise
    print(f"{runs} runs by chance in {seconds} s", file=sys.stderr)


def _bound_memory() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY << 20, _MEMORY << 20))


def _by_coverage(target: Target, name: str, seconds: int, findings: Path) -> None:
    atheris = importlib.import_module("atheris")
    corpus = findings / f"corpus-{name}"
    corpus.mkdir(exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed[: target.longest])
    options = [f"-max_total_time={seconds}", f"-rss_limit_mb={_MEMORY}", f"-max_len={target.longest}"]
    options += [f"-timeout={10 * _SLOWEST}", f"-artifact_prefix={findings}/{name}-", "-print_final_stats=1"]
    atheris.instrument_all()
    atheris.Setup(["fuzz", *options, str(corpus)], target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
