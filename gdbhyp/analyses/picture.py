"""A picture of translations and registers at one moment, to be compared with another one.

It holds addresses and attributes alone, 28 bytes a merged range, and nothing of the target: it can be kept while the
machine runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from gdbhyp.analyses.map import MapReport, MapRow, Question, map_tables
from gdbhyp.analyses.reach import Indexed, reach_of
from gdbhyp.arch.attributes import shareability_words
from gdbhyp.arch.permissions import EXECUTE, READ, WRITE
from gdbhyp.arch.registers import layout_of
from gdbhyp.arch.spaces import Address
from gdbhyp.engine.mapped import MappedRange, Shape
from gdbhyp.engine.reverse import ReverseMap
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import BadInput, UsageError


@dataclass(frozen=True)
class Drawn:
    """One tree of tables; ``same`` is equal for what is meant to be compared, whatever the label says."""

    label: str
    same: tuple[object, ...]
    map: ReverseMap = field(repr=False)


@dataclass(frozen=True)
class Picture:
    """Trees of tables, and the registers of CPUs by number."""

    name: str
    trees: tuple[Drawn, ...]
    registers: Mapping[int, Mapping[str, int]]
    problems: tuple[str, ...]


def picture_of(stop: Stop) -> Picture:
    """Return the picture of the whole machine that ``stop`` is a CPU of."""
    reach = reach_of(stop)
    trees = tuple(Drawn(each.tree.label, _same(each), each.map) for each in reach.indexed)
    registers = {cpu.cpu: registers_of(cpu) for cpu in stop.cpus()}
    return Picture(stop.origin, trees, registers, reach.problems)


def _same(each: Indexed) -> tuple[object, ...]:
    """A VM is known again by its VMID, a process by the CPU that runs it."""
    tree = each.tree
    own = tree.vmid if tree.who == "vm" else tree.cpu if tree.upper is False else None
    return tree.who, tree.stages, tree.root, own


@dataclass(frozen=True)
class Kept:
    """A map that was kept by name: its picture, and the question, to be asked again."""

    picture: Picture
    question: Question


@dataclass(frozen=True)
class KeptReport:
    """A map was kept as ``name``: so many ranges."""

    kind: ClassVar[str] = "kept"

    name: str
    map: str
    ranges: int
    problems: tuple[str, ...]


def keep(stop: Stop, question: Question, name: str) -> tuple[Kept, KeptReport]:
    """Return the answer to ``question`` as something to be kept under ``name``."""
    report = map_tables(stop, question)
    again = replace(question, regime=report.regime, stages=report.stages)
    picture = _draw(name, report, stop)
    kept = KeptReport(name, picture.trees[0].label, len(picture.trees[0].map), picture.problems)
    return Kept(picture, again), kept


def drawn_again(stop: Stop, kept: Kept) -> Picture:
    """Return the picture of a map that was kept as it is now."""
    return _draw("now", map_tables(stop, kept.question), stop)


def _draw(name: str, report: MapReport, stop: Stop) -> Picture:
    whole = ReverseMap(_range(row) for row in report.rows)
    stages = {"1": "stage 1", "2": "stage 2", "both": "both stages"}[report.stages]
    tree = Drawn(f"{report.regime.value} {stages}", (report.regime, report.stages), whole)
    return Picture(name, (tree,), {stop.cpu: registers_of(stop)}, tuple(report.problems))


def _range(row: MapRow) -> MappedRange:
    levels = row.exec.split("+")
    own = levels[0] if levels[0] not in ("never", "EL0") else ""
    el0 = row.el0_read, row.el0_write, "EL0" in levels
    shape = Shape(
        input_space=row.input_space,
        output_space=row.output_space,
        own=own,
        level=row.level,
        page_size=row.page_size,
        privileged=_rights(row.read, row.write, bool(own)),
        unprivileged=None if row.el0_read is None else _rights(*map(bool, el0)),
        memory=row.memory,
        attr=0,
        sh=_SHAREABILITY.get(row.shareability, 0),
        contiguous=row.contiguous,
        access_flag=row.access_flag,
        space=row.space,
    )
    return MappedRange(row.start, row.end, row.pa, row.constant, shape)


_SHAREABILITY = {shareability_words(sh): sh for sh in range(4)}


def _rights(read: bool, write: bool, execute: bool) -> int:
    return READ * read | WRITE * write | EXECUTE * execute


def registers_of(stop: Stop) -> dict[str, int]:
    """Return the system registers of a CPU by architectural name, but for those that count by themselves."""
    found = {}
    for name, value in stop.every_register().items():
        if name in _COUNTERS or "_TVAL_" in name or name.endswith(_ALIASES) or not name.isupper():
            continue
        try:
            layout_of(name)
        except UsageError:
            continue
        found[name] = value
    return found


_COUNTERS = {"CNTPCT_EL0", "CNTVCT_EL0", "CNTPCTSS_EL0", "CNTVCTSS_EL0", "PMCCNTR_EL0", "PMICNTR_EL0"}

_ALIASES = ("_EL12", "_EL02")
"""Names by which EL2 reaches registers of EL1 that are shown under their own names too."""

_LARGEST_FILE = 1 << 30


def is_map(path: str) -> bool:
    """Return whether a file begins as a map in JSON does, and as no dump does."""
    try:
        with Path(path).open("rb") as file:
            return file.read(1) == b"{"
    except OSError:
        return False


def read_map(path: str) -> Picture:
    """Return the picture in a file that ``gdbhyp map --json`` wrote.

    :raises BadInput: with the line, if it is none.
    """

    def rows() -> Iterator[MappedRange]:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                yield _row(path, number, line)

    try:
        if Path(path).stat().st_size > _LARGEST_FILE:
            raise BadInput(f"{path} is larger than any map")
        tree = Drawn("the map", ("the map",), ReverseMap(rows()))
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error
    return Picture(path, (tree,), {}, ())


def _row(path: str, number: int, line: str) -> MappedRange:
    try:
        values: dict[str, Any] = json.loads(line)
        addresses = {name: Address(int(values[name], 16)) for name in ("start", "end", "pa")}
        row = MapRow(**{**values, **addresses})
        if not row.start < row.end or not all(
            isinstance(v, str) for v in (row.exec, row.memory, row.shareability)
        ):
            raise ValueError("its values are no range's")
        return _range(row)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput(f"line {number} of {path} is no row of 'gdbhyp map --json': {error}") from error
