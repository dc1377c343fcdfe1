"""The memory of a QEMU on this machine, read past its stub: from the file that holds it, or out of the process.

QEMU's monitor says at which address of its process a physical address stands (``gpa2hva``), and the kernel who is at
the other end of GDB's connection. Neither is believed: of each block of memory the first reads are also made through
the stub, and only when enough of them agree does the stub go unasked. Only blocks of RAM are read, never a device.

The file is read and not mapped into GDB, which a file that is made shorter would kill. Both descriptors stay with
what they were opened on, whoever gets the process's number next.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
import struct
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

_AGREEING_READS = 3
"""As many reads that are not all zeros, at different places of a block, have to be the stub's before it is trusted."""

_HOST_ADDRESS = re.compile(r"\bis 0x([0-9a-f]+)")
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) ([0-9a-f]+) [0-9a-f:]+ (\d+) *(.*)")
_CREDENTIALS = struct.Struct("3i")
_V4_IN_V6 = bytes(10) + b"\xff\xff"

NO_FILE = (
    "its memory is in no shared file (start it with '-object memory-backend-file,id=ram,size=SIZE,mem-path=FILE,"
    "share=on -machine memory-backend=ram')"
)


class Unavailable(Exception):
    """A way to the memory that cannot be had; the text says why, as the end of a sentence."""


class Elsewhere(Unavailable):
    """The process does not hold the machine's memory: it is another one."""


@dataclass(frozen=True)
class Mapping:
    """A line of /proc/PID/maps."""

    start: int
    end: int
    shared: bool
    offset: int
    inode: int
    path: str


@dataclass
class Block:
    """A range of physical memory, ``last`` inclusive, that stands in one piece at ``offset`` of ``descriptor``.

    ``descriptor`` is None until somebody asks, and -1 where the block cannot be had; ``agreed`` are the places where
    the stub gave the same bytes.
    """

    first: int
    last: int
    descriptor: int | None = None
    offset: int = 0
    agreed: set[int] = field(default_factory=set)

    @property
    def trusted(self) -> bool:
        return len(self.agreed) >= _AGREEING_READS


class HostMemory:
    """Physical memory as the files of one process hold it; ``lost`` says why it is not used any more."""

    def __init__(
        self, way: str, pid: int, blocks: Sequence[tuple[int, int]], monitor: Callable[[str], str]
    ) -> None:
        self.way = way
        self.pid = pid
        self.lost = ""
        self._monitor = monitor
        self._blocks = [Block(first, last) for first, last in sorted(blocks)]
        self._firsts = [block.first for block in self._blocks]
        self._files: dict[int, tuple[int, str]] = {}
        self._process = -1

    def open(self) -> None:
        """Find the largest block, by which it shows whether the memory can be had this way.

        :raises Unavailable: if it cannot.
        """
        if not self._blocks:
            raise Unavailable("QEMU's monitor does not say where the machine has memory")
        if self.way == "qemu-pread":
            self._process = _open_process(self.pid)
        self._find(max(self._blocks, key=lambda block: block.last - block.first))

    @property
    def name(self) -> str:
        """Where the bytes come from, in words."""
        process = f"{_command(self.pid)}, process {self.pid}"
        if self.way == "qemu-pread":
            return f"out of the memory of {process}"
        paths = sorted({path for _, path in self._files.values()})
        return f"from {' and '.join(paths)} of {process}"

    @property
    def compared(self) -> int:
        """At how many places the stub was asked too, and agreed."""
        return sum(len(block.agreed) for block in self._blocks)

    def block(self, address: int, size: int) -> Block | None:
        """Return the block that holds all of a range, None where there is none that can be read here."""
        position = bisect_right(self._firsts, address) - 1
        if position < 0:
            return None
        found = self._blocks[position]
        if address + size - 1 > found.last:
            return None
        if found.descriptor is None:
            try:
                self._find(found)
            except Unavailable:
                found.descriptor = -1
        return found if found.descriptor != -1 else None

    def read(self, block: Block, address: int, size: int) -> bytes | None:
        """Return ``size`` bytes of a block, or None if they cannot be had any more."""
        assert block.descriptor is not None
        try:
            data = os.pread(block.descriptor, size, block.offset + address - block.first)
        except OSError as error:
            self.lost = f"{self.name} nothing can be read any more ({error.strerror})"
            return None
        if len(data) != size:
            self.lost = f"{self.name} nothing can be read any more: has QEMU ended?"
            return None
        return data

    def compare(self, block: Block, address: int, own: bytes, stub: bytes) -> None:
        """Note whether the stub has the same bytes; zeros are no sign of anything."""
        if own != stub:
            self.lost = f"{self.name} other bytes come than from the stub, at PA {address:#x}"
        elif any(own):
            block.agreed.add(address)

    def close(self) -> None:
        for descriptor in (self._process, *(descriptor for descriptor, _ in self._files.values())):
            if descriptor != -1:
                os.close(descriptor)
        self._files.clear()
        self._process = -1

    def _find(self, block: Block) -> None:
        """Find out where a block stands.

        :raises Unavailable: if it cannot be had this way.
        """
        answer = self._monitor(f"gpa2hva {block.first:#x}")
        match = _HOST_ADDRESS.search(answer)
        if match is None:
            raise Unavailable("QEMU's monitor does not say where it has the machine's memory (gpa2hva)")
        start = int(match[1], 16)
        mapping = _mapping(self.pid, start, start + block.last - block.first + 1)
        if self.way == "qemu-pread":
            block.descriptor, block.offset = self._process, start
            return
        if not mapping.shared or not mapping.inode:
            raise Unavailable(NO_FILE)
        block.descriptor, block.offset = self._file(mapping), start - mapping.start + mapping.offset

    def _file(self, mapping: Mapping) -> int:
        if mapping.inode not in self._files:
            self._files[mapping.inode] = _open_file(self.pid, mapping)
        return self._files[mapping.inode][0]


