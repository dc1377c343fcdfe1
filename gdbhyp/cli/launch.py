"""``gdbhyp gdb``: find a GDB that knows AArch64 and start it with the plugin."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from gdbhyp.errors import GdbhypError

_OLDEST = 12


def gdbinit_path() -> Path:
    """Return the file that a GDB has to ``source``."""
    return Path(__file__).resolve().parent.parent / "gdbinit.py"


def gdbinit() -> int:
    """Print the path for ``source``."""
    print(gdbinit_path())
    return 0


def gdb(arguments: list[str]) -> int:
    """Replace this process by a suitable GDB with the plugin loaded; ``arguments`` are GDB's.

    :raises GdbhypError: if no GDB fits, with what was tried.
    """
    program = find_gdb()
    environment = dict(os.environ, GDBHYP_SITE=sysconfig.get_path("purelib"))
    command = [program, "-iex", f"source {gdbinit_path()}", *arguments]
    sys.stdout.flush()
    os.execve(program, command, environment)


def find_gdb() -> str:
    """Return the path of the first GDB that has Python, is new enough, and knows AArch64.

    The environment's own comes first (the optional extra ``gdbhyp[gdb]``), then ``gdb-multiarch``, then ``gdb``.

    :raises GdbhypError: with a reason for each that was tried.
    """
    reasons = []
    for candidate in _candidates():
        reason = unfit(candidate)
        if reason is None:
            return candidate
        reasons.append(f"{candidate} {reason}")
    tried = "; ".join(reasons) or "no gdb-multiarch and no gdb is installed"
    raise GdbhypError(
        f"no GDB here can debug AArch64: {tried}. Install one with 'apt install gdb-multiarch' or "
        "'pip install gdbhyp[gdb]'"
    )


def _candidates() -> Iterator[str]:
    own = Path(sysconfig.get_path("scripts")) / "gdb"
    seen = set()
    for path in (str(own) if own.exists() else None, shutil.which("gdb-multiarch"), shutil.which("gdb")):
        if path is not None and path not in seen:
            seen.add(path)
            yield path


def unfit(program: str) -> str | None:
    """Return why ``program`` does not fit as a verb phrase, or None if it does."""
    probe = (
        "import gdb\n"
        "print('VERSION', gdb.VERSION)\n"
        "try: gdb.execute('set architecture aarch64', to_string=True); print('AARCH64')\n"
        "except gdb.error: pass"
    )
    command = [program, "-nx", "-batch", "-ex", "python exec(" + repr(probe) + ")"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not start ({error})"
    if "VERSION" not in answer:
        return "is built without Python"
    if _version(answer) < _OLDEST:
        return f"is older than GDB {_OLDEST}"
    return None if "AARCH64" in answer else "does not know AArch64"


def _version(answer: str) -> int:
    words = answer.split("VERSION", 1)[1].split()
    digits = words[0].split(".")[0] if words else ""
    return int(digits) if digits.isdigit() else 0
