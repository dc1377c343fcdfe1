"""Physical memory of the target, and the state of its stub that has to be borrowed to read it."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

import gdb

from gdbhyp.errors import MemoryUnavailable, NoTarget
from gdbhyp.plugin.capture import captured
from gdbhyp.plugin.host_memory import Block, HostMemory, Way

# QEMU answers E22 to a read of more than half of its 4 KiB packet (gdbstub, MAX_PACKET_LENGTH).
_LARGEST_READ = 0x800

# Descriptors. When so many of a piece were asked for, the next one takes all of it: by QEMU's stub, four packets of 8
# bytes take as long as one of 2 KiB.
_SMALL_READ = 64
_READS_FOR_ALL = 4

# Enough for the tables of many single walks; a whole map reads each table once and must not keep them all.
_CACHED_READS = 1024

_MODE = "qqemu.PhyMemMode"
_VIRTUAL, _PHYSICAL = "Qqemu.PhyMemMode:0", "Qqemu.PhyMemMode:1"

LOST = "the connection to the target is lost: attach again with 'target remote'"


def interruptible(action: Callable[[], object]) -> None:
    """Do ``action`` to its end, however often Ctrl-C is pressed, and only then raise KeyboardInterrupt."""
    interrupted = False
    while True:
        try:
            action()
            break
        except KeyboardInterrupt:
            interrupted = True
    if interrupted:
        raise KeyboardInterrupt


def is_connected() -> bool:
    """Return whether the selected inferior has a target; GDB drops the connection when it is lost."""
    return gdb.selected_inferior().connection is not None


_RECEIVED = re.compile(r'received: "(.*)"')


def ask(packet: str) -> bytes:
    """Send a packet to the selected inferior's stub and return its answer, which is printable text.

    GDB keeps its frames, which it forgets at each ``send`` and takes four times as long to find again as the stub to
    answer.

    :raises NoTarget: if the connection is lost.
    """
    try:
        said = captured(f"maintenance packet {packet}")
    except RuntimeError as error:
        raise NoTarget(LOST) from error
    answer = _RECEIVED.search(said)
    return answer[1].encode() if answer is not None else b""


def send(connection: gdb.RemoteTargetConnection, packet: bytes) -> bytes:
    """Send a packet to the stub and return its answer, whatever bytes it is made of; GDB forgets its frames.

    :raises NoTarget: if the connection is lost.
    """
    try:
        answer = connection.send_packet(packet)
    except RuntimeError as error:
        # gdb.error is one; a connection that GDB has dropped raises the plain one.
        raise NoTarget(LOST) from error
    return bytes(answer) if answer is not None else b""


class RamMap:
    """The physical ranges that are memory, so that no device is read and no hole is taken for zeros.

    QEMU answers a physical read of a hole with zeros, and a read of a device as if the CPU had read it. Its
    ``info mtree -f`` says which ranges are memory. ``blocks`` are those of RAM as (first, last) addresses, each of them
    in one piece of QEMU's memory.
    """

    _RANGE = re.compile(r"^ +([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?\d+, (\w+)\)")
    _MEMORY = ("ram", "rom", "romd")

    def __init__(self, mtree: str) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        found = sorted(self._ranges(mtree))
        self.blocks = [(start, end) for start, end, kind in found if kind == "ram"]
        for start, end, _ in found:
            if self._ends and start <= self._ends[-1] + 1:
                self._ends[-1] = max(end, self._ends[-1])
            else:
                self._starts.append(start)
                self._ends.append(end)

    def __bool__(self) -> bool:
        return bool(self._starts)

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """The ranges of memory as (first, last) addresses, ascending."""
        return list(zip(self._starts, self._ends, strict=True))

    @classmethod
    def _ranges(cls, mtree: str) -> list[tuple[int, int, str]]:
        for view in mtree.split("FlatView")[1:]:
            if re.search(r'AS "(?:cpu-)?memory(?:-0)?"', view):
                found = [m for line in view.splitlines() if (m := cls._RANGE.match(line))]
                return [(int(m[1], 16), int(m[2], 16), m[3]) for m in found if m[3] in cls._MEMORY]
        return []

    def first_bad(self, address: int, size: int) -> int | None:
        """Return the first address of the range that is no memory, or None if all of it is."""
        position = bisect_right(self._starts, address) - 1
        if position < 0 or address > self._ends[position]:
            return address
        end = self._ends[position]
        return None if address + size - 1 <= end else end + 1


def _by_stub() -> Way:
    return Way(None, "nothing else was asked for")


class PhysicalMemory:
    """A Reader of physical memory, and a context manager that gives back what it borrowed.

    Where QEMU's memory can be read past its stub, ``way`` says how; else QEMU's ``PhyMemMode`` is asked for at the
    first read and restored when the block ends, Ctrl-C and errors included. Reads go out as packets of our own, so that
    neither GDB's caches nor its breakpoint shadows can answer for another address space. ``warn`` is told if the way
    is lost. ``packets`` and ``bytes_read`` count what went over the wire.
    """

    def __init__(
        self,
        connection: gdb.RemoteTargetConnection,
        ram: Callable[[], RamMap],
        way: Callable[[], Way] = _by_stub,
        warn: Callable[[str], object] = lambda sentence: None,
    ) -> None:
        self._connection: gdb.RemoteTargetConnection | None = connection
        # What names the stub also after another attach.
        self._machine = str(connection.details)
        self._ram_source = ram
        self._ram: RamMap | None = None
        self._way_source = way
        self._way: Way | None = None
        self._warn = warn
        self._previous: bytes | None = None
        self._cache: dict[tuple[int, int], bytes] = {}
        self._asked: dict[int, int] = {}
        self._frames_lost = False
        self.packets = 0
        self.bytes_read = 0

    def __enter__(self) -> PhysicalMemory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        interruptible(self.give_back)
        # GDB 13 aborts at its end if somebody's variable still holds a connection.
        self._connection = None

    def give_back(self) -> None:
        """Restore the mode if it is borrowed; harmless at any time.

        :raises NoTarget: if the stub does not do it; a later command will, as soon as the stub can be asked.
        """
        try:
            if self._previous == b"0":
                self._restore()
        except NoTarget:
            self._forget()
            raise
        self._forget()

    def let_gdb_look(self) -> None:
        """Give the mode back if GDB has to find its frames again.

        It reads the code around the PC for that, whose virtual address it would give for a physical one.
        """
        if self._frames_lost:
            self.give_back()

    def _restore(self) -> None:
        _left_physical.add(self._machine)
        if not any(self._ask(_VIRTUAL) == b"OK" for _ in range(2)):
            raise NoTarget(f"the stub refused to leave physical memory ({_VIRTUAL}): repeat the command")
        _left_physical.discard(self._machine)

    def _forget(self) -> None:
        self._previous = None
        self._frames_lost = False
        if self in _borrowers:
            _borrowers.remove(self)

    @property
    def way(self) -> Way:
        """How memory is read."""
        if self._way is None:
            self._way = self._way_source()
        return self._way

    def read(self, address: int, size: int, /) -> bytes:
        """Return ``size`` bytes of physical memory.

        :raises MemoryUnavailable: where there is a device, a hole, or a stub that refuses.
        """
        host = self.way.memory if self._connection is not None else None
        if host is not None:
            block = host.block(address, size)
            if block is not None:
                data = host.read(block, address, size)
                if data is not None and block.trusted:
                    return data
                return self._compared(host, block, address, data, self._remote(address, size))
        return self._remote(address, size)

    def _compared(
        self, host: HostMemory, block: Block, address: int, data: bytes | None, told: bytes
    ) -> bytes:
        """Return what the stub ``told``, and go by it from now on if ``data`` is not the same."""
        if data is not None:
            host.compare(block, address, data, told)
        if host.lost:
            self.way.give_up()
            self._warn(f"physical memory is read {self.way.sentence}")
        return told

    def _remote(self, address: int, size: int) -> bytes:
        """Read by the stub; what it said is kept until the block ends."""
        data = self._cache.get((address, size))
        if data is None:
            self._check(address, size)
            self._borrow()
            data = self._piece(address, size) if size <= _SMALL_READ else self._packets(address, size)
            if len(self._cache) >= _CACHED_READS:
                self._cache.clear()
            self._cache[address, size] = data
        return data

    def _piece(self, address: int, size: int) -> bytes:
        """Read a descriptor, or, when more and more of the same table are asked for, as much as a packet holds."""
        start = address & -_LARGEST_READ
        asked = self._asked[start] = self._asked.get(start, 0) + 1
        within = address + size <= start + _LARGEST_READ
        if asked < _READS_FOR_ALL or not within or not self._ram:
            return self._packets(address, size)
        if self._ram.first_bad(start, _LARGEST_READ) is not None:
            return self._packets(address, size)
        return self._remote(start, _LARGEST_READ)[address - start : address - start + size]

    def _packets(self, address: int, size: int) -> bytes:
        self.bytes_read += size
        return b"".join(
            self._packet(address, at, min(_LARGEST_READ, address + size - at), size)
            for at in range(address, address + size, _LARGEST_READ)
        )

    def _check(self, address: int, size: int) -> None:
        if self._ram is None:
            self._ram = self._ram_source()
        if self._ram:
            bad = self._ram.first_bad(address, size)
            if bad is not None:
                raise MemoryUnavailable("PA", address, size, "the machine has no memory there", bad)

    def _packet(self, start: int, at: int, length: int, size: int) -> bytes:
        small = length <= _SMALL_READ
        if not small and self._machine not in _without_binary:
            data = self._binary(at, length)
            if len(data) == length:
                return data
        packet = f"m{at:x},{length:x}"
        answer = self._ask(packet) if small else self._send(packet.encode())
        try:
            data = bytes.fromhex(answer.decode("ascii"))
        except ValueError:
            data = b""
        if len(data) != length:
            reason = f"the stub answered {answer[:8].decode('ascii', 'replace') or 'nothing'}"
            # Where the machine says that it has memory, an answer that is none tells nothing about the machine.
            raise MemoryUnavailable("PA", start, size, reason, at, unsaved=bool(self._ram))
        return data

    def _binary(self, at: int, length: int) -> bytes:
        """Read by the packet for binary data, which halves the traffic; what comes may be less, or nothing."""
        answer = self._send(b"x%x,%x" % (at, length))
        if not answer:
            _without_binary.add(self._machine)
        return _unescaped(answer[1:]) if answer.startswith(b"b") else b""

    def _borrow(self) -> None:
        if self._previous is not None:
            return
        previous = self._ask(_MODE)
        if previous not in (b"0", b"1"):
            raise NoTarget(
                "the stub has no physical memory mode (QEMU's PhyMemMode), so translation tables cannot be read"
            )
        _borrowers.append(self)
        # A mode that a lost connection kept us from giving back is ours, not the person's.
        self._previous = b"0" if self._machine in _left_physical else previous
        if previous == b"0" and self._ask(_PHYSICAL) != b"OK":
            raise NoTarget(f"the stub refused to switch to physical memory ({_PHYSICAL})")

    def _ask(self, packet: str) -> bytes:
        self._lent()
        return ask(packet)

    def _send(self, packet: bytes) -> bytes:
        self._frames_lost = True
        return send(self._lent(), packet)

    def _lent(self) -> gdb.RemoteTargetConnection:
        self.packets += 1
        if self._connection is None:
            raise NoTarget("this stop was lent for a question that is answered by now: ask for it again")
        return self._connection


def _unescaped(data: bytes) -> bytes:
    """Return binary data as it was before a stub escaped it: 0x7d, then the byte with bit 5 inverted."""
    first, *rest = data.split(b"}")
    return first + b"".join(bytes((part[0] ^ 0x20,)) + part[1:] for part in rest if part)


_without_binary: set[str] = set()
"""The stubs that have no packet for binary data."""

_borrowers: list[PhysicalMemory] = []
_left_physical: set[str] = set()
_left_monitors: dict[str, str] = {}
"""By machine, the CPU that its monitor spoke of before a connection was lost that should have told it so again."""


def leave_monitor(machine: str, cpu: str) -> None:
    """Let a machine's monitor speak of ``cpu`` again as soon as the machine is attached to."""
    _left_monitors[machine] = cpu


def give_back_monitor(connection: gdb.RemoteTargetConnection) -> None:
    """Let the monitor speak of the CPU again that a lost connection kept it from."""
    machine = str(connection.details)
    if machine in _left_monitors:
        captured(f"monitor cpu {_left_monitors[machine]}")
        del _left_monitors[machine]


def give_back_all() -> None:
    """Restore what was borrowed and not given back, because Ctrl-C hit in the very moment when a block ended."""
    while _borrowers:
        _borrowers[-1].give_back()


def let_gdb_look() -> None:
    """Make it harmless that GDB looks at the selected frame, with which it may read virtual memory."""
    for borrower in tuple(_borrowers):
        borrower.let_gdb_look()


T = TypeVar("T")


def giving_back(action: Callable[[], T]) -> T:
    """Return what ``action`` returns; whenever Ctrl-C is pressed, the target is as it was before.

    Python may raise KeyboardInterrupt at the first instruction of whatever is called to clean up, so that one attempt
    is not enough.
    """
    try:
        try:
            return action()
        finally:
            give_back_all()
    except KeyboardInterrupt:
        interruptible(give_back_all)
        raise
