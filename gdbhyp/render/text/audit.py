"""An audit: the findings by severity, then what was judged and what was not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from gdbhyp.analyses.audit.findings import SEVERITIES, Evidence, Extent, Finding
from gdbhyp.analyses.audit.run import AuditReport
from gdbhyp.render import sarif
from gdbhyp.render.sizes import size_text
from gdbhyp.render.style import Style

_ROLES = {"critical": "bad", "high": "bad", "medium": "note", "low": "note", "note": "dim"}
_SHOWN = 4


def render(report: AuditReport, style: Style) -> Iterator[str]:
    """Yield the audit, in SARIF where that was asked for."""
    if report.sarif:
        yield from sarif.lines(report)
        return
    cpus = f"{report.cpus} CPU{'s' if report.cpus > 1 else ''}"
    yield style.paint("heading", f"audit of {report.hypervisor}: {cpus}")
    yield f"the hypervisor's own memory: {size_text(report.own_size)} ({report.owns})"
    for tree in report.compared:
        yield f"compared: {tree.tree}, {size_text(tree.mapped)} in {tree.ranges} ranges, {tree.tables} tables"
    yield style.paint("heading", _summary(report))
    reasons = {rule.name: (rule.reason, rule.reference) for rule in report.rules}
    for finding in report.findings:
        yield ""
        yield from _finding(finding, reasons[finding.rule], report.verbose, style)
    if report.findings:
        yield ""
    yield from _rules(report, style)
    yield from (
        f"known: {item.finding.rule}: {item.finding.message} (reason: {item.reason})"
        for item in report.ignored
    )
    yield from (style.paint("bad", problem) for problem in report.problems)


def _summary(report: AuditReport) -> str:
    counts = Counter(finding.severity for finding in report.findings)
    words = ", ".join(f"{counts[severity]} {severity}" for severity in SEVERITIES if counts[severity])
    known = f"; {len(report.ignored)} known" if report.ignored else ""
    number = len(report.findings)
    return f"{number} finding{'' if number == 1 else 's'}{': ' + words if words else ''}{known}"


def _finding(finding: Finding, reason: tuple[str, str], verbose: bool, style: Style) -> Iterator[str]:
    severity = style.paint(_ROLES[finding.severity], finding.severity)
    yield f"{severity} {style.paint('name', finding.rule)}: {finding.message}"
    if finding.ranges:
        yield f"  {size_text(finding.size)}: {_ranges(finding, verbose)}"
    shown = finding.evidence if verbose else finding.evidence[:_SHOWN]
    yield from (f"  {_evidence(item, style)}" for item in shown)
    if len(finding.evidence) > len(shown):
        yield f"  and {len(finding.evidence) - len(shown)} more (-v lists them)"
    if finding.explanation:
        yield f"  explained: {finding.explanation}"
    if verbose:
        yield f"  why: {reason[0]}"
        yield f"  reference: {reason[1]}"


def _ranges(finding: Finding, verbose: bool) -> str:
    listed: tuple[Extent, ...] = finding.ranges if verbose else finding.ranges[:_SHOWN]
    words = ", ".join(f"PA {extent.start:#x} to {extent.end:#x}" for extent in listed)
    more = finding.range_count - len(listed)
    return words + (f" and {more} more ranges" if more else "")


def _evidence(item: Evidence, style: Style) -> str:
    if item.descriptor is None or item.descriptor_address is None or hex(item.descriptor) in item.text:
        return item.text
    where = f"{item.descriptor_space} {item.descriptor_address:#x}"
    return f"{item.text}; descriptor {item.descriptor:#x} at {style.paint('address', where)}"


def _rules(report: AuditReport, style: Style) -> Iterator[str]:
    clean = [rule.name for rule in report.rules if not rule.findings and not rule.not_judged]
    if clean:
        yield f"no finding: {', '.join(clean)}"
    for rule in report.rules:
        if rule.not_judged:
            yield style.paint("note", f"not judged: {rule.name}: {rule.not_judged}")
