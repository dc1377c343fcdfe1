"""The processes of a Linux kernel and their open files."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from gdbhyp.arch.spaces import VA
from gdbhyp.errors import GdbhypError, MemoryUnavailable
from gdbhyp.hypervisors.linux.kernel import Kernel
from gdbhyp.hypervisors.linux.objects import Object, list_entries, struct_at

_MOST_FILES = 1 << 16


@dataclass(frozen=True)
class Task:
    """A thread: ``pid`` as ``gettid`` gives it, ``tgid`` of its process, and its name."""

    pid: int
    tgid: int
    name: str


def task_of(found: Object) -> Task:
    """Return what a ``task_struct`` says of itself."""
    return Task(found.signed("pid"), found.signed("tgid"), found.text("comm"))


def processes(kernel: Kernel) -> Iterator[Object]:
    """Yield the ``task_struct`` of each process (the leader of its threads).

    :raises GdbhypError: if the kernel does not tell where the first one is, or the list is broken.
    """
    first = kernel.symbol("init_task")
    if first is None:
        raise GdbhypError("the kernel's symbols do not list init_task, so its processes cannot be found")
    head = struct_at(kernel, "task_struct", first)
    yield head
    yield from list_entries(kernel, head.at("tasks"), "task_struct", "tasks")


@dataclass(frozen=True)
class OpenFile:
    """An open file: its number in the process ``owner``, its kind by its operations, and its private data."""

    owner: Object
    number: int
    private: VA


def open_files(kernel: Kernel, ioctl: str, problems: list[str]) -> Iterator[OpenFile]:
    """Yield the open files, of all processes, whose ``unlocked_ioctl`` is the function named; each file once.

    Files that cannot be read are left out, and ``problems`` gets a sentence for each process that has some.
    """
    wanted = kernel.symbol(ioctl)
    if wanted is None:
        problems.append(f"the kernel's symbols do not list {ioctl}, so files cannot tell which are KVM's")
        return
    search = _FileSearch(kernel, wanted)
    for process in processes(kernel):
        yield from search.of(process, problems)


class _FileSearch:
    """Looks at each file table, file and set of operations once."""

    def __init__(self, kernel: Kernel, ioctl: int) -> None:
        self._kernel = kernel
        self._ioctl = ioctl
        self._file = kernel.types.struct("file")
        self._operations = kernel.types.struct("file_operations").offset("unlocked_ioctl")
        self._seen: set[int] = set()
        self._kinds: dict[int, bool] = {}

    def of(self, process: Object, problems: list[str]) -> Iterator[OpenFile]:
        try:
            yield from self._of(process)
        except GdbhypError as error:
            problems.append(f"the files of a process at {process.address:#x} cannot be read: {error}")

    def _of(self, process: Object) -> Iterator[OpenFile]:
        files = process.follow("files")
        if files is None or files.address in self._seen:
            return
        self._seen.add(files.address)
        table = files.follow("fdt")
        if table is None:
            return
        count = min(table.number("max_fds"), _MOST_FILES)
        data = self._kernel.memory.read(table.number("fd"), 8 * count)
        for number, (address,) in enumerate(struct.iter_unpack("<Q", data)):
            if address and address not in self._seen:
                self._seen.add(address)
                private = self._private(address)
                if private is not None:
                    yield OpenFile(process, number, private)

    def _private(self, address: int) -> VA | None:
        """Return the private data of a file, None if it is not of the kind that is looked for."""
        found = Object(self._kernel, self._file, VA(address))
        operations = found.number("f_op")
        if operations not in self._kinds:
            try:
                ioctl = self._kernel.memory.word(operations + self._operations)
            except MemoryUnavailable:
                ioctl = 0
            self._kinds[operations] = ioctl == self._ioctl
        return VA(found.number("private_data")) if self._kinds[operations] else None
