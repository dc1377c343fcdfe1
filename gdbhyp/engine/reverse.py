"""What one tree of translation tables maps, in the order of its outputs: who reaches this address?

A merged range takes 28 bytes here, so that a table of a million scattered pages takes 30 MB. Ranges are kept in
classes of like size: those that may cover an address then stand next to each other in each class, however large the
largest range is, and a question costs a binary search a class.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator

from gdbhyp.arch.spaces import Address
from gdbhyp.engine.mapped import MappedRange, Problem, Shape
from gdbhyp.engine.ranges import Ranges, joined

MOST_PROBLEMS = 1000
MOST_RANGES = 1 << 23
"""Enough for 32 GiB of pages of which no two are neighbours; tables that point to themselves unfold into more."""


class ReverseMap:
    """A tree's ranges by output address.

    ``problems`` are the first ``MOST_PROBLEMS`` parts that could not be followed, ``problem_count`` is how many
    there were; where there are more than ``most`` ranges, the last one says so. ``shapes`` are the different kinds of
    ranges, each as the first range of that kind.
    """

    def __init__(self, items: Iterable[MappedRange | Problem], most: int = MOST_RANGES) -> None:
        self.problems: list[Problem] = []
        self.problem_count = 0
        self.shapes: list[MappedRange] = []
        self._outputs = array("Q")
        self._inputs = array("Q")
        self._sizes = array("Q")
        self._kinds = array("I")
        self._repeated: dict[int, int] = {}
        self._read(items, most)
        self._classes = self._sort()
        self._covered: dict[frozenset[int], Ranges] = {}

    def __len__(self) -> int:
        return len(self._outputs)

    def _read(self, items: Iterable[MappedRange | Problem], most: int) -> None:
        numbers: dict[Shape, int] = {}
        outputs, inputs, sizes, kinds = self._outputs, self._inputs, self._sizes, self._kinds
        for item in items:
            if isinstance(item, Problem):
                self.problem_count += 1
                if len(self.problems) < MOST_PROBLEMS:
                    self.problems.append(item)
                continue
            if len(outputs) == most:
                self.problem_count += 1
                self.problems.append(_beyond(item))
                break
            kind = numbers.get(item.shape)
            if kind is None:
                kind = numbers[item.shape] = len(self.shapes)
                self.shapes.append(item)
            size = item.end - item.start
            if item.constant:
                self._repeated[item.start] = size
                size = item.page_size
            outputs.append(item.output)
            inputs.append(item.start)
            sizes.append(size)
            kinds.append(kind)

    def _sort(self) -> dict[int, array[int]]:
        """Order everything by output; return for each size class, log2 of the size, the positions of its ranges."""
        outputs = self._outputs
        order = sorted(range(len(outputs)), key=outputs.__getitem__)
        for column in (self._outputs, self._inputs, self._sizes, self._kinds):
            column[:] = array(column.typecode, map(column.__getitem__, order))
        classes: dict[int, array[int]] = {}
        for position, size in enumerate(self._sizes):
            found = classes.get(size.bit_length())
            if found is None:
                found = classes[size.bit_length()] = array("I")
            found.append(position)
        return classes

    def find(self, start: int, end: int) -> list[MappedRange]:
        """Return what maps to outputs ``start`` to ``end`` (exclusive), cut to them, by ascending input.

        Where every page of a range maps to one and the same page, the range comes whole (``constant``).
        """
        found: list[MappedRange] = []
        outputs, sizes = self._outputs, self._sizes
        for bits, positions in self._classes.items():
            low = bisect_right(positions, start - (1 << bits), key=outputs.__getitem__)
            high = bisect_left(positions, end, lo=low, key=outputs.__getitem__)
            found += [
                self._cut(position, start, end)
                for position in positions[low:high]
                if outputs[position] + sizes[position] > start
            ]
        return sorted(found)

    def _cut(self, position: int, start: int, end: int) -> MappedRange:
        output, size, at = self._outputs[position], self._sizes[position], self._inputs[position]
        shape = self.shapes[self._kinds[position]]
        whole = self._repeated.get(at)
        if whole is not None:
            return shape._replace(
                start=Address(at), end=Address(at + whole), output=Address(output), constant=True
            )
        first, last = max(output, start), min(output + size, end)
        return shape._replace(
            start=Address(at + first - output),
            end=Address(at + last - output),
            output=Address(first),
            constant=False,
        )

    def covered(self, wanted: Callable[[MappedRange], bool]) -> Ranges:
        """Return the outputs that a range of a wanted kind maps to; ``wanted`` sees no more than the kind."""
        kinds = frozenset(number for number, shape in enumerate(self.shapes) if wanted(shape))
        found = self._covered.get(kinds)
        if found is None:
            found = self._covered[kinds] = joined(
                (output, output + size)
                for output, size, kind in zip(self._outputs, self._sizes, self._kinds, strict=True)
                if kind in kinds
            )
        return found

    def ranges(self, wanted: Callable[[MappedRange], bool]) -> Iterator[MappedRange]:
        """Yield whole ranges of a wanted kind, by ascending output."""
        kinds = {number for number, shape in enumerate(self.shapes) if wanted(shape)}
        for position, kind in enumerate(self._kinds):
            if kind in kinds:
                yield self._cut(position, 0, 1 << 64)

    def in_order(self) -> Iterator[MappedRange]:
        """Yield every range by ascending input, as the tree was read."""
        for position in sorted(range(len(self._inputs)), key=self._inputs.__getitem__):
            yield self._cut(position, 0, 1 << 64)

    def offsets(self, wanted: Callable[[MappedRange], bool]) -> dict[int, Ranges]:
        """Return the outputs of ranges of a wanted kind, by how far the input is from the output."""
        kinds = {number for number, shape in enumerate(self.shapes) if wanted(shape)}
        by_offset: dict[int, Ranges] = {}
        for output, at, size, kind in zip(self._outputs, self._inputs, self._sizes, self._kinds, strict=True):
            if kind in kinds:
                by_offset.setdefault(at - output, []).append((output, output + size))
        return {offset: joined(ranges) for offset, ranges in by_offset.items()}


def _beyond(item: MappedRange) -> Problem:
    text = "there are more ranges than are looked at"
    return Problem("budget", item.start, Address(1 << 64), None, None, "", None, text)
