"""The QEMU process behind the connection, if it runs on this machine, and what it was told to log."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

# A wrapper may start QEMU by the dynamic linker, with options of that before the program.
_PROGRAM_WORDS = 6
_UCRED = struct.Struct("3i")


@dataclass(frozen=True)
class LogOptions:
    """QEMU's own ``-d`` items and ``-D`` file, as given when it started; the file is absolute."""

    items: str | None
    file: str | None


def peer_process() -> int | None:
    """Return the process at the other end of one of GDB's sockets that looks like QEMU, None if there is none here."""
    for connection in _own_sockets():
        with connection:
            process = _peer_of(connection)
        if process is not None and any("qemu-system" in word for word in _command(process)[:_PROGRAM_WORDS]):
            return process
    return None


def log_options(process: int) -> LogOptions:
    """Return what the command line of QEMU says about its log."""
    words = _command(process)
    values = {word.lstrip("-"): value for word, value in pairwise(words) if word.startswith("-")}
    file = values.get("D")
    if file is not None:
        with contextlib.suppress(OSError):
            file = os.path.join(os.readlink(f"/proc/{process}/cwd"), file)
    return LogOptions(values.get("d"), file)


def logs_to_regular_file(process: int) -> bool:
    """Return whether the stderr of QEMU, where it logs by itself, is a file; True if that cannot be known."""
    try:
        return stat.S_ISREG(os.stat(f"/proc/{process}/fd/2").st_mode)
    except OSError:
        return True


def _command(process: int) -> list[str]:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().decode("utf-8", "surrogateescape").split("\0")
    except OSError:
        return []


def _own_sockets() -> Iterator[socket.socket]:
    for name in sorted(os.listdir("/proc/self/fd"), key=int):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                yield socket.socket(fileno=os.dup(int(name)))


def _peer_of(connection: socket.socket) -> int | None:
    try:
        if connection.family == socket.AF_UNIX:
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
            return int(_UCRED.unpack(credentials)[0]) or None
        if connection.family in (socket.AF_INET, socket.AF_INET6):
            return _owner_of(connection.getpeername()[1], connection.getsockname()[1])
    except OSError:
        return None
    return None


def _owner_of(local_port: int, remote_port: int) -> int | None:
    """Return the process on this machine that has the TCP connection between these ports."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                words = line.split()
                ports = [int(end.rsplit(":", 1)[1], 16) for end in words[1:3]]
                if ports == [local_port, remote_port] and words[9] != "0":
                    return _holder(f"socket:[{words[9]}]")
    return None


def _holder(link: str) -> int | None:
    for process in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{process}/fd"):
                if os.readlink(f"/proc/{process}/fd/{name}") == link:
                    return int(process)
    return None
