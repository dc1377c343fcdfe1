"""What a dump holds: memory, CPUs and their registers, and what it says about the machine and itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from gdbhyp.arch.spaces import PA, VA
from gdbhyp.errors import BadInput
from gdbhyp.hypervisors.linux.roots import KernelRoots, from_vmcoreinfo
from gdbhyp.targets.dump import Dump


@dataclass(frozen=True)
class DumpCpu:
    """A CPU: where it is, and how many registers the dump has of it."""

    cpu: int
    pc: VA | None
    el: int | None
    registers: int
    symbol: str | None


@dataclass(frozen=True)
class DumpRange:
    """Physical memory from ``start`` to ``end`` (exclusive)."""

    start: PA
    end: PA


@dataclass(frozen=True)
class InfoReport:
    """A dump; ``size`` is that of its first file, ``memory`` and ``ram`` are bytes: with contents, and in the machine.

    ``system_registers`` says whether it has those of EL2; ``kernel_roots`` is where the host kernel's tables are if
    VMCOREINFO says so. ``taken`` is when a snapshot was taken, ``versions`` what of, and ``contents`` how much of
    memory it was asked to have.
    """

    kind: ClassVar[str] = "info"

    file: str
    form: str
    size: int | None
    memory: int
    ram: int
    ranges: tuple[DumpRange, ...]
    cpus: tuple[DumpCpu, ...]
    selected: int
    system_registers: bool
    release: str | None
    vmcoreinfo: Mapping[str, str]
    kernel_roots: KernelRoots | None
    taken: str | None
    contents: str | None
    versions: Mapping[str, str]
    problems: tuple[str, ...]


def info(dump: Dump) -> InfoReport:
    """Describe a dump."""
    said = dump.vmcoreinfo or {}
    problems = list(dump.problems)
    roots = None
    try:
        roots = from_vmcoreinfo(said)
    except BadInput as error:
        problems.append(str(error))
    taken = dump.snapshot
    return InfoReport(
        file=dump.name,
        form=dump.form,
        size=_size(dump.name),
        memory=sum(end - start for start, end in dump.ranges) if dump.held is None else dump.held,
        ram=sum(end - start for start, end in dump.ram),
        ranges=tuple(DumpRange(PA(start), PA(end)) for start, end in dump.ranges),
        cpus=tuple(_cpu(dump, number) for number in range(len(dump.cpus))),
        selected=dump.selected,
        system_registers=any("HCR_EL2" in cpu for cpu in dump.cpus),
        release=said.get("OSRELEASE"),
        vmcoreinfo=said,
        kernel_roots=roots,
        taken=taken.created if taken else None,
        contents=taken.contents if taken else None,
        versions={"gdbhyp": taken.gdbhyp, **taken.versions} if taken else {},
        problems=tuple(problems),
    )


def _size(name: str) -> int | None:
    """Return the size of the file that ``FILE`` or ``FILE@ADDRESS`` names."""
    for file in (name, name.rpartition("@")[0]):
        if file and Path(file).exists():
            return Path(file).stat().st_size
    return None


def _cpu(dump: Dump, number: int) -> DumpCpu:
    registers = dump.cpus[number]
    pc = registers.get("PC")
    stop = dump.stop(number)
    return DumpCpu(
        number,
        None if pc is None else VA(pc),
        stop.el if "CPSR" in registers else None,
        len(registers),
        None if pc is None else stop.symbol(pc),
    )
