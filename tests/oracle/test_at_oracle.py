"""gdbhyp's engine against QEMU's own AT instructions, over random structured page tables.

Each CPU model runs cases of a fixed seed, and as many of a fresh one; seeds and counts are in the run's summary (with
``-v`` also how often each outcome was reached). ``GDBHYP_ORACLE_CASES`` sets how many cases each QEMU gets of each
seed over all models (20,000), ``GDBHYP_ORACLE_SEED`` the fresh seed, and ``GDBHYP_QEMU`` other QEMU binaries.
``python -m tests.oracle --help`` runs one model.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Set

import pytest

from gdbhyp.engine.at import run_case
from gdbhyp.engine.machine import Reader

from . import compare as comparison
from .compare import Report, compare
from .conftest import Start
from .known_differences import KNOWN, entries

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(0)]

CASES = int(os.environ.get("GDBHYP_ORACLE_CASES", "20000"))
FIXED_SEED = 20_240_601
FRESH_SEED = int(os.environ.get("GDBHYP_ORACLE_SEED") or secrets.randbits(32))

SHARES = {
    "max": 0.4,
    "max,lpa2=off": 0.12,
    "cortex-a57": 0.12,
    "neoverse-n1": 0.12,
    "a64fx": 0.12,
    "cortex-a76": 0.12,
}
"""Which part of the cases a CPU model gets: 52 bits with and without LPA2, 44 bits without VHE, 48, 48 and 40 bits."""

MOST_KNOWN = {7: 0.30, 10: 0.08}
"""The largest share of cases that known differences may explain, by QEMU's major version; else the smallest."""

MUST_REACH: Set[tuple[str, str]] = frozenset(
    (kind, stage)
    for kind in ("address size", "translation", "access flag", "permission")
    for stage in ("", " stage 2 on a walk", " stage 2")
) | {("success", ""), ("external abort", ""), ("external abort", " stage 2 on a walk")}


@pytest.mark.parametrize("model", SHARES)
@pytest.mark.parametrize("seed", [pytest.param(FIXED_SEED, id="fixed"), pytest.param(FRESH_SEED, id="fresh")])
def test_agreement(qemu: str, start: Start, model: str, seed: int, reports: list[Report]) -> None:
    report = compare(start(qemu, model), seed, round(CASES * SHARES[model]))
    reports.append(report)
    print("\n".join(report.lines()))
    assert not report.unexplained, explanation(report)
    declined = report.bins["declined"]
    assert declined <= report.cases / 1000, (
        f"{declined} cases are not modelled: {report.declined.most_common(3)}"
    )
    known = sum(count for name, count in report.bins.items() if name.startswith(("defect", "choice")))
    assert known <= report.cases * MOST_KNOWN.get(report.version[0], min(MOST_KNOWN.values()))


def test_reach(qemu: str, start: Start) -> None:
    """The generator reaches every kind of fault at every level, in every regime and granule."""
    report = compare(start(qemu, "max"), FIXED_SEED, 8000)
    outcomes = report.outcomes
    deadly = {("permission", " stage 2")} if report.version[:2] == (10, 0) else set()
    assert {(o.kind, o.stage) for o in outcomes} >= MUST_REACH - deadly
    for kind in ("address size", "translation", "access flag", "permission"):
        levels = {o.level for o in outcomes if o.kind == kind and not o.stage}
        assert levels >= {0, 1, 2, 3}, kind
    assert {-1, 0, 1, 2, 3} <= {o.level for o in outcomes if o.kind == "external abort"}
    assert -1 in {o.level for o in outcomes if o.kind == "translation"}
    regimes = {"EL1&0", "EL1&0 stage 2", "EL2", "EL2&0", "EL2&0 host"}
    assert {(o.regime, o.granule) for o in outcomes if o.kind == "success"} >= {
        (regime, granule) for regime in regimes for granule in ("4K", "16K", "64K")
    }
    assert {o.regime for o in outcomes if o.kind == "success"} >= {regime + " S" for regime in regimes}
    starts = {(s.granule, s.level) for s in report.starts}
    assert starts >= {(g, n) for g, first in ((12, 0), (14, 1), (16, 1)) for n in range(first, 4)}
    if report.version >= (8,):  # QEMU 7.2 refuses the levels that exist only with DS
        assert starts >= {(12, -1), (14, 0)}
    assert {s.tables for s in report.starts} == {1, 2, 4, 8, 16}


def test_seed_determines_everything(qemu: str, start: Start) -> None:
    machine = start(qemu, "cortex-a76")
    first, second = (compare(machine, 5, 300) for _ in range(2))
    assert first.bins == second.bins
    assert first.outcomes == second.outcomes
    assert compare(machine, 6, 300).outcomes != first.outcomes


MUTATIONS: dict[str, tuple[int, int]] = {
    "PA": (0, 1 << 20),
    "NS": (0, 1 << 9),
    "SH": (0, 1 << 7),
    "ATTR": (0, 1 << 58),
    "level": (1, 1 << 1),
    "kind": (1, 1 << 3),
    "PTW": (1, 1 << 8),
    "S": (1, 1 << 9),
}
"""PAR_EL1.F of the answers to change, and the bit of them to flip."""


def test_notices_a_wrong_engine(qemu: str, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The known differences do not explain away an engine that gets one thing wrong."""
    machine = start(qemu, "neoverse-n1")
    right = compare(machine, FIXED_SEED, 800)

    for name, (fault, flip) in MUTATIONS.items():

        def wrong(case: object, memory: Reader, fault: int = fault, flip: int = flip) -> dict[str, object]:
            answer = run_case(case, memory)
            par = int(str(answer.get("par", "0")), 16)
            return {**answer, "par": hex(par ^ flip)} if par & 1 == fault else answer

        monkeypatch.setattr(comparison, "run_case", wrong)
        report = compare(machine, FIXED_SEED, 800)
        changed = right.bins["agree"] - report.bins["agree"]
        assert changed > 50, name
        assert len(report.unexplained) > 0.8 * changed, f"{name}: {report.bins}"


def test_known_differences_are_told_apart() -> None:
    names = [entry.name for entry in KNOWN]
    assert len(names) == len(set(names))
    assert all((entry.as_if is None) != (entry.covers is None) for entry in KNOWN)
    assert set(entries((10, 0, 2))) < set(KNOWN)


def explanation(report: Report) -> str:
    """Say how to repeat the first unexplained differences."""
    lines = [f"{len(report.unexplained)} unexplained differences with {report.title}, seed {report.seed}"]
    for difference in report.unexplained[:5]:
        regs = {name: value for name, value in difference.case["regs"].items() if value != "0x0"}
        lines.append(f"QEMU {difference.par:#x} exception={difference.exception}, ours {difference.ours}")
        lines.append(f"  {difference.case['op']} {difference.case['va']} {difference.case['pstate']} {regs}")
    return "\n".join(lines)