def find(
    way: str, blocks: Sequence[tuple[int, int]], monitor: Callable[[str], str], target: str = ""
) -> HostMemory:
    """Return the machine's memory, ``way`` being "ram-file" or "qemu-pread".

    ``blocks`` are the (first, last) physical addresses of each block of RAM; ``monitor`` asks QEMU's monitor;
    ``target`` is what GDB is connected to, which counts where it has more than one connection.

    :raises Unavailable: if it cannot be had.
    """
    if not sys.platform.startswith("linux"):
        raise Unavailable("only Linux shows the memory of another process")
    reasons: list[str] = []
    for pid in _candidates(target):
        memory = HostMemory(way, pid, blocks, monitor)
        try:
            memory.open()
            return memory
        except Elsewhere as error:
            reasons.append(str(error))
        except Unavailable as error:
            # What is the matter with the right process says more than that there are others.
            reasons.insert(0, str(error))
        except OSError as error:
            reasons.append(f"{_command(pid)}, process {pid}, cannot be looked into ({error.strerror})")
        memory.close()
    raise Unavailable(
        reasons[0] if reasons else "no process of this machine is at the other end of the connection"
    )


@dataclass
class Way:
    """How a connection's physical memory is read: past the stub, or by it, and then ``reason`` says why."""

    memory: HostMemory | None
    reason: str = ""

    @property
    def sentence(self) -> str:
        """How it is, in words."""
        if self.memory is None:
            return f"by the stub: {self.reason}"
        return f"{self.memory.name}; the stub had the same at {self.memory.compared} places"

    def give_up(self) -> None:
        """Go back to the stub, for what ``memory.lost`` says."""
        if self.memory is not None:
            self.reason = self.memory.lost
            self.close()

    def close(self) -> None:
        """Close what is open."""
        if self.memory is not None:
            self.memory.close()
            self.memory = None


def choose(
    wanted: str, blocks: Sequence[tuple[int, int]], monitor: Callable[[str], str], target: str = ""
) -> Way:
    """Return the way for what 'set hyp memory' says; arguments are those of ``find``."""
    if wanted == "stub":
        return Way(None, "it is set so")
    reasons = []
    for way in ("ram-file", "qemu-pread") if wanted == "auto" else (wanted,):
        found = _try(way, blocks, monitor, target)
        if isinstance(found, HostMemory):
            return Way(found)
        reasons.append(found)
    return Way(None, "; ".join(dict.fromkeys(reasons)))


def _try(
    way: str, blocks: Sequence[tuple[int, int]], monitor: Callable[[str], str], target: str
) -> HostMemory | str:
    try:
        return find(way, blocks, monitor, target)
    except Unavailable as error:
        return str(error)


def _candidates(target: str) -> list[int]:
    """Return the processes that may be the target's: those at the end of a connection of its name, if there are any."""
    found = list(peers())
    named = [pid for pid, name in found if name and target.endswith(name)]
    return list(dict.fromkeys(named or [pid for pid, _ in found]))


def peers() -> Iterator[tuple[int, str]]:
    """Yield the processes at the other ends of this process's sockets, as far as they are on this machine.

    With each comes how the name of a target ends that has this connection: a file's name, or a port.
    """
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError, ValueError):
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as copy:
                pid, there = _peer(copy), copy.getpeername()
            if pid and pid != os.getpid():
                yield (
                    pid,
                    f":{there[1]}" if isinstance(there, tuple) else os.path.basename(os.fsdecode(there)),
                )


