"""Symbols of a Linux kernel and of its hypervisor code, where each of them runs."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from gdbhyp.arch.regimes import Regime
from gdbhyp.arch.spaces import VA
from gdbhyp.engine.map import MappedRange, map_stage
from gdbhyp.engine.stop import Stop
from gdbhyp.engine.virtual import VirtualReader
from gdbhyp.hypervisors.linux.hyp import PREFIX, Region, el2_regime, image_size, regions
from gdbhyp.hypervisors.linux.kernel import Kernel
from gdbhyp.hypervisors.symbols import CODE, Listed, RunSymbol, Section, SymbolSet, placed, virtual_bits

# Names of what the hypervisor uses besides its own, in the kernel's linker script.
_HYP_NAMES = (PREFIX, "__hyp_")
# Names of pieces that the build puts together.
_MARKER = "__hyp_section_"
_PER_CPU_START, _PER_CPU_END = f"{PREFIX}__per_cpu_start", f"{PREFIX}__per_cpu_end"


class Names:
    """A kernel's symbols as listed, ascending; made once, for there are more than a hundred thousand.

    ``complete`` says whether data is among them (CONFIG_KALLSYMS_ALL).
    """

    def __init__(self, kernel: Kernel) -> None:
        self.listed = [Listed(*symbol) for symbol in kernel.symbols() if _MARKER not in symbol.name]
        self.complete = kernel.symbol("_end") is not None
        self._addresses = [row.address for row in self.listed]

    def between(self, start: int, end: int) -> list[Listed]:
        """Return those from ``start`` to ``end`` (exclusive)."""
        return self.listed[bisect_left(self._addresses, start) : bisect_left(self._addresses, end)]


def kernel_symbols(kernel: Kernel, names: Names) -> SymbolSet:
    """Return the kernel's own symbols at the addresses that it runs at.

    What is no longer mapped, such as code that only started the machine, is left out.
    """
    sections = tuple(_kernel_sections(kernel))
    how = f"the kernel's symbols at VA {kernel.base:#x}: {kernel.how}"
    symbols = placed(names.listed, sections, sized_data=names.complete)
    return SymbolSet(sections, tuple(symbols), (how,))


def _kernel_sections(kernel: Kernel) -> Iterator[Section]:
    """Yield the mapped parts of the image; neighbours with the same rights are one."""
    machine, end = kernel.memory.machine, kernel.base + image_size(kernel)
    bits = virtual_bits(machine.registers.get, Regime.EL10, upper=True)
    pieces: list[tuple[int, int, bool, bool]] = []
    for item in map_stage(machine, Regime.EL10, 1, start=kernel.base, end=end):
        if (
            not isinstance(item, MappedRange)
            or item.output != kernel.physical_base + item.start - kernel.base
        ):
            continue
        rights = item.execute, item.write
        if pieces and pieces[-1][1] == item.start and pieces[-1][2:] == rights:
            pieces[-1] = (pieces[-1][0], item.end, *rights)
        else:
            pieces.append((item.start, item.end, *rights))
    for start, end, execute, write in pieces:
        name = ".text" if execute else ".data" if write else ".rodata"
        yield Section(name, VA(start), VA(end), execute, VA(start), bits)


def hyp_symbols(stop: Stop, kernel: Kernel, names: Names) -> SymbolSet:
    """Return the symbols of KVM's separate hypervisor code at EL2's addresses, per-CPU data for each CPU.

    :raises GdbhypError: if EL2's table cannot be walked.
    """
    found, problems = regions(stop, kernel)
    bits = virtual_bits(stop.machine.registers.get, el2_regime(stop), upper=False)
    sections: list[Section] = []
    symbols: list[RunSymbol] = []
    for region in found:
        section = _section(region, bits)
        rows = [row for row in names.between(region.kernel, region.kernel + region.size + 1) if _is_hyp(row)]
        suffix = f"_{region.alias}" if region.alias else ""
        symbols += placed(rows, [section], len(sections), suffix, sized_data=names.complete)
        sections.append(section)
    missing = list(problems)
    for cpu in stop.cpus():
        _add_per_cpu(cpu, kernel, names, found, sections, symbols, missing)
    how = (
        f"the hypervisor's symbols: {sum(r.size for r in found) >> 12} pages of the kernel's image in EL2's table, "
        "each the same physical page in the kernel's table"
    )
    return SymbolSet(tuple(sections), tuple(symbols), (how,), tuple(missing))


def _is_hyp(row: Listed) -> bool:
    """Return whether the hypervisor uses it: all code that EL2 maps, but of the kernel's data only what is named so."""
    return row.kind in CODE or row.name.startswith(_HYP_NAMES)


def _section(region: Region, bits: int) -> Section:
    name = ".hyp.text" if region.executable else ".hyp.data"
    alias = f".{region.alias}" if region.alias else ""
    return Section(name + alias, region.start, region.end, region.executable, region.kernel, bits)


def _add_per_cpu(
    cpu: Stop,
    kernel: Kernel,
    names: Names,
    found: Sequence[Region],
    sections: list[Section],
    symbols: list[RunSymbol],
    problems: list[str],
) -> None:
    """Add a CPU's instances of the hypervisor's per-CPU data, ``NAME_cpuN``: TPIDR_EL2 is how far they are away."""
    first, last = kernel.symbol(_PER_CPU_START), kernel.symbol(_PER_CPU_END)
    distance, main = cpu.optional("TPIDR_EL2"), next((r for r in found if not r.alias), None)
    if first is None or last is None or main is None or not distance:
        return
    start = (first + main.start - main.kernel + distance) & ((1 << 64) - 1)
    if VirtualReader(cpu.machine, el2_regime(cpu)).physical(start) is None:
        problems.append(f"per-CPU data of CPU {cpu.cpu} is not at VA {start:#x}, where TPIDR_EL2 puts it")
        return
    section = Section(
        f".hyp.percpu{cpu.cpu}", VA(start), VA(start + last - first), False, first, sections[0].bits
    )
    named = [row for row in names.between(first, last) if row.name != _PER_CPU_START]
    symbols += placed(named, [section], len(sections), f"_cpu{cpu.cpu}")
    sections.append(section)
