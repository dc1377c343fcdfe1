"""The rules of the audit: what each looks for, why, and where it is written."""

from __future__ import annotations

from collections.abc import Iterator

from gdbhyp.analyses.audit.run import RulesReport
from gdbhyp.render.style import Style


def render(report: RulesReport, style: Style) -> Iterator[str]:
    """Yield the rules."""
    for rule in report.rules:
        yield f"{style.paint('name', rule.name)} ({rule.severity}): {rule.title}"
        yield f"  {rule.reason}"
        yield f"  {rule.reference}"
