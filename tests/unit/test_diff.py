"""Differences of maps and registers, against what a look at every page says."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from unit.machines import DATA, HYP, HYP_DATA, IPA, PAGE, S2_NORMAL, S2_READ_ONLY, VM_MEMORY, XN, Nvhe
from unit.pagetables import AF, EVERYTHING, Format, SparseMemory, Tables, stage2_vtcr
from unit.test_audit import write_flat

from gdbhyp.analyses.changes import Change, changes
from gdbhyp.analyses.diff import DiffReport, diff, diff_vms
from gdbhyp.analyses.map import Question
from gdbhyp.analyses.picture import drawn_again, keep, picture_of, read_map, registers_of
from gdbhyp.arch.regimes import Regime
from gdbhyp.cli.main import main
from gdbhyp.engine.machine import Machine
from gdbhyp.engine.map import map_stage
from gdbhyp.engine.mapped import MappedRange, Shape
from gdbhyp.engine.reverse import ReverseMap
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import BadInput, UsageError
from gdbhyp.render.output import text_lines
from gdbhyp.render.style import Style

RW2 = AF | 0b11 << 6 | 0b1111 << 2
RO2 = AF | 0b01 << 6 | 0b1111 << 2
Pages = dict[int, tuple[int, bool]]


def mapped(pages: Pages) -> list[MappedRange]:
    """Return the ranges of stage-2 tables with these pages: by input page, the output page and whether it is RW."""
    tables = Tables(SparseMemory(), Format(12), 39, 1)
    for page, (output, write) in pages.items():
        tables.map(page * PAGE, output * PAGE, 3, RW2 if write else RO2)
    registers = {"VTCR_EL2": stage2_vtcr(tables.form, 39, 1), "VTTBR_EL2": tables.ttbr()}
    found = map_stage(Machine(EVERYTHING | registers, tables.memory), Regime.EL10, 2)
    return [item for item in found if isinstance(item, MappedRange)]


def by_page(found: Iterable[Change]) -> dict[int, str]:
    return {page: c.kind for c in found for page in range(c.start // PAGE, c.end // PAGE)}


some_pages = st.dictionaries(st.integers(0, 40), st.tuples(st.integers(0, 30), st.booleans()), max_size=24)


@example({0: (6, False), 1: (7, False)}, {0: (7, False), 1: (7, False)})
@given(some_pages, some_pages)
def test_every_page_is_said_to_be_what_it_is(before: Pages, after: Pages) -> None:
    found = list(changes(mapped(before), mapped(after)))
    expected = {}
    for page in before.keys() | after.keys():
        one, other = before.get(page), after.get(page)
        if one is None or other is None:
            expected[page] = "added" if one is None else "removed"
        elif one != other:
            expected[page] = "moved" if one[0] != other[0] else "changed"
    assert by_page(found) == expected
    assert all(first.end <= second.start for first, second in pairwise(found))


def test_ranges_that_came_and_went_are_merged() -> None:
    before = {page: (page + 100, True) for page in range(8)}
    after = {page: (page + 100, page != 5) for page in range(2, 12)}
    found = list(changes(mapped(before), mapped(after)))
    assert [(c.kind, c.start // PAGE, c.end // PAGE, c.what) for c in found] == [
        ("removed", 0, 2, ()),
        ("changed", 5, 6, ("rights",)),
        ("added", 8, 12, ()),
    ]


def test_a_range_that_moved_is_one_change() -> None:
    before = {page: (page + 100, True) for page in range(8)}
    after = {page: (page + 200, True) for page in range(8)}
    (found,) = changes(mapped(before), mapped(after))
    assert (found.kind, found.start, found.end, found.what) == ("moved", 0, 8 * PAGE, ("pa",))
    assert found.before is not None
    assert found.after is not None
    assert (found.before.pa, found.after.pa) == (100 * PAGE, 200 * PAGE)


def test_pages_that_all_become_one_have_moved() -> None:
    before = {page: (page + 100, True) for page in range(512)}
    after = dict.fromkeys(range(512), (100, True))
    found = list(changes(mapped(before), mapped(after)))
    assert [(c.kind, c.start // PAGE, c.end // PAGE) for c in found] == [("moved", 1, 512)]


@pytest.mark.parametrize("seed", range(12))
def test_every_page_of_blocks_is_said_to_be_what_it_is(seed: int) -> None:
    """Blocks and pages that lead in a row, or all to one, against each other: page by page, what both sides say."""
    chance = random.Random(seed)
    before, after = blocks_and_pages(chance), blocks_and_pages(chance)
    kinds = by_page(changes(before, after))
    for page in range(512 * 4):
        one, other = output_of(before, page * PAGE), output_of(after, page * PAGE)
        if one is None or other is None:
            expected = None if one == other else "added" if one is None else "removed"
        elif one[0] != other[0]:
            expected = "moved"
        else:
            expected = None if one == other else "changed"
        assert kinds.get(page) == expected, page


def blocks_and_pages(chance: random.Random) -> list[MappedRange]:
    """Return the ranges of four 2 MiB of input: nothing, a block or its pages, to few outputs."""
    tables = Tables(SparseMemory(), Format(12), 39, 1)
    for block in range(4):
        kind, output = chance.choice("-bbppp"), chance.choice((0, 0, 1)) << 21
        if kind == "b":
            tables.map(block << 21, output, 2, RW2)
        elif kind == "p":
            output, step = output + chance.choice((0, 0, 3, 511)) * PAGE, chance.choice((0, 0, PAGE))
            for page in range(chance.randrange(3), chance.choice((40, 512))):
                tables.map((block << 21) + page * PAGE, output + page * step, 3, RW2)
    registers = {"VTCR_EL2": stage2_vtcr(tables.form, 39, 1), "VTTBR_EL2": tables.ttbr()}
    found = map_stage(Machine(EVERYTHING | registers, tables.memory), Regime.EL10, 2)
    return [item for item in found if isinstance(item, MappedRange)]


def output_of(ranges: list[MappedRange], address: int) -> tuple[int, Shape] | None:
    """Return where an address leads, and how; None if nowhere."""
    for found in ranges:
        if found.start <= address < found.end:
            offset = address - found.start
            return found.output + (offset % found.page_size if found.constant else offset), found.shape
    return None


def test_a_block_that_was_split_says_so() -> None:
    def tree(level: int) -> list[MappedRange]:
        tables = Tables(SparseMemory(), Format(12), 39, 1)
        for page in range(1 if level == 2 else 512):
            tables.map(page * PAGE, (1 << 30) + page * PAGE, level, RW2)
        registers = {"VTCR_EL2": stage2_vtcr(tables.form, 39, 1), "VTTBR_EL2": tables.ttbr()}
        found = map_stage(Machine(EVERYTHING | registers, tables.memory), Regime.EL10, 2)
        return [item for item in found if isinstance(item, MappedRange)]

    (change,) = changes(tree(2), tree(3))
    assert (change.kind, change.what) == ("changed", ("page_size",))


@given(some_pages)
def test_a_kept_map_is_the_map(pages: Pages) -> None:
    found = mapped(pages)
    assert list(ReverseMap(found).in_order()) == found


def stop_with(model: Nvhe) -> Stop:
    """The machine's first CPU, with what a target shows of its registers."""
    stop = model.stop()
    values = dict(stop.machine.registers)  # type: ignore[call-overload]
    return replace(stop, every_register=lambda: values)


