"""A gdbstub that misbehaves and counts: between GDB and a real stub, it delays, shortens, refuses and drops answers.

It knows the frames of GDB's remote protocol (GDB manual, "Overview" of the Remote Protocol): ``$data#checksum``, ``+``
and ``-``, and the byte 0x03 of an interrupt. What it does to an answer is drawn from a seed, so that a failure can be
repeated. Registers are never shortened: GDB itself takes half a register for a whole one.
"""

from __future__ import annotations

import contextlib
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_FRAME = re.compile(rb"\$([^#]*)#..|[+-]|\x03", re.DOTALL)


def framed(data: bytes) -> bytes:
    """Return ``data`` as a packet."""
    return b"$%s#%02x" % (data, sum(data) & 0xFF)


@dataclass
class Plan:
    """Which faults to inject: each answer of the stub suffers one of ``kinds`` with probability ``rate``.

    ``kinds`` are "delay", "shorten" (memory that is read), "error" (E22), "nak", "drop" and "close", and "lose", which
    is of the request.
    """

    kinds: tuple[str, ...]
    rate: float
    seed: int
    delay: float = 0.05
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def fault(self) -> str | None:
        """Return what happens to the next answer, None for nothing."""
        return self.random.choice(self.kinds) if self.random.random() < self.rate else None


class Proxy:
    """Serves GDB on ``path``; faults are injected while ``plan`` is set, and ``injected`` lists them.

    Each is the kind of fault and the request that was answered so. ``requests`` are what GDB asked, and ``traffic`` is
    how many bytes went both ways.
    """

    def __init__(self, path: Path, stub: Path) -> None:
        self.path = path
        self.plan: Plan | None = None
        self.edit: Callable[[bytes, bytes], bytes] = lambda request, answer: answer
        self.injected: list[tuple[str, bytes]] = []
        self.requests: list[bytes] = []
        self.traffic = 0
        self._stub = stub
        self._request = b""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        """Let go of GDB and of the stub."""
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                gdb = self._listener.accept()[0]
            except OSError:
                return
            stub = socket.socket(socket.AF_UNIX)
            stub.connect(str(self._stub))
            self._sockets += [gdb, stub]
            for target, source, sink in ((self._requests, gdb, stub), (self._answers, stub, gdb)):
                thread = threading.Thread(target=target, args=(source, sink), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _requests(self, gdb: socket.socket, stub: socket.socket) -> None:
        for frame in _frames(gdb):
            self.traffic += len(frame)
            if frame[:1] == b"$":
                self._request = frame[1:-3]
                self.requests.append(self._request)
                if self._is_lost():
                    continue
            if not _sent(stub, frame):
                break
        _hang_up(stub)

    def _is_lost(self) -> bool:
        plan = self.plan
        lost = plan is not None and "lose" in plan.kinds and plan.fault() is not None
        if lost:
            self.injected.append(("lose", self._request))
        return lost

    def _answers(self, stub: socket.socket, gdb: socket.socket) -> None:
        for frame in _frames(stub):
            self.traffic += len(frame)
            answer = self._spoilt(frame, gdb) if frame[:1] == b"$" else frame
            if answer is None or not _sent(gdb, answer):
                break
        _hang_up(gdb)
        _hang_up(stub)

    def _spoilt(self, frame: bytes, gdb: socket.socket) -> bytes | None:
        """Return what GDB gets for an answer, None if it is hung up on."""
        plan, request = self.plan, self._request
        answer = frame[1:-3]
        edited = self.edit(request, answer)
        if edited != answer:
            frame = framed(edited)
        fault = plan.fault() if plan is not None and plan.kinds != ("lose",) else None
        if plan is None or fault is None or (fault == "shorten" and request[:1] not in b"mx"):
            return frame
        self.injected.append((fault, request))
        if fault == "delay":
            time.sleep(plan.random.uniform(0, plan.delay))
        elif fault == "shorten":
            data = frame[1:-3]
            return framed(data[: plan.random.randrange(len(data) + 1)])
        elif fault == "error":
            return framed(b"E22")
        elif fault == "nak":
            return b"-" + frame
        elif fault == "drop":
            return b""
        return None if fault == "close" else frame


def physical(requests: Sequence[bytes]) -> list[bytes]:
    """Return those of ``requests`` that QEMU's stub was sent while it gave physical memory."""
    found: list[bytes] = []
    on = False
    for request in requests:
        if request.startswith(b"Qqemu.PhyMemMode:"):
            on = request.endswith(b"1")
        elif on:
            found.append(request)
    return found


def _frames(source: socket.socket) -> Iterator[bytes]:
    """Yield what a peer sends, a frame at a time, until it hangs up."""
    waiting = b""
    while True:
        try:
            data = source.recv(1 << 16)
        except OSError:
            return
        if not data:
            return
        waiting += data
        end = 0
        for match in _FRAME.finditer(waiting):
            yield match[0]
            end = match.end()
        waiting = waiting[end:]


def _sent(sink: socket.socket, data: bytes) -> bool:
    try:
        sink.sendall(data)
    except OSError:
        return False
    return True


def _hang_up(side: socket.socket) -> None:
    with contextlib.suppress(OSError):
        side.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def proxy(path: Path, stub: Path) -> Iterator[Proxy]:
    """Stand between GDB, which finds the stub at ``path``, and the stub itself."""
    running = Proxy(path, stub)
    try:
        yield running
    finally:
        running.close()
