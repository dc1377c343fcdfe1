"""The faulting IPA, the way to it, and what stage 2 maps there now."""

from __future__ import annotations

from collections.abc import Iterator

from gdbhyp.analyses.ipa import IpaReport
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
    if report.stage1 is not None:
        yield ""
        yield from walk.render(report.stage1, style)
    if report.stage2 is not None:
        yield ""
        yield from walk.render(report.stage2, style)


def _registers(report: IpaReport) -> Iterator[str]:
    if report.far is None or report.hpfar is None or not report.is_abort:
        return
    valid = "valid" if report.hpfar_valid else "not valid"
    yield f"  FAR_EL2 = VA {report.far:#x}, HPFAR_EL2 = {report.hpfar:#x} ({valid})"
    if not report.hpfar_valid and report.hpfar_agrees is not None:
        verdict = "the same page" if report.hpfar_agrees else "another page"
        yield f"  HPFAR_EL2 happens to hold IPA {report.hpfar_ipa:#x}: {verdict} as stage 1 says"
