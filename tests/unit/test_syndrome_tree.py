"""Whole decodes of real values: the summary, the instruction, and every field of each."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from gdbhyp.arch.syndrome import decode_esr
from gdbhyp.arch.syndrome_tables import CLASSES


class Case(NamedTuple):
    """A block of data/syndromes.txt."""

    esr: int
    el: int
    summary: str
    instruction: str | None
    fields: list[tuple[int, int, str, int]]


def read_cases() -> list[Case]:
    text = (Path(__file__).parent / "data" / "syndromes.txt").read_text(encoding="utf-8")
    cases = []
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line and not line.startswith("#")]
        if not lines:
            continue
        _, esr, level, _ = lines[0].split(None, 3)
        instruction = next((line[2:] for line in lines if line.startswith("> ")), None)
        fields = []
        for line in lines[3 if instruction else 2 :]:
            bits, name = line.split(None, 1)
            name, value = name.rsplit(None, 1)
            msb, _, lsb = bits.partition(":")
            fields.append((int(msb), int(lsb or msb), name, int(value, 0)))
        cases.append(Case(int(esr, 0), int(level[2:]), lines[1], instruction, fields))
    return cases


CASES = read_cases()


@pytest.mark.parametrize("case", CASES, ids=[f"{case.esr:#x}" for case in CASES])
def test_tree(case: Case) -> None:
    syndrome = decode_esr(case.esr, el=case.el)
    assert [(each.msb, each.lsb, each.name, each.value) for each in syndrome.fields] == case.fields
    assert syndrome.summary == case.summary
    assert syndrome.instruction == case.instruction


def test_every_class_has_a_case() -> None:
    assert {case.esr >> 26 & 0x3F for case in CASES} >= set(CLASSES)
