"""A stopped machine in one file: its memory, or what translation needs of it, and every register of every CPU.

"Only what translation needs" is found by asking: every question about the machine is asked once through a reader that
remembers which pages it was asked for, and those pages are what is written.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

from gdbhyp import __version__
from gdbhyp.analyses import frame, ipa, map, status, vcpu
from gdbhyp.analyses.exception import last_exception
from gdbhyp.analyses.trees import trees_of
from gdbhyp.analyses.walk import Roots
from gdbhyp.arch.regimes import Regime
from gdbhyp.arch.spaces import Address
from gdbhyp.arch.worlds import Hcr
from gdbhyp.engine.machine import Reader
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import BadInput, GdbhypError
from gdbhyp.hypervisors.guest import guest
from gdbhyp.hypervisors.linux.kernel import find_kernel
from gdbhyp.hypervisors.linux.roots import from_vmcoreinfo
from gdbhyp.hypervisors.vms import Vcpu, Vm, find_vms
from gdbhyp.targets import notes, snapshot
from gdbhyp.targets.corefile import Mapped, write_core
from gdbhyp.targets.flat import merged
from gdbhyp.targets.snapshot import Contents, Snapshot

_PAGE = 4096
# A debugger looks for an address in all segments, one after the other.
_MOST_VIEWS = 2048
_FEW_TABLES = 64

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class SnapshotReport:
    """What was written: ``file`` of ``size`` bytes (holes included), with ``memory`` bytes of RAM of ``ram``.

    ``registers`` counts those of each CPU.
    """

    kind: ClassVar[str] = "snapshot"

    file: str
    size: int
    contents: Contents
    memory: int
    ram: int
    cpus: int
    registers: tuple[int, ...]
    vms: int
    symbols: int
    unread: tuple[UnreadRange, ...]


@dataclass(frozen=True)
class UnreadRange:
    """Memory that could not be read, and so is not in the snapshot."""

    start: Address
    end: Address
    reason: str


def take(
    stop: Stop,
    path: Path,
    progress: Progress,
    *,
    tables_only: bool = False,
    ranges: Sequence[tuple[int, int]] = (),
) -> SnapshotReport:
    """Write a snapshot of the machine of ``stop`` to ``path``.

    :raises GdbhypError: if it cannot be written, or it is not known where the machine has memory.
    """
    ram = merged(stop.ram() or ranges)
    if not ram:
        raise GdbhypError(
            "the target does not say where the machine has memory: say with --range what to write"
        )
    contents: Contents = "tables" if tables_only else "ranges" if ranges else "all"
    if tables_only:
        wanted = _within(ram, _asked_for(stop, progress))
    else:
        wanted = _within(ram, merged(ranges)) if ranges else ram
    if not wanted:
        raise BadInput("none of these ranges is memory of the machine")
    said = _describe(stop, contents, ram)
    kernel = _KernelInfo(stop)
    written = write_core(
        path,
        stop.machine.memory,
        wanted,
        lambda: _notes(said, kernel.note()),
        [] if tables_only else _views(stop),
        lambda done, total: progress(f"writing {path.name}", done, total),
        kernel.look,
    )
    return SnapshotReport(
        file=str(path),
        size=written.size,
        contents=contents,
        memory=sum(end - start for start, end in wanted),
        ram=sum(end - start for start, end in ram),
        cpus=len(said.cpus),
        registers=tuple(len(cpu) for cpu in said.cpus),
        vms=len(find_vms(stop).vms),
        symbols=len(said.symbols),
        unread=tuple(UnreadRange(Address(s), Address(e), reason) for s, e, reason in written.unread),
    )


def _describe(stop: Stop, contents: Contents, ram: Sequence[tuple[int, int]]) -> Snapshot:
    cpus = stop.cpus()
    registers = [cpu.every_register() for cpu in cpus]
    addresses = {value for values in registers for value in values.values() if value}
    addresses |= {vcpu.pc for vm in find_vms(stop).vms for vcpu in vm.vcpus if vcpu.pc is not None}
    named = {address: stop.symbol(address) for address in sorted(addresses)}
    now = datetime.datetime.now(datetime.timezone.utc)
    return Snapshot(
        gdbhyp=__version__,
        created=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        versions=stop.versions(),
        contents=contents,
        selected=[cpu.cpu for cpu in cpus].index(stop.cpu),
        cpus=tuple(registers),
        ram=tuple(ram),
        symbols={address: name for address, name in named.items() if name is not None},
    )


def _notes(said: Snapshot, kernel: bytes) -> bytes:
    cpus = (notes.prstatus(number, registers) for number, registers in enumerate(said.cpus))
    own = notes.note(snapshot.NOTE_NAME, snapshot.NOTE_TYPE, snapshot.encode(said))
    return b"".join([*cpus, own, kernel])


class _KernelInfo:
    """Looks for the page in which a Linux host keeps its VMCOREINFO, by which drgn and crash know it for a kernel's.

    A guest has such a page, too: the host's leads to a table that a CPU has loaded, or is the only one.
    """

    def __init__(self, stop: Stop) -> None:
        roots = (cpu.optional(name) for cpu in stop.cpus() for name in ("TTBR1_EL1", "TTBR1_EL2"))
        self._roots = {root & _BADDR for root in roots if root}
        self._found: list[bytes] = []

    def look(self, address: int, data: bytes) -> None:
        """Look at memory that is being written."""
        at = data.find(_RELEASE)
        while at >= 0:
            if (address + at) % _PAGE == 0 and len(self._found) < _MOST_KERNELS:
                self._found.append(data[at : at + _PAGE].rstrip(b"\0"))
            at = data.find(_RELEASE, at + 1)

    def note(self) -> bytes:
        """Return the note of the host's, b"" if there is none or it is not clear which is."""
        loaded = [text for text in self._found if self._root(text) in self._roots]
        chosen = loaded or self._found
        return notes.note("VMCOREINFO", 0, chosen[0]) if len(chosen) == 1 else b""

    def _root(self, text: bytes) -> int | None:
        with contextlib.suppress(GdbhypError):
            found = from_vmcoreinfo(notes.vmcoreinfo(text))
            return found.ttbr1 & _BADDR if found else None
        return None


