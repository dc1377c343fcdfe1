"""The faulting IPA, the way to it, and what stage 2 maps there now."""

from __future__ import annotations

from collections.abc import Iterator

from gdbhyp.analyses.ipa import IpaReport
from gdbhyp.analyses.walk import WalkReport
from gdbhyp.render.style import Style
from gdbhyp.render.text import walk

_METHODS = {"hpfar": "from HPFAR_EL2", "stage1_walk": "by a stage-1 walk of FAR_EL2", None: ""}


def render(report: IpaReport, style: Style) -> Iterator[str]:
    """Yield the lines of the answer."""
    if report.syndrome:
        yield report.syndrome
    if report.ipa is None:
        yield style.paint("bad", "no IPA") + f": {report.reason}"
    else:
        vmid = f" of VMID {report.vmid}" if report.vmid is not None else ""
        offset = " (its page; the offset is not known)" if report.ipa_page_only else ""
        address = style.paint("address", f"{report.ipa:#x}")
        how = _METHODS[report.method] if report.syndrome else "by a stage-1 walk"
        yield f"IPA {address}{vmid}{offset}, {how}"
        yield f"  {report.reason}"
        if not report.certain:
            yield style.paint("note", "  not certain: the registers may have changed since the fault")
    yield from _registers(report)
    if report.verbose:
        for step in (report.stage1, report.stage2):
            if step is not None:
                yield ""
                yield from walk.render(step, style)
    elif report.stage2 is not None:
        yield from _stage2_now(report.stage2, style)


def _stage2_now(stage2: WalkReport, style: Style) -> Iterator[str]:
    """Say in a line what stage 2 makes of the IPA as its tables are now."""
    if stage2.fault is not None:
        yield f"  stage 2 does not map it now: {stage2.fault.text}"
    else:
        yield "  stage 2 maps it now to " + " ".join(walk.conclusion(stage2, style))


def _registers(report: IpaReport) -> Iterator[str]:
    if report.far is None or report.hpfar is None or not report.is_abort:
        return
    valid = "valid" if report.hpfar_valid else "not valid"
    yield f"  FAR_EL2 = VA {report.far:#x}, HPFAR_EL2 = {report.hpfar:#x} ({valid})"
    if not report.hpfar_valid and report.hpfar_agrees is not None:
        verdict = "the same page" if report.hpfar_agrees else "another page"
        yield f"  HPFAR_EL2 happens to hold IPA {report.hpfar_ipa:#x}: {verdict} as stage 1 says"
