"""Who reaches a physical address: the answer for one address or range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gdbhyp.analyses.reach import reach_of
from gdbhyp.analyses.trees import Tree
from gdbhyp.analyses.walk import machine_for
from gdbhyp.arch.permissions import words
from gdbhyp.arch.regimes import Regime
from gdbhyp.arch.spaces import PA, Address
from gdbhyp.engine.census import Table
from gdbhyp.engine.map import MappedRange
from gdbhyp.engine.stop import Stop
from gdbhyp.engine.translate import translate
from gdbhyp.errors import GdbhypError, UsageError


@dataclass(frozen=True)
class Mapping:
    """``who`` ("hypervisor", "host", "vm") reaches ``size`` bytes at ``pa`` from ``start`` (to ``end``, exclusive) on.

    ``tree`` names the tables in words, ``root`` the register they hang on, on CPU ``cpu``. Rights are as in a map;
    stage 2 alone allows no more than they say. With ``constant`` True, every page of the range maps to the page at
    ``pa``.
    """

    tree: str
    who: str
    vm: int | None
    vmid: int | None
    stage: int
    regime: Regime
    root: str
    cpu: int
    input_space: str
    start: Address
    end: Address
    pa: PA
    level: int | None
    page_size: int
    read: bool
    write: bool
    exec: str
    el0_read: bool | None
    el0_write: bool | None
    rights: str
    memory: str
    shareability: str
    contiguous: bool
    access_flag: bool
    constant: bool
    space: str


@dataclass(frozen=True)
class TableUse:
    """A translation table lies there: ``size`` bytes at ``address`` of ``address_space``, for inputs from ``start``."""

    tree: str
    who: str
    vm: int | None
    level: int
    address: Address
    address_space: str
    size: int
    start: Address


@dataclass(frozen=True)
class FindReport:
    """Everything that reaches physical addresses ``start`` to ``end`` (exclusive).

    ``memory`` says whether the machine has memory there, None where that is not known. ``trees`` are the trees of
    tables that were searched.
    """

    kind: ClassVar[str] = "find"
    csv_rows: ClassVar[str] = "mappings"

    start: PA
    end: PA
    asked: str
    memory: bool | None
    mappings: tuple[Mapping, ...]
    tables: tuple[TableUse, ...]
    trees: tuple[str, ...]
    problems: tuple[str, ...]


def find(stop: Stop, start: int, end: int, *, asked: str = "", guests: bool = False) -> FindReport:
    """Return who reaches physical addresses ``start`` to ``end``; ``asked`` says in words what was asked for.

    ``guests`` adds the stage 1 of guests that are running.

    :raises UsageError: if the range is empty or beyond any physical address.
    """
    if not 0 <= start < end <= 1 << 56:
        raise UsageError(f"{start:#x} to {end:#x} are no physical addresses")
    reach = reach_of(stop, guests=guests)
    return FindReport(
        PA(start),
        PA(end),
        asked or f"PA {start:#x}" + (f" to {end:#x}" if end - start > 1 else ""),
        is_memory(stop, start, end),
        tuple(_mapping(tree, found) for tree, found in reach.find(start, end)),
        tuple(_table(tree, table) for tree, table in reach.tables_at(start, end)),
        tuple(tree.label for tree in reach.trees.trees),
        reach.problems,
    )


def is_memory(stop: Stop, start: int, end: int) -> bool | None:
    """Return whether the machine has memory in all of a range, None where that is not known."""
    ram = stop.ram()
    return any(first <= start and end <= last for first, last in ram) if ram else None


def resolve(stop: Stop, address: int, regime: Regime, stages: str, what: str) -> PA:
    """Return the physical address behind an IPA or a VA; ``what`` names it.

    :raises GdbhypError: if it is not mapped, with the fault.
    """
    found = translate(machine_for(stop.machine, regime, stages), address, regime, stages=stages)
    if found.output is None or found.output_space != "PA":
        why = found.fault.text if found.fault is not None else "stage 2 is not known"
        raise GdbhypError(f"{what} leads to no physical address: {why}")
    return PA(found.output)


def rights_words(found: MappedRange) -> str:
    """Return privileged and unprivileged rights in the form "rw-/r--"."""
    shape = found.shape
    own = words(shape.privileged)
    return own if shape.unprivileged is None else f"{own}/{words(shape.unprivileged)}"


def _mapping(tree: Tree, found: MappedRange) -> Mapping:
    return Mapping(
        tree=tree.label,
        who=tree.who,
        vm=tree.vm,
        vmid=tree.vmid,
        stage=2 if tree.stages == "2" else 1,
        regime=tree.regime,
        root=tree.root,
        cpu=tree.cpu,
        input_space=found.input_space,
        start=found.start,
        end=found.end,
        pa=PA(found.output),
        level=found.level,
        page_size=found.page_size,
        read=found.read,
        write=found.write,
        exec=found.exec,
        el0_read=found.el0_read,
        el0_write=found.el0_write,
        rights=rights_words(found),
        memory=found.memory,
        shareability=found.shareability,
        contiguous=found.contiguous,
        access_flag=found.access_flag,
        constant=found.constant,
        space=found.space,
    )


def _table(tree: Tree, table: Table) -> TableUse:
    space = "IPA" if tree.stages == "both" else "PA"
    return TableUse(tree.label, tree.who, tree.vm, table.level, table.address, space, table.size, table.start)
