"""The state of a CPU in one screen."""

from __future__ import annotations

from collections.abc import Iterator

from gdbhyp.analyses.status import Stage2Status, StatusReport
from gdbhyp.render.fields import indented
from gdbhyp.render.sizes import size_text
from gdbhyp.render.style import Style, escape

_HYPERVISORS = {
    "kvm-nvhe": "KVM, nVHE",
    "kvm-vhe": "KVM, VHE",
    "kvm-hvhe": "KVM, hVHE",
    "pkvm": "KVM, protected (pKVM)",
    "xen": "Xen",
    "unknown": "not recognised",
}


def render(report: StatusReport, style: Style) -> Iterator[str]:
    """Yield the lines of the screen."""
    rows = [
        ["CPU", f"{report.cpu} of {report.cpus}, at VA {_place(report.pc, report.symbol)}"],
        [
            "level",
            f"EL{report.el}{' (AArch32)' if report.aarch32 else ''}, {report.regime.value} regime{_bits(report)}",
        ],
        ["world", style.paint("heading", report.world) + f": {report.world_reason}"],
        ["hypervisor", _hypervisor(report)],
        ["stage 2", _stage2(report.stage2)],
    ]
    if report.last_exception is not None:
        rows.append(["last exit", f"{report.last_exception.summary}"])
        if report.exception_from is not None:
            rows.append(["", f"from VA {_place(report.exception_from, report.exception_from_symbol)}"])
    yield from style.table([[style.paint("name", name), text] for name, text in rows]).splitlines()
    if report.assumed:
        yield style.paint("note", report.assumed)
    if report.verbose:
        yield from _details(report, style)


def _place(address: int, symbol: str | None) -> str:
    return f"{address:#x}" + (f" <{escape(symbol)}>" if symbol else "")


def _bits(report: StatusReport) -> str:
    return f", HCR_EL2.E2H = {int(report.e2h)}, TGE = {int(report.tge)}"


def _hypervisor(report: StatusReport) -> str:
    protected = ", protected" if report.identity.protected and report.hypervisor == "kvm-hvhe" else ""
    return _HYPERVISORS[report.hypervisor] + protected


def _stage2(stage2: Stage2Status) -> str:
    if stage2.vttbr == 0 and not stage2.on:
        return "off, VTTBR_EL2 is zero"
    state = "on" if stage2.on else "not in force"
    root = f"VMID {stage2.vmid}"
    if stage2.root is not None:
        root += f", root at PA {stage2.root:#x}"
    if stage2.granule is None:
        return f"{state}, {root}, VTCR_EL2 = {stage2.vtcr:#x} describes no valid walk"
    walk = f"{stage2.ipa_bits}-bit IPAs from level {stage2.start_level}, {size_text(stage2.granule)} granule"
    return f"{state}, {root}, {walk}"


def _details(report: StatusReport, style: Style) -> Iterator[str]:
    yield style.paint("heading", "how the hypervisor was recognised")
    yield from (f"  {sentence}" for sentence in report.identity.evidence)
    if report.memory is not None:
        yield style.paint("heading", "how physical memory is read")
        yield f"  {escape(report.memory)}"
    yield style.paint("heading", "what HCR_EL2 traps or does")
    yield from indented("\n".join(report.traps) or "nothing")