_RELEASE = b"OSRELEASE="
_MOST_KERNELS = 64
_BADDR = (1 << 48) - _PAGE


def _within(ram: Sequence[tuple[int, int]], wanted: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return the parts of ``wanted`` that are memory, ascending."""
    pairs = ((max(s, start), min(e, end)) for s, e in wanted for start, end in ram)
    return merged((start, end) for start, end in pairs if start < end)


def _views(stop: Stop) -> list[Mapped]:
    """Return the largest ranges that the CPU's own regime maps, so that a debugger finds its virtual addresses."""
    with contextlib.suppress(GdbhypError):
        rows = map.map_tables(stop, map.Question()).rows
        found = _joined(Mapped(row.start, row.pa, row.size) for row in rows if not row.constant)
        return sorted(found, key=lambda view: -view.size)[:_MOST_VIEWS]
    return []


def _joined(views: Iterable[Mapped]) -> Iterator[Mapped]:
    """Join neighbours that differ only in what may be done with them."""
    last: Mapped | None = None
    for view in views:
        if last and (last.va + last.size, last.pa + last.size) == (view.va, view.pa):
            last = Mapped(last.va, last.pa, last.size + view.size)
            continue
        if last:
            yield last
        last = view
    if last:
        yield last


class _Remembering:
    """A Reader that remembers which pages it was asked for."""

    def __init__(self, below: Reader) -> None:
        self._below = below
        self.pages: set[int] = set()

    def read(self, address: int, size: int, /) -> bytes:
        data = self._below.read(address, size)
        self.pages.update(range(address // _PAGE, (address + size - 1) // _PAGE + 1))
        return data


def _asked_for(stop: Stop, progress: Progress) -> Iterator[tuple[int, int]]:
    """Yield the pages [start, end) that answer every question about the machine."""
    memory = _Remembering(stop.machine.memory)
    cpus: list[Stop] = []

    def others(own: int) -> list[Stop]:
        return [cpu for cpu in cpus if cpu.cpu != own]

    for cpu in stop.cpus():
        machine = replace(cpu.machine, memory=memory)
        cpus.append(replace(cpu, machine=machine, others=partial(others, cpu.cpu), memo={}))
    questions = [ask for cpu in cpus for ask in _questions(cpu)]
    questions.append(partial(_every_tree, cpus[0]))
    questions.extend(_questions_about_vms(cpus[0]))
    for number, ask in enumerate(questions):
        progress("finding the tables", number, len(questions))
        with contextlib.suppress(GdbhypError):
            ask()
    progress("finding the tables", len(questions), len(questions))
    return ((page * _PAGE, (page + 1) * _PAGE) for page in sorted(memory.pages))


def _questions(cpu: Stop) -> Iterator[Callable[[], object]]:
    yield lambda: status.status(cpu)
    yield lambda: last_exception(cpu)
    yield lambda: ipa.of_last_fault(cpu)
    host = Regime.EL20 if Hcr(cpu.optional("HCR_EL2") or 0).e2h else Regime.EL2
    yield lambda: _exhaust(cpu, map.Question(regime=host))
    yield lambda: _exhaust(cpu, map.Question(regime=Regime.EL10, stages="1"))
    yield lambda: _exhaust(cpu, map.Question(regime=Regime.EL10, stages="both"))
    # A host without stage 2 leaves 0 there; what lies at PA 0 need not be tables.
    most = map.MOST_TABLES if cpu.optional("VTTBR_EL2") else _FEW_TABLES
    yield lambda: _exhaust(cpu, map.Question(regime=Regime.EL10, stages="2", most_tables=most))


def _questions_about_vms(stop: Stop) -> Iterator[Callable[[], object]]:
    """Yield questions for each VM: its stage 2, and the state and stage 1 of its vCPUs; and for the host's kernel."""
    found = find_vms(stop)
    if found.host:
        # Where the snapshot is opened, nothing of this kernel may be in a cache.
        yield partial(find_kernel, stop, afresh=True)
    for vm in found.vms:
        roots = Roots(vttbr=vm.vttbr, vtcr=vm.vtcr)
        yield partial(_exhaust, stop, map.Question(regime=Regime.EL10, stages="2", roots=roots))
        for each in vm.vcpus:
            yield partial(vcpu.vcpu_report, stop, vm, each)
            yield partial(_space_of, stop, vm, each)


def _space_of(stop: Stop, vm: Vm, each: Vcpu) -> None:
    """Ask for a vCPU's code at its PC, its callers, and its stage 1."""
    asked = guest(stop, vm, each).stop
    frame.frame(asked, lambda code, address: None)
    _exhaust(asked, map.Question(regime=Regime.EL10, stages="1"))


def _every_tree(stop: Stop) -> None:
    """Ask for all trees that are known, also those that no CPU has loaded, such as pKVM's stage 2 of the host."""
    for tree in trees_of(stop, guests=True).trees:
        with contextlib.suppress(GdbhypError):
            for _ in tree.ranges():
                pass


def _exhaust(stop: Stop, question: map.Question) -> None:
    for _ in map.map_tables(stop, question).rows:
        pass