def kept(model: Nvhe) -> tuple[Any, Any]:
    return keep(stop_with(model), Question(stages="2"), "before")


def test_a_map_that_is_kept_is_compared_with_now() -> None:
    model = Nvhe()
    before, report = kept(model)
    assert (report.map, report.ranges, report.problems) == ("EL1&0 stage 2", 1, ())
    model.vms[0].map(IPA, VM_MEMORY[0], 3, S2_READ_ONLY)
    model.cpus[0]["HCR_EL2"] ^= 1 << 19
    found = diff(before.picture, drawn_again(stop_with(model), before))
    (tree,) = found.trees
    assert (tree.changed, tree.added, tree.removed, tree.moved, tree.same) == (PAGE, 0, 0, 0, 15 * PAGE)
    (register,) = found.registers
    assert (register.name, [(f.name, f.msb, f.before, f.after) for f in register.fields]) == (
        "HCR_EL2",
        [("TSC", 19, 1, 0)],
    )
    text = "\n".join(text_lines(found, Style()))
    assert "EL1&0 stage 2: 4 KiB changed, 60 KiB alike" in text
    assert "CPU 0: HCR_EL2 0x807c0039 -> 0x80740039" in text
    assert "[19]  TSC  0x1 (traps SMC at EL1) -> 0x0" in text