def _peer(connection: socket.socket) -> int | None:
    if connection.family == socket.AF_UNIX:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return int(_CREDENTIALS.unpack(credentials)[0])
    if connection.family in (socket.AF_INET, socket.AF_INET6) and connection.type == socket.SOCK_STREAM:
        own, other = connection.getsockname()[:2], connection.getpeername()[:2]
        inode = _inode_of(_plain_address(*other), _plain_address(*own))
        return _holder_of(inode) if inode else None
    return None


def _plain_address(host: str, port: int) -> tuple[bytes, int]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.inet_pton(family, host.partition("%")[0]).removeprefix(_V4_IN_V6), port


def _inode_of(local: tuple[bytes, int], remote: tuple[bytes, int]) -> str | None:
    """Return the inode of the TCP socket of this machine with these two ends, None if there is none."""
    for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        with contextlib.suppress(OSError), open(table) as lines:
            for line in lines:
                words = line.split()
                if (
                    len(words) > 9
                    and ":" in words[1]
                    and _listed(words[1]) == local
                    and _listed(words[2]) == remote
                ):
                    return words[9]
    return None


def _listed(text: str) -> tuple[bytes, int]:
    """Return an address as /proc/net/tcp lists it: 32-bit words in this machine's byte order, and the port."""
    host, _, port = text.partition(":")
    words = bytes.fromhex(host)
    if sys.byteorder == "little":
        words = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
    return words.removeprefix(_V4_IN_V6), int(port, 16)


def _holder_of(inode: str) -> int | None:
    """Return the process that holds a socket, as far as this user may see; QEMUs are looked at first."""
    wanted = f"socket:[{inode}]"
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    for pid in sorted(pids, key=lambda pid: "qemu" not in _command(pid)):
        with contextlib.suppress(OSError):
            if any(_link(f"/proc/{pid}/fd/{name}") == wanted for name in os.listdir(f"/proc/{pid}/fd")):
                return pid
    return None


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _command(pid: int) -> str:
    """Return the name of a process."""
    try:
        with open(f"/proc/{pid}/comm", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "a process that has ended"


def _started(pid: int) -> str:
    """Return when a process started, which tells it from one that has its number later (proc(5), starttime)."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[19].decode()


def _open_process(pid: int) -> int:
    """Open the memory of a process.

    :raises Unavailable: if this user may not.
    """
    try:
        started = _started(pid)
        descriptor = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        if _started(pid) != started:
            os.close(descriptor)
            raise Unavailable(f"process {pid} ended while it was looked at")
    except PermissionError:
        hint = (
            " (see kernel.yama.ptrace_scope)" if os.path.exists("/proc/sys/kernel/yama/ptrace_scope") else ""
        )
        raise Unavailable(
            f"the kernel does not let GDB read the memory of {_command(pid)}, process {pid}{hint}"
        ) from None
    return descriptor


def _mapping(pid: int, start: int, end: int) -> Mapping:
    """Return the mapping of a process that holds addresses ``start`` to ``end``.

    :raises Elsewhere: if no single one does.
    """
    with open(f"/proc/{pid}/maps", errors="surrogateescape") as lines:
        for line in lines:
            match = _MAPPING.match(line)
            if match and int(match[1], 16) <= start < int(match[2], 16):
                found = Mapping(
                    int(match[1], 16),
                    int(match[2], 16),
                    match[3].endswith("s"),
                    int(match[4], 16),
                    int(match[5]),
                    match[6],
                )
                if end <= found.end:
                    return found
                break
    raise Unavailable(
        f"{_command(pid)}, process {pid}, does not hold the machine's memory where QEMU says it is"
    )


def _open_file(pid: int, mapping: Mapping) -> tuple[int, str]:
    """Open the file behind a mapping: by its name, or where that is gone or never was, as the process has it open.

    :raises Unavailable: if neither can be opened.
    """
    for path in (mapping.path, *_open_files(pid)):
        with contextlib.suppress(OSError, ValueError):
            # The device's number is another one on overlays; what the file holds is compared with the stub anyway.
            status = os.stat(path)
            if stat.S_ISREG(status.st_mode) and status.st_ino == mapping.inode:
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC), mapping.path
    raise Unavailable(f"the file that holds its memory, {mapping.path}, cannot be opened")


def _open_files(pid: int) -> list[str]:
    try:
        return [f"/proc/{pid}/fd/{name}" for name in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return []
