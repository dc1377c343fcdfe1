"""Memory of a process on this machine, with a small process of our own in QEMU's place."""

from __future__ import annotations

import importlib
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gdbhyp.plugin import host_memory
from gdbhyp.plugin.host_memory import HostMemory, Unavailable, Way, choose, find

SIZE = 0x8000
RAM = 0x4000_0000
PATTERN = bytes(n % 253 + 1 for n in range(SIZE))

PROCESS = """
import ctypes, mmap, os, socket, sys
kind, place, pattern = sys.argv[1], sys.argv[2], bytes(n % 253 + 1 for n in range(0x8000))
if kind == "anonymous":
    ram = mmap.mmap(-1, 0x8000, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
elif kind == "memfd":
    descriptor = os.memfd_create("ram")
    os.ftruncate(descriptor, 0x8000)
    ram = mmap.mmap(descriptor, 0x8000, mmap.MAP_SHARED)
else:
    descriptor = os.open(place + "/ram", os.O_RDWR | os.O_CREAT)
    os.ftruncate(descriptor, 0x8000)
    ram = mmap.mmap(descriptor, 0x8000, mmap.MAP_SHARED if kind == "file" else mmap.MAP_PRIVATE)
ram[:] = pattern
if sys.argv[3] == "unix":
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(place + "/sock")
else:
    listening = socket.create_server(("127.0.0.1", 0))
listening.listen()
port = listening.getsockname()[1] if sys.argv[3] == "tcp" else 0
print(ctypes.addressof(ctypes.c_char.from_buffer(ram)), port, flush=True)
held, _ = listening.accept()
print("accepted", flush=True)
sys.stdin.read()
"""


@dataclass
class Machine:
    """A process with 32 KiB of memory, connected to this one."""

    process: subprocess.Popen[str]
    address: int

    def monitor(self, command: str) -> str:
        name, _, address = command.partition(" ")
        assert name == "gpa2hva"
        if not RAM <= int(address, 16) < RAM + SIZE:
            return f"Memory at address {address} is not RAM\n"
        return f"Host virtual address for {address} (ram) is {self.address + int(address, 16) - RAM:#x}\n"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Callable[..., Machine]]:
    """Starts such a process."""
    running: list[subprocess.Popen[str]] = []
    sockets: list[socket.socket] = []

    def start(kind: str, family: str = "unix") -> Machine:
        command = [sys.executable, "-c", PROCESS, kind, str(tmp_path), family]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stdout is not None
        address, port = map(int, process.stdout.readline().split())
        if family == "unix":
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(str(tmp_path / "sock"))
        else:
            connection = socket.create_connection(("127.0.0.1", port))
        sockets.append(connection)
        assert process.stdout.readline() == "accepted\n"
        return Machine(process, address)

    yield start
    for connection in sockets:
        connection.close()
    for process in running:
        process.kill()
        process.communicate()


BLOCKS = [(RAM, RAM + SIZE - 1)]


@pytest.mark.parametrize("family", ["unix", "tcp"])
@pytest.mark.parametrize(
    ("kind", "way"),
    [("anonymous", "qemu-pread"), ("file", "ram-file"), ("file", "qemu-pread"), ("memfd", "ram-file")],
)
def test_the_bytes_of_the_process(machine: Any, kind: str, way: str, family: str) -> None:
    there = machine(kind, family)
    memory = find(way, BLOCKS, there.monitor)
    try:
        block = memory.block(RAM + 0x1000, 0x100)
        assert block is not None
        assert memory.read(block, RAM + 0x1000, 0x100) == PATTERN[0x1000:0x1100]
        assert memory.pid == there.process.pid
        assert str(memory.pid) in memory.name
    finally:
        memory.close()


def test_auto_takes_the_file_where_there_is_one(machine: Any) -> None:
    there = machine("file")
    way = choose("auto", BLOCKS, there.monitor)
    assert way.memory is not None
    assert way.memory.way == "ram-file"
    assert "/ram of " in way.sentence
    way.close()


def test_auto_takes_the_process_where_there_is_no_file(machine: Any) -> None:
    there = machine("anonymous")
    way = choose("auto", BLOCKS, there.monitor)
    assert way.memory is not None
    assert way.memory.way == "qemu-pread"
    assert way.sentence.startswith("out of the memory of ")
    way.close()


def test_a_private_mapping_is_not_the_file(machine: Any) -> None:
    """What the process wrote to its private copy is not in the file."""
    there = machine("private")
    way = choose("ram-file", BLOCKS, there.monitor)
    assert way.memory is None
    assert "its memory is in no shared file" in way.sentence


