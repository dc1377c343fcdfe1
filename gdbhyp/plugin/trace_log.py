"""World switches from QEMU's own exception log: every one of them, at nearly the machine's own speed.

QEMU is told by its monitor to log exceptions to a file of ours, or, if it logs to a file already, to log them there as
well; that file is then read from where it ended. There is no other way to leave a log that exists as it is: QEMU 10
empties a file that it is told to log to.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import gdb

from gdbhyp.errors import NoTarget
from gdbhyp.plugin.capture import captured
from gdbhyp.plugin.trace_drain import Drain, interrupt
from gdbhyp.plugin.trace_process import LogOptions, log_options, logs_to_regular_file, peer_process
from gdbhyp.trace.events import Event, Lost
from gdbhyp.trace.files import log_notes
from gdbhyp.trace.qemu_log import QemuLogParser
from gdbhyp.trace.ring import Recording

_CHUNK = 1 << 20
_PATIENCE = 2.0
# What may wait in the file until the machine stops, and what has to be free where it is.
_UNREAD = 16 << 20
_ROOM = 4 << 20
_PAGE = 4096
_KEEP_SIZE_AND_PUNCH_HOLE = 3


class LogSource:
    """The recording by ``monitor log int``. ``failure`` says why it cannot go on; it has to be closed then.

    The machine is stopped for that, because only a machine that stands can be told to log no more.
    """

    name = "log"

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.notes: list[str] = []
        self.failure: str | None = None
        self._parser = QemuLogParser()
        connection = gdb.selected_inferior().connection
        self._details = "" if connection is None else connection.details or ""
        self._folder: str | None = None
        self._farewell: threading.Thread | None = None
        self._closed = False
        self._process, self._options = _usable_process()
        self._path = self._prepare()
        self._file: BinaryIO | None = None
        try:
            self._offset = os.path.getsize(self._path) if os.path.exists(self._path) else 0
            self._begin()
        except BaseException:
            self.close()
            raise
        self._drain = Drain(self._read, self._pressing)

    def _prepare(self) -> str:
        """Return the file to read: QEMU's own, or a new one."""
        if self._options.file is not None:
            return self._options.file
        self._folder = tempfile.mkdtemp(prefix="gdbhyp-trace-")
        return os.path.join(self._folder, "int.log")

    def _begin(self) -> None:
        said = ""
        if self._folder is not None:
            said = _monitor(f"logfile {monitor_quoted(self._path)}")
        items = self._options.items
        said += _monitor("log " + (f"{items},int" if items else "int"))
        if not os.path.exists(self._path):
            raise NoTarget(
                f"QEMU cannot write its log to {self._path}: {said.strip() or 'the file did not appear'}"
            )
        # Opened once: a log that is rotated away goes on to be written, and read, under its new name.
        self._file = Path(self._path).open("rb")  # noqa: SIM115 (close() closes it)

    def catch_up(self) -> None:
        """Record what QEMU has logged by now."""
        if self._farewell is not None:
            self._farewell.join()
            self._farewell = None
            self._finish()
        elif not self._closed:
            self._drain.now()

    def _pressing(self) -> bool:
        return self._file is not None and os.fstat(self._file.fileno()).st_size - self._offset > _UNREAD

    def _read(self) -> None:
        file = self._file
        if file is None or self.failure is not None:
            return
        try:
            if os.fstat(file.fileno()).st_size < self._offset:
                self.recording.add(Lost(-1, 1, "the log was emptied by somebody else"))
                self._offset = 0
            for event in self._new_events(file):
                self.recording.add(event)
            if not self._closed and _room(self._path) < _ROOM:
                self._fail(
                    f"the disk with QEMU's log {self._path} is full: exceptions from here on would be missing"
                )
        except OSError as error:
            self._fail(f"QEMU's log {self._path} cannot be read: {error.strerror}")

    def _fail(self, reason: str) -> None:
        self.failure = reason
        gdb.post_event(interrupt)

    def _new_events(self, file: BinaryIO) -> Iterator[Event]:
        file.seek(self._offset)
        while chunk := file.read(_CHUNK):
            self._offset += len(chunk)
            yield from self._parser.feed(chunk)
        if self._folder is not None:
            _forget(self._path, self._offset)

    def at_stop(self) -> None:
        """Read while the machine stands."""
        self.catch_up()

    def at_resume(self) -> None:
        """Nothing is to be done."""

    def at_prompt(self) -> None:
        """Nothing is held."""

    def close(self) -> None:
        """Tell QEMU to log what it did before, and read the end."""
        command = f"log {self._options.items or 'none'}"
        try:
            _monitor(command)
            if self._folder is not None and not logs_to_regular_file(self._process):
                # QEMU logs to its stderr again, if somebody asks it to log; a file would be emptied by this.
                _monitor("logfile /dev/stderr")
        except NoTarget:
            # GDB lets go of the connection, but has not closed it yet: QEMU hears us only after that.
            self._farewell = threading.Thread(target=self._say_farewell, args=(command,))
            self._farewell.start()
        else:
            self._finish()

    def _say_farewell(self, command: str) -> None:
        if os.path.exists(f"/proc/{self._process}") and not _tell_stub(self._details, command):
            self.notes.append(f"QEMU could not be told to stop logging: type '{command}' in its monitor")

    def _finish(self) -> None:
        self._closed = True
        if self._file is not None:
            self._drain.end()
            self._read()
            self._file.close()
            self._file = None
            for event in self._parser.finish():
                self.recording.add(event)
            self.notes.extend(log_notes(self._parser))
        if self._folder is not None:
            # QEMU may keep the file open, and a file that is only removed would keep its place on the disk.
            with contextlib.suppress(OSError):
                os.truncate(self._path, 0)
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _room(path: str) -> int:
    """Return the bytes that are free on the disk of ``path``."""
    disk = os.statvfs(os.path.dirname(path))
    return disk.f_bavail * disk.f_frsize