def test_two_vms() -> None:
    model = Nvhe()
    model.vms[1].map(IPA + 0x10_0000, VM_MEMORY[1], 3, S2_NORMAL)
    report = diff_vms(model.stop(), 0, 1)
    (tree,) = report.trees
    assert (tree.moved, tree.added, tree.same) == (16 * PAGE, PAGE, 0)
    with pytest.raises(UsageError, match="the VMs that are: 0, 1"):
        diff_vms(model.stop(), 0, 2)


def test_counters_are_no_change() -> None:
    stop = Nvhe().stop()
    values = {"CNTPCT_EL0": 5, "HCR_EL2": 1, "cpsr": 5, "CNTV_TVAL_EL0": 7, "NO_SUCH_EL1": 9}
    assert registers_of(replace(stop, every_register=lambda: values)) == {"HCR_EL2": 1}


def whole(before: Nvhe, after: Nvhe) -> DiffReport:
    return diff(picture_of(stop_with(before)), picture_of(stop_with(after)))


def test_whole_machines() -> None:
    after = Nvhe()
    after.hyp.map(HYP + DATA, DATA, 3, HYP_DATA & ~XN)
    after.cpus = [after.guest_cpu(0), after.guest_cpu(1, vmid=9), {}]
    report = whole(Nvhe(), after)
    assert [(t.tree, t.changed) for t in report.trees if t.changes] == [("hypervisor stage 1", PAGE)]
    assert (report.only_before, report.only_after) == (("VM 1 stage 2",), ("VM 1 stage 2",))


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    after = Nvhe()
    after.vms[0].map(IPA + PAGE, VM_MEMORY[1], 3, S2_NORMAL)
    for name, model in (("a", Nvhe()), ("b", after)):
        (tmp_path / name).mkdir()
        arguments = write_flat(model, tmp_path / name)
    dumps = [f"{tmp_path / name / 'ram'}@{arguments[0].rpartition('@')[2]}" for name in "ab"]
    assert main(["diff", *dumps, *arguments[1:], "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    changed = {tree["tree"]: tree for tree in answer["trees"] if tree["changes"]}
    assert changed.keys() == {"VM 0 stage 2"}
    (change,) = changed["VM 0 stage 2"]["changes"]
    assert (change["kind"], change["start"], change["before"]["pa"], change["after"]["pa"]) == (
        "moved",
        hex(IPA + PAGE),
        hex(VM_MEMORY[0] + PAGE),
        hex(VM_MEMORY[1]),
    )
    maps: list[str] = []
    for dump in dumps:
        maps.append(str(tmp_path / f"map{len(maps)}"))
        assert main(["map", dump, *arguments[1:], "--stage2", "--json", "--output", maps[-1]]) == 0
    assert main(["diff", *maps]) == 0
    assert "the map: 4 KiB moved, 60 KiB alike" in capsys.readouterr().out
    assert main(["diff", dumps[0]]) == 2
    assert main(["map", dumps[0], *arguments[1:], "--stage2", "--save", "x"]) == 2


@pytest.mark.parametrize(
    "line", ["{", "{}", '{"start": 5}', "[]", '{"start": "0x0", "end": "0x0", "pa": "0x0", "exec": "never"}']
)
def test_a_file_that_is_no_map_is_refused(line: str, tmp_path: Path) -> None:
    path = tmp_path / "map"
    path.write_text(line + "\n")
    with pytest.raises(BadInput, match="line 1"):
        read_map(str(path))
