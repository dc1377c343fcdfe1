"""Whether translations agree with the target's own."""

from __future__ import annotations

from collections.abc import Iterator

from gdbhyp.analyses.selftest import Difference, SelftestReport
from gdbhyp.render.fields import indented
from gdbhyp.render.style import Style

_HEADERS = ("address", "gdbhyp", "target", "gdbhyp's fault")


def render(report: SelftestReport, style: Style) -> Iterator[str]:
    """Yield the lines of the verdict."""
    compared = report.asked - report.set_aside
    role = "good" if report.agreed == compared else "bad"
    verdict = style.paint(role, f"{report.agreed} of {compared}")
    where = f"the {report.regime.value} regime, as reads at EL{report.el}"
    yield f"{verdict} translations are the same as by {report.oracle} in {where}"
    yield style.paint(
        "dim", f"  {report.mapped} lead to memory, the others fault in both; --seed {report.seed}"
    )
    if report.set_aside:
        yield style.paint(
            "dim", f"  {report.set_aside} set aside: {report.oracle} does not look at the Access flag"
        )
    if report.differences:
        rows = [_row(difference) for difference in report.differences]
        yield from indented(style.table(rows, _HEADERS))
    yield from (style.paint("note", f"  not answered: {problem}") for problem in report.problems)


def _row(difference: Difference) -> list[str]:
    return [
        f"VA {difference.va:#x}",
        _result(difference.ours),
        _result(difference.theirs),
        difference.fault or "",
    ]


def _result(output: int | None) -> str:
    return "fault" if output is None else f"PA {output:#x}"
