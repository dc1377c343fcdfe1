"""Put the same cases to QEMU and to gdbhyp's engine, and sort the answers.

Every case ends in one of these bins:

* ``agree``: the same PAR_EL1, or the same External abort;
* a name of ``known_differences``: QEMU's own defect, or a choice that the architecture leaves open;
* ``unexplained``: the only bin that fails a test;
* ``declined``: the engine said that it does not model the case;
* ``QEMU dies``: QEMU ended on an assertion, or is known to and was not asked;
* ``strayed``: the walk read below the pool, where the run itself writes;
* ``disturbed``: QEMU gave our answer when the case ran again without its neighbours.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from random import Random
from typing import NamedTuple

from gdbhyp.engine.at import run_case
from gdbhyp.errors import MemoryUnavailable

from .generate import Features, Generator
from .known_differences import Known, entries, kills
from .machine import MAX_CASES, POOL, RAM_SIZE, Answer, Case, Machine
from .quirks import Difference, Ours, Retry, stage2_layout

BATCH = 20_000
MOST_CHANGES = 8

KINDS = {
    **{code: ("address size", code) for code in range(4)},
    **{code: ("translation", code - 4) for code in range(4, 8)},
    **{code: ("access flag", code - 8) for code in range(8, 12)},
    **{code: ("permission", code - 12) for code in range(12, 16)},
    **{code: ("external abort", code - 20) for code in range(19, 24)},
    0x29: ("address size", -1),
    0x2B: ("translation", -1),
}
"""FST to kind and level (DDI 0487, PAR_EL1)."""

GRANULE_0 = {0: "4K", 1: "64K", 2: "16K", 3: "reserved"}
GRANULE_1 = {0: "reserved", 1: "16K", 2: "4K", 3: "64K"}


class Outcome(NamedTuple):
    """What a histogram counts."""

    regime: str
    kind: str
    stage: str
    level: int
    granule: str

    def __str__(self) -> str:
        level = "" if self.kind == "success" else f" level {self.level}"
        return f"{self.regime:<14} {self.granule:<8} {self.kind}{level}{self.stage}"


class Start(NamedTuple):
    """Where a stage 2 that led to an address starts: log2 of its granule, its first level, how many tables."""

    granule: int
    level: int
    tables: int


class Image:
    """The machine's physical memory as the engine reads it; remembers what was read, and if below the pool."""

    def __init__(self, memory: bytearray) -> None:
        self.memory = memory
        self.patches: dict[int, bytes] = {}
        self.strayed = False
        self.reads: list[int] = []

    def read(self, address: int, size: int, /) -> bytes:
        if address + size > RAM_SIZE:
            raise MemoryUnavailable("PA", address, size, "no memory there")
        self.reads.append(address)
        if address < POOL:
            self.strayed = True
        if address in self.patches:
            return self.patches[address]
        return bytes(self.memory[address : address + size])


@dataclass
class Report:
    """What came of a run."""

    version: tuple[int, ...]
    model: str
    seed: int
    bins: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    starts: Counter[Start] = field(default_factory=Counter)
    unexplained: list[Difference] = field(default_factory=list)
    declined: Counter[str] = field(default_factory=Counter)
    examples: dict[str, Difference] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def title(self) -> str:
        return f"QEMU {'.'.join(map(str, self.version))} -cpu {self.model}"

    @property
    def cases(self) -> int:
        return self.bins.total()

    def lines(self, histogram: bool = True) -> Iterator[str]:
        speed = ", ".join(
            f"{who} {self.cases / spent:,.0f}/s" for who, spent in self.seconds.items() if spent
        )
        yield f"{self.title}, seed {self.seed}: {self.cases:,} cases ({speed})"
        for name, count in self.bins.most_common():
            yield f"  {count:8,} {100 * count / self.cases:7.3f} %  {name}"
        for why, count in self.declined.most_common(5):
            yield f"  {count:8,} declined: {why}"
        if histogram:
            yield from (f"    {count:8,}  {outcome}" for outcome, count in sorted(self.outcomes.items()))


def summary(reports: Sequence[Report], histogram: bool) -> Iterator[str]:
    """Say for each QEMU version what its models came to, and add up the bins."""
    for version in sorted({report.version for report in reports}):
        total = Report(version, "all models", reports[0].seed)
        for report in reports:
            if report.version == version:
                for name, count in report.bins.items():
                    total.bins["several of these together" if " + " in name else name] += count
                total.outcomes += report.outcomes
                total.declined += report.declined
                agree = report.bins["agree"] / max(report.cases, 1)
                yield f"{report.title}, seed {report.seed}: {report.cases:,} cases, {agree:.2%} identical"
        yield from list(total.lines(histogram))[1:]


