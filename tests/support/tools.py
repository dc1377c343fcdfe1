"""Tools that tests need: missing ones skip locally and fail where CI is set."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def missing(what: str) -> None:
    """Skip the test for want of ``what``, or fail it in CI."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} is missing, which CI must have", pytrace=False)
    pytest.skip(f"{what} is missing")


def need(program: str) -> str:
    """Return the path of ``program``."""
    path = shutil.which(program)
    if path is None:
        missing(program)
    assert path is not None
    return path


def gdb_multiarch() -> str:
    """Return the distribution's GDB for all architectures."""
    return need("gdb-multiarch")


def newest_gdb() -> str:
    """Return the GDB of the optional extra ``gdbhyp[gdb]``, which lies beside this Python."""
    path = Path(sys.executable).parent / "gdb"
    if not path.exists():
        missing("gdb-for-pwndbg (the extra 'gdb')")
    return str(path)


def qemu() -> str:
    """Return the qemu-system-aarch64 to test with; GDBHYP_QEMU overrides the one in PATH."""
    return os.environ.get("GDBHYP_QEMU") or need("qemu-system-aarch64")


@cache
def newest_qemu() -> str:
    """Return the qemu-system-aarch64 of Debian's backports, which has a plugin API of today; it is fetched once."""
    script = ROOT / "qemu-scripts" / "lib" / "get-qemu10"
    run = subprocess.run([str(script)], capture_output=True, text=True, check=False)
    if run.returncode:
        missing(f"a newer QEMU ({run.stderr.strip()})")
    return run.stdout.strip()
