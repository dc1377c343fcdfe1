"""Who reaches a physical address: every tree of tables, indexed by its outputs, once a stop."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from gdbhyp.analyses.trees import MOST_TABLES, Tree, Trees, trees_of
from gdbhyp.engine.census import Census, Table, census
from gdbhyp.engine.map import MappedRange
from gdbhyp.engine.ranges import Ranges, union
from gdbhyp.engine.reverse import ReverseMap
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import GdbhypError


@dataclass(frozen=True)
class Indexed:
    """One tree by physical address: ``map`` is what it maps, ``census`` its tables."""

    tree: Tree
    map: ReverseMap
    census: Census

    @cached_property
    def tables(self) -> Ranges:
        """Where its tables are in physical memory."""
        return union(piece for table in self.census.tables for piece in table.pieces)


@dataclass(frozen=True)
class Reach:
    """All trees of a machine by physical address, and what could not be looked at."""

    trees: Trees
    indexed: tuple[Indexed, ...]
    problems: tuple[str, ...]

    def find(self, start: int, end: int) -> list[tuple[Tree, MappedRange]]:
        """Return what maps to physical addresses ``start`` to ``end`` (exclusive), cut to them, tree by tree."""
        return [(each.tree, found) for each in self.indexed for found in each.map.find(start, end)]

    def tables_at(self, start: int, end: int) -> list[tuple[Tree, Table]]:
        """Return the translation tables that lie in ``start`` to ``end``, tree by tree."""
        return [
            (each.tree, table)
            for each in self.indexed
            for table in each.census.tables
            if any(first < end and start < last for first, last in table.pieces)
        ]


def reach_of(stop: Stop, *, guests: bool = False) -> Reach:
    """Return who reaches what on the machine; ``guests`` adds stage 1 of guests that are running."""
    trees = trees_of(stop, guests=guests)
    problems = list(trees.problems)
    found = []
    for tree in trees.trees:
        try:
            indexed = _indexed(stop, tree)
        except GdbhypError as error:
            problems.append(f"{tree.label} was not looked at: {error}")
            continue
        found.append(indexed)
        problems.extend(_missing(indexed))
    return Reach(trees, tuple(found), tuple(problems))


def _indexed(stop: Stop, tree: Tree) -> Indexed:
    """Index a tree, or return the index that was made at this stop.

    What is remembered are addresses and attributes alone, by all register values that lead to them.
    """
    known = stop.memo.get(("reach", tree.key))
    if known is None:
        tables = census(
            tree.machine, tree.regime, tree.stages, upper=bool(tree.upper), most_tables=MOST_TABLES
        )
        known = stop.memo["reach", tree.key] = ReverseMap(tree.ranges()), tables
    return Indexed(tree, *known)


def _missing(indexed: Indexed) -> list[str]:
    """Return sentences about what of a tree is not known, as opposed to not mapped."""
    label, unknown = (
        indexed.tree.label,
        [p for p in indexed.map.problems if p.kind not in ("reserved", "address_size")],
    )
    sentences = [f"{label}: {p.start:#x} to {p.end:#x} is not known: {p.text}" for p in unknown[:_SHOWN]]
    if len(unknown) > _SHOWN:
        sentences.append(f"{label}: {len(unknown) - _SHOWN} more ranges are not known")
    return sentences


_SHOWN = 4