def outcome(case: Case, regs: dict[str, int], par: int, exception: bool) -> Outcome:
    """Classify an answer; ``par`` is PAR_EL1 or, for an exception, one made of its syndrome."""
    hcr, upper = regs.get("HCR_EL2", 0), bool(int(case["va"], 16) >> 55 & 1)
    e2h, tge = bool(hcr >> 34 & 1 and regs.get("ID_AA64MMFR1_EL1", 0) >> 8 & 15), bool(hcr >> 27 & 1)
    stage2 = bool(hcr & (1 | 1 << 12))
    if "E2" in case["op"]:
        regime = "EL2&0" if e2h else "EL2"
    elif e2h and tge and case["op"].startswith("S1E"):
        regime = "EL2&0 host"
    else:
        regime = "EL1&0 stage 2" if stage2 else "EL1&0"
    if not regs.get("SCR_EL3", 0) & 1:
        regime += " S"
    tcr = regs.get("TCR_EL1" if regime.startswith("EL1") else "TCR_EL2", 0)
    two_halves = regime != "EL2"
    granule = GRANULE_1[tcr >> 30 & 3] if upper and two_halves else GRANULE_0[tcr >> 14 & 3]
    if not par & 1:
        return Outcome(regime, "success", "", 0, granule)
    kind, level = KINDS.get(par >> 1 & 0x3F, (f"FST {par >> 1 & 0x3F:#x}", 0))
    stage = (" stage 2" if par >> 9 & 1 or (exception and par >> 8 & 1) else "") + (
        " on a walk" if par >> 8 & 1 else ""
    )
    if stage:
        granule = GRANULE_0[regs.get("VTCR_EL2", 0) >> 14 & 3]
    return Outcome(regime, kind, stage, level, granule)


def stage2_start(case: Case, regs: dict[str, int], par: int) -> Start | None:
    """Return how stage 2 starts, if it is Non-secure and its output is what ``par`` holds."""
    if par & 1 or not case["op"].startswith("S12") or not regs["HCR_EL2"] & 1 or not regs["SCR_EL3"] & 1:
        return None
    form = stage2_layout(regs, "VTCR_EL2", "VTTBR_EL2")
    return Start(form.granule, 3 - form.levels, 1 << max(form.root_bits - form.granule, 0))


def from_exception(esr: int) -> int:
    """Return as a PAR_EL1 what an exception's syndrome has of it: FST and PTW."""
    return 1 | (esr & 0x3F) << 1 | (esr >> 7 & 1) << 8


def same(ours: Ours, par: int, exception: bool) -> bool:
    """Whether the engine's answer is QEMU's; ``par`` of an exception has only F, FST and PTW."""
    if exception:
        return ours.exception and ours.par & 0x17F == par
    return not (ours.exception or ours.error) and ours.par == par


def ask_engine(case: Case, image: Image) -> Ours:
    image.strayed, image.reads = False, []
    answer = run_case(case, image)
    if "error" in answer:
        return Ours(0, False, str(answer["error"]), image.strayed, tuple(image.reads))
    par = int(str(answer["par"]), 16)
    return Ours(par, bool(answer.get("exception")), "", image.strayed, tuple(image.reads))


class Explainer:
    """Looks for entries of ``known_differences`` that make the engine give QEMU's answer."""

    def __init__(self, image: Image, version: tuple[int, ...]) -> None:
        self.image = image
        self.known = entries(version)

    def explain(self, difference: Difference) -> str:
        """Return the names of the entries that explain ``difference`` together, or nothing."""
        for entry in self.known:
            if entry.covers and entry.covers(self._retry(difference)):
                return entry.name
        late = [entry for entry in self.known if entry.late]
        actions = self._actions(difference)
        for count in range(len(actions) + 1):
            for chosen in combinations(actions, count):
                name = self._explained(difference, list(chosen)) or self._explained(
                    difference, [*chosen, *late]
                )
                if name:
                    return name
        return ""

    def _actions(self, difference: Difference) -> list[Known]:
        """Return the entries that can change the case, also those that can only after another has."""
        retry = self._retry(difference)
        able: list[Known] = []
        waiting = [entry for entry in self.known if entry.as_if and not entry.late]
        while True:
            now = [entry for entry in waiting if entry.as_if and entry.as_if(retry)]
            if not now:
                return able
            able += now
            waiting = [entry for entry in waiting if entry not in now]

    def _explained(self, difference: Difference, among: list[Known]) -> str:
        retry = self._retry(difference)
        used: list[Known] = []
        for _ in range(MOST_CHANGES):
            changed = [entry for entry in among if entry.as_if and entry.as_if(retry)]
            if not changed:
                return ""
            used += [entry for entry in changed if entry not in used]
            retry.ours = self._solve(retry)
            if same(retry.ours, difference.par, difference.exception):
                return " + ".join(entry.name for entry in used)
            covering = next((entry for entry in self.known if entry.covers and entry.covers(retry)), None)
            if covering:
                return " + ".join(entry.name for entry in (*used, covering))
        return ""

    def _retry(self, difference: Difference) -> Retry:
        return Retry(difference, difference.op, dict(difference.regs), {}, difference.ours, self.image.memory)

    def _solve(self, retry: Retry) -> Ours:
        regs = {name: hex(value) for name, value in retry.regs.items()}
        case = {**retry.difference.case, "op": retry.op, "regs": regs}
        self.image.patches = retry.patches
        try:
            return ask_engine(case, self.image)
        finally:
            self.image.patches = {}


