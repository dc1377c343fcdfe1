"""A QEMU with its gdbstub and monitor on unix sockets of a folder of its own."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.tools import qemu

_PATIENCE = 60.0


@dataclass
class Machine:
    """A running QEMU; ``gdb`` and ``monitor`` are socket paths."""

    process: subprocess.Popen[bytes]
    gdb: Path
    monitor: Path
    stderr: Path

    def said(self) -> str:
        """Return QEMU's stderr, for a failure's message."""
        return self.stderr.read_text(errors="replace")

    def command(self, line: str) -> str:
        """Run a line in QEMU's monitor and return its answer."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_PATIENCE)
            connection.connect(str(self.monitor))
            _until_prompt(connection)
            connection.sendall(line.encode() + b"\n")
            answer = _until_prompt(connection).decode(errors="replace")
        return answer.split("\n", 1)[1].rsplit("(qemu)", 1)[0].replace("\r", "")


def _until_prompt(connection: socket.socket) -> bytes:
    received = b""
    while not received.endswith(b"(qemu) "):
        part = connection.recv(65536)
        if not part:
            raise ConnectionError(f"QEMU's monitor closed after {received!r}")
        received += part
    return received


@contextlib.contextmanager
def machine(
    folder: Path, arguments: Sequence[str], *, paused: bool = True, program: str | None = None
) -> Iterator[Machine]:
    """Start QEMU, or another ``program`` of its kind, with ``arguments``; it is ended when the block is left."""
    gdb, monitor, stderr = folder / "gdb.sock", folder / "monitor.sock", folder / "qemu.stderr"
    command = [
        program or qemu(),
        *arguments,
        *("-display", "none", "-nodefaults"),
        *("-gdb", f"unix:{gdb},server=on,wait=off"),
        *("-monitor", f"unix:{monitor},server=on,wait=off"),
        *(["-S"] if paused else []),
    ]
    with stderr.open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        running = Machine(process, gdb, monitor, stderr)
        _wait_for_sockets(running)
        yield running
    finally:
        process.kill()
        process.wait()


def _wait_for_sockets(running: Machine) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not (running.gdb.exists() and running.monitor.exists()):
        if running.process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"QEMU did not start: {running.said()}")
        time.sleep(0.01)
