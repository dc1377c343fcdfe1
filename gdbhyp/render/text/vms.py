"""Every VM as a paragraph: what it is, its vCPUs, its memory."""

from __future__ import annotations

from collections.abc import Iterator

from gdbhyp.analyses.vms import VmsReport
from gdbhyp.hypervisors.vms import Memslot, Process, Vcpu, Vm
from gdbhyp.render.fields import indented
from gdbhyp.render.sizes import size_text
from gdbhyp.render.style import Style, escape

_PC_FROM = {"live": "live", "ELR_EL2": "from ELR_EL2", "saved": "at its last exit", None: ""}


def render(report: VmsReport, style: Style) -> Iterator[str]:
    """Yield the lines of every VM, and what is missing."""
    if report.verbose and report.host:
        yield f"host: {escape(report.host)}"
    if report.host_stage2 is not None:
        found = report.host_stage2
        yield (
            f"{style.paint('heading', 'host')}: behind a stage 2 of its own (pKVM), {found.how}: "
            f"VTTBR_EL2 = {style.paint('address', f'{found.vttbr:#x}')}, VTCR_EL2 = {found.vtcr:#x}"
        )
        yield ""
    if not report.rows:
        yield "no VM was found"
    for number, vm in enumerate(report.rows):
        if number:
            yield ""
        yield from _vm(vm, style, report.verbose)
    yield from (style.paint("bad", escape(problem)) for problem in report.problems)


def _vm(vm: Vm, style: Style, verbose: bool) -> Iterator[str]:
    yield style.paint("heading", f"VM {vm.vm}") + f": {', '.join(_about(vm))}"
    vtcr = "VTCR_EL2 not known" if vm.vtcr is None else f"VTCR_EL2 = {vm.vtcr:#x}"
    yield f"  VTTBR_EL2 = {style.paint('address', f'{vm.vttbr:#x}')}, {vtcr}"
    yield f"  found {'' if vm.certain else 'likely: '}{escape(vm.how)}"
    if verbose and vm.object is not None:
        yield f"  described at VA {vm.object:#x}"
    if vm.vcpus:
        rows = [_vcpu(vm, vcpu, style, verbose) for vcpu in vm.vcpus]
        headers = ["vCPU", "PC", "", "state", "thread", *(["described at"] if verbose else [])]
        yield from indented(style.table(rows, headers))
    if vm.memslots:
        headers = ["IPA from", "to", "size", "host VA", "slot", ""]
        yield from indented(style.table([_slot(slot, style) for slot in vm.memslots], headers))


def _about(vm: Vm) -> Iterator[str]:
    yield "no VMID yet" if vm.vmid is None else f"VMID {vm.vmid}"
    if vm.root is not None:
        yield f"stage-2 root at PA {vm.root:#x}"
    if vm.ipa_bits is not None:
        yield f"{vm.ipa_bits}-bit IPAs"
    if vm.protected:
        yield "protected from the host"
    if vm.process is not None:
        yield f"process {_process(vm.process)}"


def _process(process: Process) -> str:
    return f"{process.pid} ({escape(process.name)})"


def _vcpu(vm: Vm, vcpu: Vcpu, style: Style, verbose: bool) -> list[str]:
    where = f" on CPU {vcpu.cpu}" if vcpu.cpu is not None and "CPU" not in vcpu.state else ""
    cells = [
        str(vcpu.vcpu),
        "" if vcpu.pc is None else style.paint("address", f"{vcpu.pc:#x}"),
        "in the host's copy" if vm.protected and vcpu.pc_from == "saved" else _PC_FROM[vcpu.pc_from],
        vcpu.state + where,
        "" if vcpu.task is None else _process(vcpu.task),
    ]
    if verbose:
        cells.append("" if vcpu.object is None else f"{vcpu.object:#x}")
    return cells


def _slot(slot: Memslot, style: Style) -> list[str]:
    flags = [word for flag, word in ((slot.read_only, "read-only"), (slot.log_dirty, "dirty log")) if flag]
    return [
        style.paint("address", f"{slot.ipa:#x}"),
        f"{slot.ipa + slot.size:#x}",
        size_text(slot.size),
        "" if slot.host_va is None else f"{slot.host_va:#x}",
        "" if slot.slot is None else str(slot.slot),
        ", ".join(flags),
    ]
