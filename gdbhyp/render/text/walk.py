"""A walk: each descriptor fetch as a row, then where it led or why it did not."""

from __future__ import annotations

from collections.abc import Iterator

from gdbhyp.analyses.walk import WalkReport
from gdbhyp.engine.results import Step
from gdbhyp.render.fields import indented
from gdbhyp.render.sizes import size_text
from gdbhyp.render.style import Style

_HEADERS = ("stage", "level", "table", "index", "descriptor", "kind", "leads to", "")


def render(report: WalkReport, style: Style) -> Iterator[str]:
    """Yield the lines of a walk."""
    regime = report.regime.value
    stages = {"1": ", stage 1", "2": ", stage 2"}.get(report.stages, "")
    yield style.paint("heading", f"{report.input_space} {report.input:#x} in the {regime} regime{stages}")
    if report.assumed:
        yield style.paint("note", f"  {report.assumed}")
    rows = [row for step in report.steps for row in _rows(step, report, style)]
    if rows:
        yield from indented(style.table(rows, _HEADERS))
    else:
        yield "  no table is walked: translation is off or the address is out of range"
    yield from conclusion(report, style)


def _rows(step: Step, report: WalkReport, style: Style) -> Iterator[list[str]]:
    if report.verbose:
        yield from (_row(inner, report, style) for inner in step.nested)
    yield _row(step, report, style)


def _row(step: Step, report: WalkReport, style: Style) -> list[str]:
    leads = ""
    if step.output is not None:
        leads = f"{_output_space(step, report)} {step.output:#x}"
    return [
        str(step.stage),
        str(step.level),
        f"{step.table_space} {step.table:#x}",
        f"{step.index:#x}",
        f"{step.descriptor:#018x}",
        style.paint("bad", step.kind) if step.kind == "invalid" else step.kind,
        leads,
        style.paint("note", step.note),
    ]


def _output_space(step: Step, report: WalkReport) -> str:
    """Name the space that a descriptor points into: stage 1 of EL1&0 points to IPAs where stage 2 follows."""
    if step.stage == 2 or report.stages == "2":
        return "PA"
    if step.kind == "table":
        return step.table_space
    return report.output_space if report.stages == "1" else "IPA" if report.ipa is not None else "PA"


def conclusion(report: WalkReport, style: Style) -> Iterator[str]:
    """Yield the lines that say what the address is mapped to, or the fault."""
    if report.ipa is not None and report.input_space == "VA" and report.output_space == "PA":
        yield f"IPA {style.paint('address', f'{report.ipa:#x}')}"
    if report.fault is not None:
        yield style.paint("bad", f"fault: {report.fault.text}")
        yield from _as_taken(report, style)
    if report.output is not None:
        yield f"{report.output_space} {style.paint('address', f'{report.output:#x}')}{_mapping(report)}"


def _mapping(report: WalkReport) -> str:
    parts = []
    if report.page_size:
        parts.append(f"{size_text(report.page_size)} {'block' if _is_block(report) else 'page'}")
    if report.contiguous:
        parts.append("contiguous")
    if report.permissions:
        parts.append(report.permissions.text)
    if report.attributes:
        parts.append(f"{report.attributes.memory}, {report.attributes.shareability}")
    if report.space not in ("Non-secure", ""):
        parts.append(report.space)
    return f"  ({', '.join(parts)})" if parts else ""


def _is_block(report: WalkReport) -> bool:
    leaves = [step for step in report.steps if step.kind in ("block", "page")]
    return bool(leaves) and all(step.kind == "block" for step in leaves)


def _as_taken(report: WalkReport, style: Style) -> Iterator[str]:
    fault = report.fault
    if fault is None:
        return
    if fault.address is not None:
        yield f"  the descriptor at PA {fault.address:#x} cannot be read"
    hpfar = "UNKNOWN" if fault.hpfar_el2 is None else f"{fault.hpfar_el2:#x}"
    far = f"FAR_EL2 = {fault.far_el2:#x}, " if report.input_space == "VA" else ""
    taken = f"ESR_EL2 = {fault.esr_el2:#x}, {far}HPFAR_EL2 = {hpfar}"
    yield style.paint("dim", f"  taken to EL2, it would leave {taken}")
