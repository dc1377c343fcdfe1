"""Which QEMUs the oracle asks: those of ``GDBHYP_QEMU``, separated by ``:``, else PATH's and Debian's backport."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .compare import Report, summary
from .machine import Machine, missing_tools

ROOT = Path(__file__).parents[2]
CI = bool(os.environ.get("CI"))

Start = Callable[[str, str], Machine]

REPORTS = pytest.StashKey[list[Report]]()


def unavailable(reason: str) -> None:
    """Skip here, fail in CI: a missing oracle must not look like a passed one."""
    if CI:
        pytest.fail(reason)
    pytest.skip(reason)


def backport() -> str:
    """Return the path of the backported QEMU, fetching it on first use."""
    script = ROOT / "qemu-scripts" / "lib" / "get-qemu10"
    done = subprocess.run([str(script)], capture_output=True, text=True, check=False, timeout=240)
    if done.returncode:
        unavailable(f"no newer QEMU: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout.strip()


def qemu_names() -> list[str]:
    return os.environ["GDBHYP_QEMU"].split(":") if os.environ.get("GDBHYP_QEMU") else ["system", "backport"]


@pytest.fixture(scope="session", params=qemu_names())
def qemu(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    path = {"system": lambda: "qemu-system-aarch64", "backport": backport}.get(name, lambda: name)()
    missing = missing_tools(path)
    if missing:
        unavailable(f"not installed: {', '.join(missing)}")
    return shutil.which(path) or path


@pytest.fixture
def reports(request: pytest.FixtureRequest) -> list[Report]:
    """The reports that the run's summary shows."""
    return request.config.stash.setdefault(REPORTS, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    reports = config.stash.get(REPORTS, [])
    if reports:
        terminalreporter.section("AT oracle")
        for line in summary(reports, histogram=config.get_verbosity() > 0):
            terminalreporter.write_line(line)


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Return a function that makes a machine of a QEMU binary and a CPU model."""
    return lambda qemu, model: Machine(qemu, model, tmp_path)