def compare(machine: Machine, seed: int, count: int) -> Report:
    """Run ``count`` cases that follow from ``seed``."""
    report = Report(machine.version, machine.model, seed)
    identity = {name: hex(value) for name, value in machine.id_registers.items()}
    features = Features(machine.id_registers)
    for number, first in enumerate(range(0, count, BATCH)):
        started = time.perf_counter()
        memory = bytearray(RAM_SIZE)
        generator = Generator(features, memory, Random(f"{seed} {number}"))
        cases = [generator.case() for _ in range(min(BATCH, count - first, MAX_CASES))]
        for case in cases:
            case["regs"].update(identity)
        report.seconds["generator"] += time.perf_counter() - started
        _compare_batch(machine, memory, cases, report)
    return report


def _compare_batch(machine: Machine, memory: bytearray, cases: list[Case], report: Report) -> None:
    started = time.perf_counter()
    image = Image(memory)
    ours = [ask_engine(case, image) for case in cases]
    report.seconds["engine"] += time.perf_counter() - started

    started = time.perf_counter()
    askable = [n for n, case in enumerate(cases) if not kills(machine.version, case, ours[n].par)]
    answers = dict(zip(askable, machine.ask(memory, [cases[n] for n in askable]), strict=True))
    report.seconds["QEMU"] += time.perf_counter() - started

    judge = Judge(machine, image, cases, ours)
    verdicts = {n: judge.verdict(n, answers.get(n, NOT_ASKED)) for n in range(len(cases))}
    _settle(machine, judge, verdicts)
    for n, verdict in verdicts.items():
        report.bins[verdict.name] += 1
        if verdict.outcome:
            report.outcomes[verdict.outcome] += 1
        if verdict.start:
            report.starts[verdict.start] += 1
        if verdict.name == "unexplained" and verdict.difference:
            report.unexplained.append(verdict.difference)
        elif verdict.difference:
            report.examples.setdefault(verdict.name, verdict.difference)
        elif verdict.name == "declined":
            report.declined[ours[n].error] += 1


def _settle(machine: Machine, judge: Judge, verdicts: dict[int, Verdict]) -> None:
    """Ask QEMU again about what nothing explains, without the cases that ran before and may have written AF."""
    numbers = [n for n, verdict in verdicts.items() if verdict.name == "unexplained"]
    if not numbers:
        return
    again = machine.ask(judge.image.memory, [judge.cases[n] for n in numbers])
    for n, answer in zip(numbers, again, strict=True):
        verdict = judge.verdict(n, answer)
        verdicts[n] = verdict._replace(name="disturbed") if verdict.name == "agree" else verdict


NOT_ASKED = Answer(died="known to die")


class Verdict(NamedTuple):
    """The bin a case falls in, what QEMU did, and the difference if there is one."""

    name: str
    outcome: Outcome | None = None
    difference: Difference | None = None
    start: Start | None = None


class Judge:
    """Compares QEMU's answers to the cases of a batch with the engine's."""

    def __init__(self, machine: Machine, image: Image, cases: list[Case], ours: list[Ours]) -> None:
        self.machine = machine
        self.image = image
        self.cases = cases
        self.ours = ours
        self.explainer = Explainer(image, machine.version)

    def verdict(self, n: int, answer: Answer) -> Verdict:
        if answer.died:
            return Verdict("QEMU dies")
        case, mine, exception = self.cases[n], self.ours[n], bool(answer.esr)
        regs = {name: int(value, 16) for name, value in case["regs"].items()}
        par = from_exception(answer.esr) if exception else answer.par
        reached = outcome(case, regs, par, exception)
        if mine.strayed:
            return Verdict("strayed", reached)
        if mine.error:
            return Verdict("declined", reached)
        if same(mine, par, exception):
            return Verdict("agree", reached, start=stage2_start(case, regs, par))
        difference = Difference(case, regs, self.machine.version, self.machine.model, par, exception, mine)
        return Verdict(self.explainer.explain(difference) or "unexplained", reached, difference)