def test_the_stub_when_it_is_set(machine: Any) -> None:
    way = choose("stub", BLOCKS, machine("file").monitor)
    assert (way.memory, way.sentence) == (None, "by the stub: it is set so")


def test_a_file_that_was_removed_is_read_where_the_process_has_it_open(machine: Any, tmp_path: Path) -> None:
    there = machine("file")
    (tmp_path / "ram").unlink()
    memory = find("ram-file", BLOCKS, there.monitor)
    block = memory.block(RAM, 8)
    assert block is not None
    assert memory.read(block, RAM, 8) == PATTERN[:8]
    memory.close()


def test_a_file_that_gets_shorter_is_lost_and_kills_nobody(machine: Any, tmp_path: Path) -> None:
    there = machine("file")
    memory = find("ram-file", BLOCKS, there.monitor)
    block = memory.block(RAM, 8)
    assert block is not None
    os.truncate(tmp_path / "ram", 0x1000)
    assert memory.read(block, RAM, 8) == PATTERN[:8]
    assert memory.read(block, RAM + 0x2000, 8) is None
    assert "nothing can be read any more" in memory.lost
    memory.close()


def test_a_process_that_ended(machine: Any) -> None:
    there = machine("anonymous")
    memory = find("qemu-pread", BLOCKS, there.monitor)
    there.process.kill()
    there.process.wait()
    block = memory.block(RAM, 8)
    assert block is not None
    assert memory.read(block, RAM, 8) is None
    assert "has QEMU ended?" in memory.lost
    memory.close()


def test_nobody_at_the_other_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_memory, "peers", lambda: iter(()))
    with pytest.raises(Unavailable, match="no process of this machine"):
        find("qemu-pread", BLOCKS, lambda command: "")


def test_a_process_that_is_not_the_machine(machine: Any) -> None:
    """The monitor speaks of addresses that this process does not have: it stands between GDB and QEMU."""
    machine("file")
    for way in ("qemu-pread", "ram-file"):
        with pytest.raises(Unavailable, match="does not hold the machine's memory where QEMU says it is"):
            find(way, BLOCKS, lambda command: "Host virtual address for 0x40000000 (ram) is 0x1000")


@pytest.mark.parametrize(
    "answer", ["", "unknown command: 'gpa2hva'\n", "Memory at address 0x40000000 is not RAM"]
)
def test_a_monitor_that_does_not_say_where(machine: Any, answer: str) -> None:
    machine("file")
    with pytest.raises(Unavailable, match="does not say where it has the machine's memory"):
        find("ram-file", BLOCKS, lambda command: answer)


def test_a_machine_without_known_memory(machine: Any) -> None:
    machine("file")
    with pytest.raises(Unavailable, match="does not say where the machine has memory"):
        find("ram-file", [], lambda command: "")


def test_only_whole_blocks_are_read(machine: Any) -> None:
    """A range that begins or ends outside of RAM, or in a block that cannot be found, is the stub's business."""
    there = machine("file")
    memory = find("ram-file", [*BLOCKS, (0, 0xFFF)], there.monitor)
    assert memory.block(RAM - 8, 16) is None
    assert memory.block(RAM + SIZE - 8, 16) is None
    assert memory.block(RAM + SIZE - 8, 8) is not None
    assert memory.block(0, 8) is None
    assert memory.block(0x900_0000, 8) is None
    memory.close()


