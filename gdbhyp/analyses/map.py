"""What a whole translation table maps, as merged ranges, with filters and with what could not be followed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from gdbhyp.analyses.walk import (
    NO_ROOTS,
    Roots,
    assumed_features,
    assumed_regime,
    machine_for,
    mair_name,
    regime_of,
)
from gdbhyp.arch.regimes import Regime
from gdbhyp.arch.spaces import Address
from gdbhyp.engine.map import Budget, MappedRange, Problem, Shape, map_both, map_stage
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import MemoryUnavailable

# Pages that all map to one page are a row each, so that every row is linear, unless there are absurdly many.
_MOST_ALIASES = 1 << 16


_MOST_SHAPES = 4096

# Enough for 8 TiB of 4 KiB pages; tables that point to themselves would unfold into far more.
MOST_TABLES = 1 << 22

# Where the upper range of a regime with two begins, in any configuration.
_UPPER = 1 << 63


@dataclass(frozen=True)
class MapRow:
    """A merged range: input ``start`` to ``end`` (exclusive) is mapped from ``pa`` on, linearly.

    ``pa`` is an address of ``output_space``: "PA", or "IPA" for stage 1 alone of the EL1&0 regime. ``read`` and
    ``write`` are privileged rights and those of EL0 stand beside them (None in a regime without EL0); ``exec`` says
    who may execute. With ``constant`` True, every page of the range maps to the one page at ``pa``. With
    ``access_flag`` False an access faults all the same. Rows with the same ``alike`` differ in the ``json_varying``
    fields only, so that hundreds of thousands of them are printed quickly.
    """

    json_varying: ClassVar[tuple[str, ...]] = ("start", "end", "pa")

    start: Address
    end: Address
    pa: Address
    input_space: str
    output_space: str
    level: int | None
    page_size: int
    read: bool
    write: bool
    exec: str
    el0_read: bool | None
    el0_write: bool | None
    memory: str
    shareability: str
    contiguous: bool
    access_flag: bool
    constant: bool
    space: str
    alike: object = field(default=None, init=False, repr=False, compare=False, metadata={"json": False})

    @property
    def size(self) -> int:
        """The size in bytes."""
        return self.end - self.start

    @property
    def rights(self) -> str:
        """Privileged and unprivileged rights in the form "rw-/r--"."""
        own = _rights(self.read, self.write, self.exec not in ("never", "EL0"))
        if self.el0_read is None:
            return own
        return f"{own}/{_rights(self.el0_read, bool(self.el0_write), 'EL0' in self.exec)}"


def _rights(read: bool, write: bool, execute: bool) -> str:
    return ("r" if read else "-") + ("w" if write else "-") + ("x" if execute else "-")


@dataclass(frozen=True)
class Filter:
    """Which ranges are wanted; None and empty values take all.

    ``rights`` are letters that must all be allowed to somebody ("wx" finds what is writable and executable);
    ``memory`` is "device" or "normal"; ``smallest`` is a size in bytes.
    """

    rights: str = ""
    memory: str | None = None
    smallest: int = 0

    def takes(self, row: MapRow) -> bool:
        """Return whether the row is wanted."""
        return (
            row.size >= self.smallest
            and all(letter in row.rights for letter in self.rights)
            and (self.memory is None or row.memory.lower().startswith(self.memory))
        )


@dataclass
class Extent:
    """Whether anything is ``mapped``, and whether anything is ``unknown`` for want of a table."""

    mapped: bool = False
    unknown: bool = False


@dataclass(frozen=True)
class MapReport:
    """A table as a stream of rows, ascending; ``problems`` fills while the rows are made.

    Iterate ``rows`` once. What is missing from them, because a table cannot be read, a descriptor is reserved, or
    somebody pressed Ctrl-C, is in ``problems`` as sentences afterwards; ``extent`` fills as well.
    """

    kind: ClassVar[str] = "map"
    json_lines: ClassVar[bool] = True

    regime: Regime
    stages: str
    rows: Iterator[MapRow]
    problems: list[str] = field(default_factory=list)
    extent: Extent = field(default_factory=Extent, metadata={"json": False})

    @property
    def exit_status(self) -> int:
        """1 where nothing is known of what the table maps: no rows do not mean then that it maps nothing."""
        return int(self.extent.unknown and not self.extent.mapped)


@dataclass(frozen=True)
class Question:
    """Which table: ``regime`` None is the current one; ``stages`` is "1", "2", "both", or None for what fits.

    ``start`` and ``end`` (exclusive) prune by input address: tables outside are not read. ``most_tables`` bounds how
    many are, so that tables that point to themselves end.
    """

    regime: Regime | None = None
    stages: str | None = None
    roots: Roots = NO_ROOTS
    start: int | None = None
    end: int | None = None
    wanted: Filter = Filter()
    most_tables: int = MOST_TABLES


def map_tables(stop: Stop, question: Question) -> MapReport:
    """Map a table of a stopped CPU.

    Without a choice, the stage of the current regime is taken; in the EL1&0 regime both, where stage 2 is on.

    :raises RegisterUnavailable: if the target lacks a register that the walk starts from.
    :raises UsageError: for a stage 2 in a regime without.
    """
    regime = question.regime or (Regime.EL10 if question.stages == "2" else regime_of(stop))
    stages = question.stages or ("both" if regime is Regime.EL10 and _stage2_on(stop) else "1")
    if regime is not Regime.EL10 and stages == "both":
        stages = "1"
    machine = machine_for(stop.machine, regime, stages, question.roots)
    start, end = _limits(question)
    budget = Budget(question.most_tables)
    if stages == "both":
        found = map_both(machine, start=start, end=end, budget=budget)
    else:
        found = map_stage(machine, regime, int(stages), start=start, end=end, budget=budget)
    typeless = stages != "2" and bool(machine.missing([mair_name(regime)]))
    chosen = question.regime is not None or question.stages == "2" or question.roots.any
    assumed = (None if chosen else assumed_regime(stop), assumed_features(machine, regime, stages))
    problems = [sentence for sentence in assumed if sentence]
    problems += [f"{mair_name(regime)} is not known, so memory types are not"] if typeless else []
    extent = Extent()
    rows = _rows(_watched(found, extent), question.wanted, problems, _Template(typeless))
    return MapReport(regime, stages, rows, problems, extent)


def _limits(question: Question) -> tuple[int | None, int | None]:
    """Return the input addresses to map: one explicit root leaves the other range out."""
    start, end, roots = question.start, question.end, question.roots
    if roots.ttbr is not None and roots.ttbr1 is None:
        end = _UPPER if end is None else min(end, _UPPER)
    elif roots.ttbr is None and roots.ttbr1 is not None:
        start = _UPPER if start is None else max(start, _UPPER)
    return start, end


def _stage2_on(stop: Stop) -> bool:
    return bool((stop.optional("HCR_EL2") or 0) & 1)


def _watched(found: Iterator[MappedRange | Problem], extent: Extent) -> Iterator[MappedRange | Problem]:
    """Yield what is found up to the first range while looking at what it is, then the rest as it comes."""
    for item in found:
        if isinstance(item, MappedRange):
            extent.mapped = True
            yield item
            break
        extent.unknown |= item.kind in ("unreadable", "budget")
        yield item
    yield from found


def _rows(
    found: Iterator[MappedRange | Problem], wanted: Filter, problems: list[str], template: _Template
) -> Iterator[MapRow]:
    last = 0
    takes = None if wanted == Filter() else wanted.takes
    try:
        for item in found:
            if isinstance(item, Problem):
                problems.append(_sentence(item))
            elif item.constant:
                for row in _split(item, template):
                    if takes is None or takes(row):
                        yield row
            else:
                row = template.row(item, item.start, item.end)
                if takes is None or takes(row):
                    yield row
            # Only now: Ctrl-C may hit before the row was handed over, and what was not shown was not looked at.
            last = item.end
    except KeyboardInterrupt:
        problems.append(f"interrupted: what is mapped from {last:#x} on was not looked at")
    except MemoryUnavailable as error:
        problems.append(f"stopped: {error}")


def _sentence(problem: Problem) -> str:
    verb = "faults" if problem.kind in ("reserved", "address_size") else "is not known"
    where = f"{problem.start:#x} to {problem.end:#x} {verb}: {problem.text}"
    if problem.address is not None:
        where += f" (level {problem.level}, at {problem.address_space} {problem.address:#x}"
        where += f", {problem.descriptor:#x})" if problem.descriptor is not None else ")"
    return where


def _split(item: MappedRange, template: _Template) -> Iterator[MapRow]:
    pages = (item.end - item.start) // item.page_size if item.page_size else 1
    if pages == 1 or pages > _MOST_ALIASES:
        yield template.row(item, item.start, item.end, constant=pages > 1)
        return
    for start in range(item.start, item.end, item.page_size):
        yield template.row(item, start, start + item.page_size)


class _Template:
    """Makes rows: what a shape says is put in words once, and copied into each row that has it.

    ``typeless`` says that MAIR_ELx is not known, by which memory types were decoded.
    """

    def __init__(self, typeless: bool) -> None:
        self._typeless = typeless
        self._fields: dict[tuple[Shape, bool], dict[str, object]] = {}
        self._last: tuple[Shape | None, bool] = (None, False)
        self._own: dict[str, object] = {}

    def row(self, item: MappedRange, start: int, end: int, *, constant: bool = False) -> MapRow:
        """Return the row of a range, or of a page of it."""
        shape = item.shape
        if shape is not self._last[0] or constant is not self._last[1]:
            key = self._last = (shape, constant)
            own = self._fields.get(key)
            if own is None:
                if len(self._fields) >= _MOST_SHAPES:
                    self._fields.clear()
                own = self._fields[key] = self._words(item, constant)
            self._own = own
        row = object.__new__(MapRow)
        # A frozen dataclass sets its fields one by one, which takes ten times as long as decoding the range did.
        row.__dict__.update(self._own, start=start, end=end, pa=item.output)
        return row

    def _words(self, item: MappedRange, constant: bool) -> dict[str, object]:
        row = MapRow(
            start=item.start,
            end=item.end,
            pa=item.output,
            input_space=item.input_space,
            output_space=item.output_space,
            level=item.level,
            page_size=item.page_size,
            read=item.read,
            write=item.write,
            exec=item.exec,
            el0_read=item.el0_read,
            el0_write=item.el0_write,
            memory="unknown" if self._typeless else item.memory,
            shareability="unknown" if self._typeless else item.shareability,
            contiguous=item.contiguous,
            access_flag=item.access_flag,
            constant=constant,
            space=item.space,
        )
        return {**vars(row), "alike": object()}
