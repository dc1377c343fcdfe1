"""What is different between two moments, two dumps, or two VMs: their translations, and the registers by field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from gdbhyp.analyses.changes import Change, changes
from gdbhyp.analyses.picture import Drawn, Picture
from gdbhyp.analyses.reach import reach_of
from gdbhyp.arch.registers import RegisterField, describe
from gdbhyp.arch.spaces import Word
from gdbhyp.arch.worlds import Hcr
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import UsageError


@dataclass(frozen=True)
class TreeDiff:
    """One tree of tables on both sides: the changes, and how many bytes each kind of them is.

    ``same`` are the bytes that are mapped alike.
    """

    tree: str
    changes: tuple[Change, ...]
    added: int
    removed: int
    moved: int
    changed: int
    same: int


@dataclass(frozen=True)
class FieldChange:
    """A field [msb:lsb] of a register that has another value, in numbers and in words."""

    name: str
    msb: int
    lsb: int
    before: int
    after: int
    before_text: str
    after_text: str


@dataclass(frozen=True)
class RegisterChange:
    """A register of a CPU that has another value; None on the side that does not show it."""

    cpu: int
    name: str
    before: Word | None
    after: Word | None
    fields: tuple[FieldChange, ...]


@dataclass(frozen=True)
class DiffReport:
    """What is different from ``before`` to ``after``; trees that only one side has are named and not compared.

    ``registers_compared`` counts the registers that both sides show.
    """

    kind: ClassVar[str] = "diff"

    before: str
    after: str
    trees: tuple[TreeDiff, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    registers: tuple[RegisterChange, ...]
    registers_compared: int
    problems: tuple[str, ...]
    verbose: bool = field(default=False, metadata={"json": False})


def diff(before: Picture, after: Picture) -> DiffReport:
    """Return what is different between two pictures."""
    others = {tree.same: tree for tree in after.trees}
    pairs = [(tree, others[tree.same]) for tree in before.trees if tree.same in others]
    met = {tree.same for tree, _ in pairs}
    registers, compared = _registers(before.registers, after.registers)
    return DiffReport(
        before.name,
        after.name,
        tuple(_tree(one, other) for one, other in pairs),
        tuple(tree.label for tree in before.trees if tree.same not in met),
        tuple(tree.label for tree in after.trees if tree.same not in met),
        registers,
        compared,
        _problems(before, after),
    )


def diff_vms(stop: Stop, first: int, second: int) -> DiffReport:
    """Return what is different between stage 2 of two VMs at one stop.

    :raises UsageError: if there is no such VM.
    """
    reach = reach_of(stop)
    drawn = []
    for number in (first, second):
        own = [each for each in reach.indexed if each.tree.vm == number and each.tree.stages == "2"]
        if not own:
            known = ", ".join(str(vm.vm) for vm in reach.trees.search.vms) or "none"
            raise UsageError(f"stage 2 of VM {number} is not known; the VMs that are: {known}")
        drawn.append(Drawn(own[0].tree.label, ("vm",), own[0].map))
    one, other = drawn
    return DiffReport(one.label, other.label, (_tree(one, other),), (), (), (), 0, reach.problems)


def _problems(before: Picture, after: Picture) -> tuple[str, ...]:
    """Return what is not known of either side; what is so of both is said once."""
    both = [problem for problem in before.problems if problem in after.problems]
    sides = ((before, "before"), (after, "after"))
    own = [f"{which}: {p}" for side, which in sides for p in side.problems if p not in both]
    return (*(f"both: {problem}" for problem in both), *own)


def _tree(before: Drawn, after: Drawn) -> TreeDiff:
    found = tuple(changes(before.map.in_order(), after.map.in_order()))
    sizes = {"added": 0, "removed": 0, "moved": 0, "changed": 0}
    for change in found:
        sizes[change.kind] += change.end - change.start
    mapped = sum(item.end - item.start for item in before.map.in_order())
    same = mapped - sizes["removed"] - sizes["moved"] - sizes["changed"]
    label = (
        before.label if before.label == after.label else f"{before.label} ({after.label} on the other side)"
    )
    return TreeDiff(label, found, same=same, **sizes)


def _registers(
    before: Mapping[int, Mapping[str, int]], after: Mapping[int, Mapping[str, int]]
) -> tuple[tuple[RegisterChange, ...], int]:
    found: list[RegisterChange] = []
    compared = 0
    for cpu in sorted(before.keys() & after.keys()):
        one, other = before[cpu], after[cpu]
        compared += len(one.keys() & other.keys())
        e2h = [Hcr(values.get("HCR_EL2", 0)).e2h for values in (one, other)]
        found += [
            _register(cpu, name, one.get(name), other.get(name), e2h)
            for name in sorted(one.keys() | other.keys())
            if one.get(name) != other.get(name)
        ]
    return tuple(found), compared


def _register(cpu: int, name: str, before: int | None, after: int | None, e2h: list[bool]) -> RegisterChange:
    fields: tuple[FieldChange, ...] = ()
    if before is not None and after is not None:
        sides = [describe(name, value, e2h=mode) for value, mode in ((before, e2h[0]), (after, e2h[1]))]
        if sides[0].layout == sides[1].layout:
            fields = _fields(*(side.fields for side in sides))
    return RegisterChange(
        cpu,
        name,
        None if before is None else Word(before),
        None if after is None else Word(after),
        fields,
    )


def _fields(before: Sequence[RegisterField], after: Sequence[RegisterField]) -> tuple[FieldChange, ...]:
    """Return the fields that differ; one that only one side lists (RES0 bits that are set) is 0 on the other."""
    sides = [{(each.msb, each.lsb): each for each in fields} for fields in (before, after)]
    found = []
    for place in sorted(sides[0].keys() | sides[1].keys(), reverse=True):
        one, other = sides[0].get(place), sides[1].get(place)
        values = [0 if each is None else each.value for each in (one, other)]
        if values[0] != values[1]:
            named = one or other
            assert named is not None
            texts = ["" if each is None else each.text for each in (one, other)]
            found.append(FieldChange(named.name, *place, values[0], values[1], texts[0], texts[1]))
    return tuple(found)
