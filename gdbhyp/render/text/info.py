"""What a dump holds, in one screen."""

from __future__ import annotations

from collections.abc import Iterator

from gdbhyp.analyses.info import DumpCpu, InfoReport
from gdbhyp.render.sizes import size_text
from gdbhyp.render.style import Style, escape

_MOST_RANGES = 8


def render(report: InfoReport, style: Style) -> Iterator[str]:
    """Yield the lines."""
    size = "" if report.size is None else f", {size_text(report.size)}"
    rows = [["form", f"{escape(report.form)}{size}"]]
    if report.taken is not None:
        versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
        rows.append(["taken", escape(f"{report.taken}, {report.contents}, with {versions}")])
    rows.extend(_memory(report))
    rows.extend(_cpus(report))
    if report.release is not None:
        rows.append(["kernel", f"Linux {escape(report.release)} (VMCOREINFO)"])
    if report.kernel_roots is not None:
        roots = report.kernel_roots
        rows.append(["stage 1", f"TTBR1_EL1 = {roots.ttbr1:#x}, TCR_EL1 = {roots.tcr:#x}"])
        rows.append(["", f"from {roots.why}"])
    yield from style.table([[style.paint("name", name), text] for name, text in rows]).splitlines()
    for problem in report.problems:
        yield escape(problem)


def _memory(report: InfoReport) -> Iterator[list[str]]:
    whole = "" if report.ram in (0, report.memory) else f" of {size_text(report.ram)}"
    count = len(report.ranges)
    yield ["memory", f"{size_text(report.memory)}{whole} in {count} range{'' if count == 1 else 's'}"]
    for part in report.ranges[:_MOST_RANGES]:
        yield ["", f"PA {part.start:#x} to {part.end:#x}, {size_text(part.end - part.start)}"]
    if len(report.ranges) > _MOST_RANGES:
        yield ["", f"and {len(report.ranges) - _MOST_RANGES} more"]


def _cpus(report: InfoReport) -> Iterator[list[str]]:
    if not report.cpus:
        yield ["CPUs", "no registers: give them with --registers or --reg"]
        return
    for cpu in report.cpus:
        selected = ", the one that was asked" if len(report.cpus) > 1 and cpu.cpu == report.selected else ""
        yield [
            f"CPU {cpu.cpu}",
            _place(cpu) + f"; {cpu.registers} registers{selected if report.taken else ''}",
        ]
    if not report.system_registers:
        yield ["", "no system registers: roots can be given with --vttbr, --vtcr, --ttbr1, --tcr"]


def _place(cpu: DumpCpu) -> str:
    if cpu.pc is None:
        return "somewhere"
    symbol = f" <{escape(cpu.symbol)}>" if cpu.symbol else ""
    return f"EL{cpu.el} at VA {cpu.pc:#x}{symbol}"
