"""An audit as SARIF 2.1.0 (OASIS, Static Analysis Results Interchange Format), as code scanning takes it.

The artifact is the dump, or what is live. A finding's place is a physical address in it; what was read is in related
locations with their text. A finding that is known is a suppressed result, with its reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from gdbhyp import __version__
from gdbhyp.analyses.audit.findings import Evidence, Finding
from gdbhyp.analyses.audit.run import AuditReport, Judged

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {"critical": "error", "high": "error", "medium": "warning", "low": "note", "note": "note"}
_SCORES = {"critical": "9.5", "high": "8.0", "medium": "5.0", "low": "2.0", "note": "0.1"}
"""What code scanning sorts by: a ``security-severity`` between 0 and 10."""


def lines(report: AuditReport) -> Iterator[str]:
    """Yield the lines of the document."""
    results = [_result(report, finding, None) for finding in report.findings]
    results += [_result(report, item.finding, item.reason) for item in report.ignored]
    driver = {
        "name": "gdbhyp",
        "version": __version__,
        "rules": [_rule(rule) for rule in report.rules],
    }
    notes = [*report.problems, *(f"{r.name}: {r.not_judged}" for r in report.rules if r.not_judged)]
    invocation = {
        "executionSuccessful": True,
        "toolExecutionNotifications": [{"level": "warning", "message": {"text": text}} for text in notes],
    }
    run = {
        "tool": {"driver": driver},
        "invocations": [invocation],
        "artifacts": [{"location": {"uri": _uri(report.origin)}}],
        "results": results,
    }
    yield from json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1).splitlines()


def _uri(origin: str) -> str:
    from urllib.parse import quote

    return quote(origin)


def _rule(rule: Judged) -> dict[str, Any]:
    return {
        "id": rule.name,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.reason},
        "help": {"text": rule.reference},
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
        "properties": {"security-severity": _SCORES[rule.severity], "tags": ["security", "isolation"]},
    }


def _result(report: AuditReport, finding: Finding, known: str | None) -> dict[str, Any]:
    text = finding.message + (f" ({finding.explanation})" if finding.explanation else "")
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "level": _LEVELS[finding.severity],
        "message": {"text": text},
        "locations": [_location(report, extent.start, extent.end - extent.start) for extent in finding.ranges]
        or [_location(report, None, None)],
        "relatedLocations": [_evidence(report, number, item) for number, item in enumerate(finding.evidence)],
        "partialFingerprints": {"gdbhyp/v1": _fingerprint(finding)},
        "properties": {"severity": finding.severity, "size": finding.size, "ranges": finding.range_count},
    }
    if known is not None:
        result["suppressions"] = [{"kind": "external", "status": "accepted", "justification": known}]
    return result


def _fingerprint(finding: Finding) -> str:
    """What makes a finding the same one in the next run, whose addresses may be others."""
    from hashlib import sha256

    parts = (finding.rule, *map(str, finding.vms), finding.message)
    return sha256("\0".join(parts).encode()).hexdigest()[:32]


def _location(report: AuditReport, address: int | None, length: int | None) -> dict[str, Any]:
    place: dict[str, Any] = {"artifactLocation": {"uri": _uri(report.origin), "index": 0}}
    if address is not None:
        place["address"] = {"absoluteAddress": address, "length": length, "kind": "physical"}
    return {"physicalLocation": place}


def _evidence(report: AuditReport, number: int, item: Evidence) -> dict[str, Any]:
    address = item.descriptor_address if item.descriptor_space == "PA" else None
    text = item.text
    if item.descriptor is not None:
        text += f"; descriptor {item.descriptor:#x}"
    return {
        "id": number,
        "message": {"text": text},
        **_location(report, address, 8 if address is not None else None),
    }
