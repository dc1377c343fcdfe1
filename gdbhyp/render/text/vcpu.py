"""The state of one vCPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gdbhyp.analyses.vcpu import ContextRegister, Frame, VcpuReport
from gdbhyp.render.fields import indented
from gdbhyp.render.style import Style, escape

_PC_FROM = {"live": "live", "ELR_EL2": "from ELR_EL2", "saved": "at its last exit", None: ""}
_COLUMNS = 3
# arch/arm64/kvm/sys_regs.c, reset_unknown.
_NEVER_WRITTEN = 0x1DE7_EC7E_DBAD_C0DE


def render(report: VcpuReport, style: Style) -> Iterator[str]:
    """Yield the lines of the vCPU."""
    vmid = "no VMID yet" if report.vmid is None else f"VMID {report.vmid}"
    vmid += ", protected from the host" if report.protected else ""
    where = f" on CPU {report.cpu}" if report.cpu is not None and "CPU" not in report.state else ""
    thread = "" if report.task is None else f", thread {report.task.pid} ({escape(report.task.name)})"
    yield (
        style.paint("heading", f"VM {report.vm} vCPU {report.vcpu}")
        + f": {vmid}, {report.state}{where}{thread}"
    )
    if report.pc is not None:
        copied = report.protected and report.pc_from == "saved"
        where = "in the host's copy" if copied else _PC_FROM[report.pc_from]
        yield f"  PC {style.paint('address', f'{report.pc:#x}')}, {where}"
    yield f"  registers: {report.registers_from}"
    if report.verbose and report.object is not None:
        yield f"  described at VA {report.object:#x}"
    yield from _exit(report)
    pending = "not known" if report.pending is None else "; ".join(report.pending) or "nothing"
    yield f"  pending: {pending}"
    if report.frame is not None:
        yield from _frame(report.frame, report.pc, style)
    else:
        yield from _registers(report, style)
    yield from (style.paint("bad", escape(problem)) for problem in report.problems)


def _exit(report: VcpuReport) -> Iterator[str]:
    if report.last_exit is None:
        kept = "none that was no interrupt" if report.exits_are_saved else "not kept by the hypervisor"
        yield f"  last exit: {kept}"
        return
    yield f"  last exit: {report.last_exit.summary}"
    values = [f"ESR_EL2 = {report.last_exit.esr:#x}"]
    if report.ipa is not None:
        values += [f"FAR_EL2 = {report.far:#x}", f"HPFAR_EL2 = {report.hpfar:#x}", f"IPA {report.ipa:#x}"]
    yield f"    {', '.join(values)}"


def _registers(report: VcpuReport, style: Style) -> Iterator[str]:
    yield f"  PSTATE as saved: {report.pstate}"
    yield from _block("general-purpose registers as saved", report.general, style)
    shown = [row for row in report.system if row.saved or row.differs or report.verbose]
    yield from _block("system registers as saved", shown, style)
    if any(row.saved == _NEVER_WRITTEN for row in shown):
        yield f"    ({_NEVER_WRITTEN:#x} is KVM's mark for a register that the guest has not written)"
    yield from _block("EL2 registers for this guest", report.control, style)
    different = [row for row in (*report.general, *report.system) if row.differs]
    if different:
        yield "  newer in the CPU:"
        rows = [[style.paint("name", row.name), f"{row.saved:#x}", f"{row.live:#x}"] for row in different]
        yield from (f"  {line}" for line in indented(style.table(rows, ["", "saved", "now"])))
    if report.verbose and report.traps:
        yield f"  HCR_EL2 traps: {', '.join(report.traps)}"


def _block(title: str, rows: Sequence[ContextRegister], style: Style) -> Iterator[str]:
    if not rows:
        return
    yield f"  {title}:"
    cells = [[style.paint("name", row.name), f"{row.saved:#x}"] for row in rows]
    cells += [["", ""]] * (-len(cells) % _COLUMNS)
    height = len(cells) // _COLUMNS
    table = [
        [cell for column in range(_COLUMNS) for cell in cells[line + column * height]]
        for line in range(height)
    ]
    yield from (f"  {line}" for line in indented(style.table(table)))


def _frame(frame: Frame, pc: int | None, style: Style) -> Iterator[str]:
    for line in frame.code:
        marker = "=>" if line.address == pc else "  "
        text = (
            f"  .inst {line.word:#010x}" if line.text is None else f"  {style.instruction(escape(line.text))}"
        )
        yield f"  {marker} {style.paint('address', f'{line.address:#x}')}{text}"
    if frame.calls:
        yield "  callers:"
    for number, call in enumerate(frame.calls):
        record = "" if call.record is None else f"  (frame record at {call.record:#x})"
        yield f"    #{number} {style.paint('address', f'{call.pc:#x}')}{record}"
    yield from (f"  {style.paint('bad', escape(problem))}" for problem in frame.problems)
