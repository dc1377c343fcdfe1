"""Which symbols were found, where they stand, and where they went."""

from __future__ import annotations

from collections.abc import Iterator

from gdbhyp.analyses.symbols import SymbolsReport
from gdbhyp.render.style import Style, escape


def render(report: SymbolsReport, style: Style) -> Iterator[str]:
    """Yield the lines of the answer."""
    whose = report.hypervisor if report.vm is None else f"VM {report.vm}"
    yield style.paint("heading", f"{report.symbols:,} symbols of {whose}") + _version(report)
    rows = [
        [
            style.paint("name", escape(section.name)),
            style.paint("address", f"VA {section.start:#x}"),
            f"{section.end - section.start:#x} bytes",
            f"{section.symbols:,}",
            "" if section.start == section.image else f"the image's VA {section.image:#x}",
        ]
        for section in report.sections
        if section.symbols
    ]
    if rows:
        yield from style.table(rows, ["section", "runs at", "size", "symbols", "is"]).splitlines()
    yield from (f"  {escape(sentence)}" for sentence in report.how)
    if report.program is not None and report.program_offset is not None:
        yield f"  {escape(report.program)} was moved by {report.program_offset:#x} to where it runs"
    if report.file is not None:
        yield f"  they are in {escape(report.file)}"
    yield from (style.paint("note", escape(problem)) for problem in report.problems)


def _version(report: SymbolsReport) -> str:
    return f": {escape(report.version.partition(' (')[0])}" if report.version else ""
