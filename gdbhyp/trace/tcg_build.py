"""Building our TCG plugin: one C file, the machine's compiler, and no header of QEMU or GLib."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from gdbhyp.errors import BadInput, NoTarget

SOURCE = Path(__file__).with_name("tcg_plugin.c")

_COMPILERS = ("cc", "gcc", "clang")
_FLAGS = ("-shared", "-fPIC", "-O2", "-Wall", "-fvisibility=hidden")


@dataclass(frozen=True)
class PluginReport:
    """Where the TCG plugin is; ``path`` is None while it is not built. ``option`` is what to start QEMU with."""

    kind: ClassVar[str] = "trace_plugin"

    source: str
    path: str | None
    option: str | None


def find() -> PluginReport:
    """Return where the plugin is built, or would be from."""
    path = _place()
    return _report(path if path.exists() else None)


def build(output: str | None = None) -> PluginReport:
    """Build the plugin to ``output``, or once to the cache.

    :raises NoTarget: if there is no compiler, or it fails.
    :raises BadInput: if the file cannot be written.
    """
    path = _place() if output is None else Path(output).absolute()
    if output is None and path.exists():
        return _report(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A compiler that is killed may have children that still write.
        with tempfile.TemporaryDirectory(
            dir=path.parent, prefix=".gdbhyp-", ignore_cleanup_errors=True
        ) as folder:
            made = Path(folder) / path.name
            _compile(made)
            os.replace(made, path)
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror}") from None
    return _report(path)


def _compile(output: Path) -> None:
    names = (os.environ.get("CC"), *_COMPILERS)
    compiler = next((found for name in names if name and (found := shutil.which(name))), None)
    if compiler is None:
        raise NoTarget("building the TCG plugin needs a C compiler: install gcc or clang, or set CC")
    command = [compiler, *_FLAGS, "-o", str(output), str(SOURCE)]
    # Its own temporary files, too, go to the folder that is removed: killed by Ctrl-C, it would leave them.
    environment = {**os.environ, "TMPDIR": str(output.parent)}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if run.returncode:
        said = run.stderr.strip().splitlines()
        raise NoTarget(f"{compiler} cannot build {SOURCE}: {said[0] if said else 'it does not say why'}")


def _place() -> Path:
    """Return where this version of the plugin belongs; the name says which source it was built from."""
    cache = os.environ.get("GDBHYP_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "gdbhyp"
    )
    version = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    return Path(cache) / "tcg-plugin" / f"gdbhyp-trace-{version}.so"


def _report(path: Path | None) -> PluginReport:
    return PluginReport(
        str(SOURCE), None if path is None else str(path), None if path is None else _option(str(path))
    )


def _option(path: str) -> str:
    """Return QEMU's option as a shell is told it; a comma would begin the plugin's own options, unless it is doubled.

    >>> _option("/home/a b/c,d.so")
    "-plugin '/home/a b/c,,d.so'"
    """
    return f"-plugin {shlex.quote(path.replace(',', ',,'))}"