def _forget(path: str, size: int) -> None:
    """Give the disk space of a file's beginning back; a file system that cannot do that keeps it."""
    with contextlib.suppress(OSError), open(path, "r+b") as file:
        libc = ctypes.CDLL(None)
        libc.fallocate(
            file.fileno(), _KEEP_SIZE_AND_PUNCH_HOLE, ctypes.c_int64(0), ctypes.c_int64(size & -_PAGE)
        )


def _usable_process() -> tuple[int, LogOptions]:
    """Return the QEMU behind the connection, and what it logs now.

    :raises NoTarget: if its log cannot be read here, or not be given back afterwards.
    """
    process = peer_process()
    if process is None:
        raise NoTarget("QEMU's log needs a QEMU that runs on this machine: use --source break")
    options = log_options(process)
    if options.file is not None and "%" in options.file:
        raise NoTarget("QEMU logs each thread to a file of its own: use --source break")
    if options.items is not None and options.file is None:
        raise NoTarget(
            "QEMU logs to its stderr (-d without -D), which its monitor cannot give back: use --source break, or start "
            "QEMU with -D FILE"
        )
    return process, options


def _monitor(command: str) -> str:
    """Run a command of QEMU's monitor; return what it said.

    :raises NoTarget: if the stub has no monitor.
    """
    try:
        return captured(f"monitor {command}")
    except gdb.error as error:
        raise NoTarget(f"the stub has no QEMU monitor ({error}): use --source break") from None


def monitor_quoted(path: str) -> str:
    r"""Return a path as QEMU's monitor takes it: in quotes, with the escapes that it knows.

    >>> monitor_quoted('/tmp/a "b"')
    '"/tmp/a \\"b\\""'
    """
    escaped = path.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n").replace("\r", r"\r")
    return f'"{escaped}"'


def _tell_stub(details: str, command: str) -> bool:
    """Run a monitor command after GDB has detached, by a short connection of our own; return whether it was taken.

    QEMU stops the machine when a debugger connects, and lets it run on when it detaches.
    """
    with contextlib.suppress(OSError, ValueError), _connect(details) as connection:
        connection.settimeout(_PATIENCE)
        # QEMU still counts processes as GDB had asked it to: the machine is process 1.
        for payload in (f"qRcmd,{command.encode().hex()}", "D;1"):
            connection.sendall(f"${payload}#{sum(payload.encode()) & 0xFF:02x}".encode())
            if not _until_ok(connection):
                return False
        return True
    return False


def _connect(details: str) -> socket.socket:
    if os.path.exists(details):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_PATIENCE)
        connection.connect(details)
        return connection
    host, _, port = details.rpartition(":")
    return socket.create_connection((host or "localhost", int(port)), _PATIENCE)


def _until_ok(connection: socket.socket) -> bool:
    """Acknowledge packets until one says OK; output of the monitor and stop replies may come before."""
    received = b""
    while b"$OK#9a" not in received:
        part = connection.recv(4096)
        if not part:
            return False
        connection.sendall(b"+" * part.count(b"#"))
        received += part
    return True