def test_no_permission(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    there = machine("anonymous")
    real = os.open

    def refuse(path: str, *arguments: Any, **more: Any) -> int:
        if str(path).endswith("/mem"):
            raise PermissionError(1, "Operation not permitted")
        return real(path, *arguments, **more)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(Unavailable, match="the kernel does not let GDB read the memory of "):
        find("qemu-pread", BLOCKS, there.monitor)


def test_another_process_with_the_same_number(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    there = machine("anonymous")
    times = itertools.count()
    monkeypatch.setattr(host_memory, "_started", lambda pid: str(next(times)))
    with pytest.raises(Unavailable, match="ended while it was looked at"):
        find("qemu-pread", BLOCKS, there.monitor)


def test_trust_takes_three_places_that_are_not_zero(machine: Any) -> None:
    there = machine("file")
    memory = find("ram-file", BLOCKS, there.monitor)
    block = memory.block(RAM, 8)
    assert block is not None
    memory.compare(block, RAM, bytes(8), bytes(8))
    for at in (0, 0, 8, 16):
        assert not block.trusted
        memory.compare(block, RAM + at, PATTERN[at : at + 8], PATTERN[at : at + 8])
    assert block.trusted
    assert not memory.lost
    memory.close()


class Stub:
    """A stub whose physical memory is ``PATTERN`` at RAM, or other bytes."""

    def __init__(self, pattern: bytes) -> None:
        self.details = "a test"
        self.pattern = pattern
        self.reads = 0

    def send_packet(self, packet: bytes) -> bytes:
        if packet == b"qqemu.PhyMemMode":
            return b"0"
        if packet.startswith(b"Qqemu"):
            return b"OK"
        if packet[:1] != b"m":
            return b""
        self.reads += 1
        address, _, length = packet[1:].partition(b",")
        start = int(address, 16) - RAM
        return self.pattern[start : start + int(length, 16)].hex().encode()


@pytest.fixture
def remote(fake_gdb: Any) -> Any:
    return importlib.import_module("gdbhyp.plugin.remote")


MTREE = f'FlatView #1\n AS "memory", root: system\n  {RAM:016x}-{RAM + SIZE - 1:016x} (prio 0, ram): ram\n'


def physical_memory(remote: Any, stub: Stub, *more: Any) -> Any:
    remote.gdb.stub = stub
    return remote.PhysicalMemory(stub, lambda: remote.RamMap(MTREE), *more)


def test_the_stub_is_asked_until_it_agrees_often_enough(machine: Any, remote: Any) -> None:
    there, stub = machine("file"), Stub(PATTERN)
    said: list[str] = []
    way = choose("auto", BLOCKS, there.monitor)
    with physical_memory(remote, stub, lambda: way, said.append) as physical:
        for at in range(0, 0x4000, 0x800):
            assert physical.read(RAM + at, 0x800) == PATTERN[at : at + 0x800]
    assert stub.reads == 3
    assert not said
    way.close()


def test_other_bytes_than_the_stubs(machine: Any, remote: Any) -> None:
    """The stub is right, and from then on the only one that is asked; the person is told once."""
    other = PATTERN[:0x800] + bytes(reversed(PATTERN[0x800:]))
    there, stub = machine("file"), Stub(other)
    said: list[str] = []
    way = choose("auto", BLOCKS, there.monitor)
    with physical_memory(remote, stub, lambda: way, said.append) as physical:
        for at in range(0, 0x4000, 0x800):
            assert physical.read(RAM + at, 0x800) == other[at : at + 0x800]
    (sentence,) = said
    assert "other bytes come than from the stub, at PA 0x40000800" in sentence
    assert way.memory is None
    assert way.sentence in sentence


def test_a_process_that_ends_between_two_reads(machine: Any, remote: Any) -> None:
    there, stub = machine("anonymous"), Stub(PATTERN)
    said: list[str] = []
    way = choose("auto", BLOCKS, there.monitor)
    with physical_memory(remote, stub, lambda: way, said.append) as physical:
        for at in range(0, 0x4000, 0x800):
            if at == 0x2000:
                there.process.kill()
                there.process.wait()
            assert physical.read(RAM + at, 0x800) == PATTERN[at : at + 0x800]
    assert len(said) == 1
    assert stub.reads == 3 + 4


def test_no_device_is_read_past_the_stub(machine: Any, remote: Any) -> None:
    there, stub = machine("file"), Stub(PATTERN)
    way = choose("auto", BLOCKS, there.monitor)
    with physical_memory(remote, stub, lambda: way) as physical:
        for address in (0x900_0000, RAM + SIZE, RAM - 8):
            with pytest.raises(Exception, match="the machine has no memory there"):
                physical.read(address, 8)
    assert stub.reads == 0
    way.close()


def test_what_is_closed_stays_closed(machine: Any) -> None:
    there = machine("file")
    way = choose("auto", BLOCKS, there.monitor)
    memory = way.memory
    assert isinstance(memory, HostMemory)
    way.close()
    way.close()
    assert isinstance(way, Way)
    assert way.memory is None


def test_the_connection_that_the_target_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """With two machines in one GDB, only the process behind this target's connection is looked into."""
    asked: list[int] = []

    def refuse(self: HostMemory) -> None:
        asked.append(self.pid)
        raise Unavailable("not here")

    monkeypatch.setattr(
        host_memory, "peers", lambda: iter([(11, "one.sock"), (12, "two.sock"), (13, ":1234")])
    )
    monkeypatch.setattr(HostMemory, "open", refuse)
    for target in ("1 /run/two.sock", "2 localhost:1234", "3 | qemu"):
        with pytest.raises(Unavailable):
            find("ram-file", BLOCKS, lambda command: "", target)
    assert asked == [12, 13, 11, 12, 13]
