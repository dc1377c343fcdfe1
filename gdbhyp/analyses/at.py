"""AT instructions: for a stopped CPU, or for a file of cases."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from gdbhyp.analyses.walk import WalkReport, assumed_features, machine_for, report_of
from gdbhyp.arch.regimes import Regime
from gdbhyp.arch.registers import RegisterField, describe
from gdbhyp.arch.spaces import VA, Word
from gdbhyp.arch.worlds import Hcr
from gdbhyp.engine.at import address_translate, run_case
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import BadInput
from gdbhyp.targets.flat import FlatMemory, open_image


@dataclass(frozen=True)
class AtReport:
    """What the instruction would leave in PAR_EL1, by field, and the translation behind it.

    ``exception`` is True where the processor would take an External abort instead of writing PAR_EL1.
    """

    kind: ClassVar[str] = "at"

    op: str
    va: VA
    par: Word
    exception: bool
    fields: tuple[RegisterField, ...]
    walk: WalkReport


def of_stop(stop: Stop, op: str, va: int) -> AtReport:
    """Answer for the CPU's registers and memory, as executed at EL2.

    :raises RegisterUnavailable: if the target lacks a register that the walk starts from.
    """
    machine = machine_for(stop.machine, _regime(stop, op), "both" if op.startswith("S12") else "1")
    result = address_translate(machine, op, va, from_el=2)
    fields = describe("PAR_EL1", result.par).fields
    walk = replace(
        report_of(result.translation), assumed=assumed_features(machine, result.translation.regime)
    )
    return AtReport(op, VA(va), Word(result.par), result.exception, fields, walk)


def _regime(stop: Stop, op: str) -> Regime:
    hcr = Hcr(stop.register("HCR_EL2"))
    if "E2" in op:
        return Regime.EL20 if hcr.e2h else Regime.EL2
    return Regime.EL20 if hcr.el2_is_host and not op.startswith("S12") else Regime.EL10


@dataclass(frozen=True)
class AtLines:
    """Answers to a file of cases; each row is a line of JSON already."""

    kind: ClassVar[str] = "at_lines"
    raw: ClassVar[bool] = True

    rows: Iterator[str]


def of_file(cases: str, images: Sequence[str]) -> AtLines:
    """Answer a file of cases, a line each ("-" is standard input), over images ``FILE@ADDRESS``.

    :raises BadInput: if the file or an image cannot be read; a bad case is an error in its own line.
    """
    memory = FlatMemory([open_image(image) for image in images])
    return AtLines(_answers(_lines(cases), memory))


def _lines(path: str) -> Iterator[str]:
    if path == "-":
        yield from sys.stdin
        return
    try:
        with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
            yield from file
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error


def _answers(lines: Iterable[str], memory: FlatMemory) -> Iterator[str]:
    for line in lines:
        if line.strip():
            yield json.dumps(_answer(line, memory))


def _answer(line: str, memory: FlatMemory) -> dict[str, object]:
    try:
        case = json.loads(line)
    except (ValueError, RecursionError) as error:
        return {"error": f"not JSON: {error}"}
    return run_case(case, memory)
