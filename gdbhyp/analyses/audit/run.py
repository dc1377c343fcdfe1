"""The audit: which rules hold on a machine, which do not, and which could not be judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from gdbhyp.analyses.audit import attributes, descriptors, errata, hypervisor, isolation, registers, tables
from gdbhyp.analyses.audit.findings import SEVERITIES, Finding, Rule, Severity
from gdbhyp.analyses.audit.ignore import Ignored, Known
from gdbhyp.analyses.audit.world import World
from gdbhyp.analyses.reach import reach_of
from gdbhyp.engine.ranges import total
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import GdbhypError, UsageError

RULES: tuple[Rule, ...] = (
    *isolation.RULES,
    *hypervisor.RULES,
    *attributes.RULES,
    *descriptors.RULES,
    *tables.RULES,
    *registers.RULES,
    *errata.RULES,
)


@dataclass(frozen=True)
class Described:
    """A rule in words; ``severity`` is that of the worst it finds."""

    name: str
    severity: Severity
    title: str
    reason: str
    reference: str


@dataclass(frozen=True)
class Judged(Described):
    """A rule and how it was judged: ``findings`` counts, ``not_judged`` says why it could not be, "" where it was."""

    findings: int
    not_judged: str


@dataclass(frozen=True)
class Compared:
    """A tree of tables that was compared: how much it maps, and how many tables it has."""

    tree: str
    who: str
    vm: int | None
    ranges: int
    mapped: int
    tables: int


@dataclass(frozen=True)
class AuditReport:
    """Everything that the rules found on a machine, the worst first.

    ``ignored`` are findings that an ignore file gives a reason for. ``compared`` are the trees that were looked at;
    ``owns`` says what counts as the hypervisor's own memory, ``own_size`` how many bytes that is. ``exit_status`` is
    for scripts: 1 if a finding is at least as severe as they asked for.
    """

    kind: ClassVar[str] = "audit"
    csv_rows: ClassVar[str] = "findings"

    origin: str
    hypervisor: str
    cpus: int
    owns: str
    own_size: int
    compared: tuple[Compared, ...]
    rules: tuple[Judged, ...]
    findings: tuple[Finding, ...]
    ignored: tuple[Ignored, ...]
    problems: tuple[str, ...]
    verbose: bool = field(default=False, metadata={"json": False})
    sarif: bool = field(default=False, metadata={"json": False})
    exit_status: int = field(default=0, metadata={"json": False})


@dataclass(frozen=True)
class RulesReport:
    """The rules that there are."""

    kind: ClassVar[str] = "audit_rules"
    csv_rows: ClassVar[str] = "rules"

    rules: tuple[Described, ...]


def rules_report() -> RulesReport:
    """Return all rules, with their reasons and references."""
    return RulesReport(tuple(Described(r.name, r.severity, r.title, r.reason, r.reference) for r in RULES))


def audit(
    stop: Stop,
    *,
    rules: Sequence[str] = (),
    known: Sequence[Known] = (),
    fail_on: Severity | None = None,
    verbose: bool = False,
) -> AuditReport:
    """Judge the machine that ``stop`` is a CPU of; ``rules`` are names of rules, none for all.

    :raises UsageError: if there is no such rule.
    """
    chosen = _chosen(rules)
    world = World(stop, reach_of(stop))
    problems = list(world.reach.problems)
    judged, found = [], []
    for rule in chosen:
        why = rule.needs(world)
        findings: list[Finding] = []
        if not why:
            findings, why = _judge(rule, world)
            found += findings
        judged.append(
            Judged(rule.name, rule.severity, rule.title, rule.reason, rule.reference, len(findings), why)
        )
    left, ignored, unused = _split(found, known)
    problems += [f"line {item.line} of the ignore file matches nothing: {item.text}" for item in unused]
    left.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return AuditReport(
        origin=stop.origin,
        hypervisor=world.hypervisor,
        cpus=len(world.cpus),
        owns=world.owns(),
        own_size=total(world.own),
        compared=_compared(world),
        rules=tuple(judged),
        findings=tuple(left),
        ignored=tuple(ignored),
        problems=tuple(problems),
        verbose=verbose,
        exit_status=int(_fails(left, fail_on)),
    )


def _chosen(names: Sequence[str]) -> list[Rule]:
    known = {rule.name: rule for rule in RULES}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(f"there is no rule '{unknown[0]}'; the rules are {', '.join(known)}")
    return [known[name] for name in names] if names else list(RULES)


def _judge(rule: Rule, world: World) -> tuple[list[Finding], str]:
    """Return what a rule finds, and "" or why it could not be judged to the end."""
    found: list[Finding] = []
    try:
        found.extend(rule.check(world))
    except GdbhypError as error:
        return found, f"not judged to the end: {error}"
    return found, ""


def _split(
    found: Sequence[Finding], known: Sequence[Known]
) -> tuple[list[Finding], list[Ignored], list[Known]]:
    """Part findings into those that stay and those that are known; and return the lines that match none."""
    left, ignored = [], []
    used = set()
    for finding in found:
        match = next((item for item in known if item.matches(finding)), None)
        if match is None:
            left.append(finding)
        else:
            used.add(match)
            ignored.append(Ignored(replace(finding), match.reason))
    return left, ignored, [item for item in known if item not in used]


def _fails(findings: Sequence[Finding], fail_on: Severity | None) -> bool:
    if fail_on is None:
        return False
    limit = SEVERITIES.index(fail_on)
    return any(SEVERITIES.index(finding.severity) <= limit for finding in findings)


def _compared(world: World) -> tuple[Compared, ...]:
    return tuple(
        Compared(
            each.tree.label,
            each.tree.who,
            each.tree.vm,
            len(each.map),
            total(each.map.covered(lambda kind: bool(kind.page_size))),
            len(each.census.tables),
        )
        for each in world.reach.indexed
    )
