"""The rows of a map, which are made and printed in a quick way that must say what the plain one says."""

from __future__ import annotations

import json
from dataclasses import fields, replace

from unit.pagetables import AF, CONTIGUOUS, EVERYTHING, MAIR, Format, SparseMemory, Tables, stage1_tcr

from gdbhyp.analyses.map import Filter, MapRow, Question, map_tables
from gdbhyp.analyses.walk import Roots
from gdbhyp.arch.regimes import Regime
from gdbhyp.engine.machine import Machine
from gdbhyp.engine.stop import Stop
from gdbhyp.render.json import encode, lines


def stop(**registers: int) -> Stop:
    """Scattered pages of several kinds, some of them mapped twice, and a block."""
    tables = Tables(SparseMemory(), Format(12), 39, 1)
    kinds = [AF, AF | 1 << 7, AF | 1 << 54, AF | 2 << 2, AF | CONTIGUOUS, 0]
    for page in range(0, 200, 3):
        tables.map(page << 12, (page * 7919 % 4096) << 12, 3, kinds[page % len(kinds)])
    for page in (300, 301, 302):
        tables.map(page << 12, 0x9000, 3, AF)
    tables.map(2 << 21, 8 << 21, 2, AF)
    known = EVERYTHING | {"SCTLR_EL1": 5, "TCR_EL1": stage1_tcr(Format(12), 39), "TTBR0_EL1": tables.ttbr()}
    known |= {"TTBR1_EL1": 0, "CPSR": 5, "HCR_EL2": 0, "VTTBR_EL2": 0, "VTCR_EL2": 0}
    return Stop(Machine(known | registers, tables.memory))


QUESTION = Question(regime=Regime.EL10, stages="1")


def test_lines_are_those_of_each_row_alone() -> None:
    rows = list(map_tables(stop(MAIR_EL1=MAIR), QUESTION).rows)
    assert len(rows) > 60
    assert [json.dumps(encode(row)) for row in rows] == list(lines(map_tables(stop(MAIR_EL1=MAIR), QUESTION)))


def test_rows_are_what_the_class_makes_of_their_fields() -> None:
    for row in map_tables(stop(MAIR_EL1=MAIR), QUESTION).rows:
        values = {f.name: getattr(row, f.name) for f in fields(MapRow) if f.init}
        assert MapRow(**values) == row
        assert hash(MapRow(**values)) == hash(row)
        assert replace(row, memory="other").memory == "other"


def test_a_changed_row_is_printed_as_it_is() -> None:
    first, *_ = map_tables(stop(MAIR_EL1=MAIR), QUESTION).rows
    report = map_tables(stop(MAIR_EL1=MAIR), QUESTION)
    changed = replace(report, rows=iter([first, replace(first, memory="other"), first]))
    assert [json.loads(line)["memory"] for line in lines(changed)] == [first.memory, "other", first.memory]


def test_types_without_mair() -> None:
    """With explicit roots and without MAIR_EL1, memory types are not known, whatever the index would select."""
    here = stop()
    registers = here.machine.registers
    roots = Roots(ttbr=registers.get("TTBR0_EL1"), tcr=registers.get("TCR_EL1"))
    report = map_tables(here, replace(QUESTION, roots=roots))
    assert {row.memory for row in report.rows} == {"unknown"}
    assert report.problems[0] == "MAIR_EL1 is not known, so memory types are not"


def test_filters() -> None:
    rows = list(map_tables(stop(MAIR_EL1=MAIR), QUESTION).rows)
    for wanted in (
        Filter(rights="w"),
        Filter(memory="device"),
        Filter(smallest=1 << 20),
        Filter("x", "normal"),
    ):
        question = replace(QUESTION, wanted=wanted)
        assert list(map_tables(stop(MAIR_EL1=MAIR), question).rows) == [
            row for row in rows if wanted.takes(row)
        ]
