"""The hypervisor's own symbols at the addresses it runs at, from the target's memory alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from gdbhyp.arch.spaces import VA
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import GdbhypError
from gdbhyp.hypervisors.identify import Identity, identify
from gdbhyp.hypervisors.inner import inner
from gdbhyp.hypervisors.linux.kernel import find_kernel
from gdbhyp.hypervisors.linux.symbols import Names, hyp_symbols, kernel_symbols
from gdbhyp.hypervisors.symbols import SymbolSet, joined
from gdbhyp.hypervisors.xen.image import find_image, xen_symbols
from gdbhyp.targets.symbol_file import Entry, Part, symbol_file

_SEPARATE = ("kvm-nvhe", "kvm-hvhe", "pkvm")


@dataclass(frozen=True)
class SectionRow:
    """``start`` to ``end`` (exclusive) of memory that was given ``symbols`` names; ``image`` is the image's address."""

    name: str
    start: VA
    end: VA
    executable: bool
    symbols: int
    image: VA


@dataclass(frozen=True)
class SymbolsReport:
    """What symbols there are, and where they went.

    ``version`` is what the hypervisor calls itself; of a guest, ``vm`` is its number, and ``hypervisor`` says what runs
    in it. ``file`` is the symbol file that was written or that GDB uses,
    None where none was. ``program`` is the user's own file with debug information that GDB was told to move by
    ``program_offset``.
    """

    kind: ClassVar[str] = "symbols"
    csv_rows: ClassVar[str] = "sections"

    hypervisor: str
    version: str | None
    build_id: str | None
    symbols: int
    sections: tuple[SectionRow, ...]
    how: tuple[str, ...]
    problems: tuple[str, ...] = ()
    file: str | None = None
    program: str | None = None
    program_offset: int | None = None
    vm: int | None = None


@dataclass(frozen=True)
class Symbols:
    """The symbols of a stopped machine; ``own`` are the hypervisor's, ``kernel`` those of a Linux host around it.

    ``text`` is where the kernel's ``_stext`` runs, None without a kernel. Of a guest, ``vm`` is its number.
    """

    hypervisor: str
    own: SymbolSet
    kernel: SymbolSet | None = None
    version: str | None = None
    build_id: str | None = None
    text: VA | None = None
    vm: int | None = None

    def report(self, chosen: SymbolSet) -> SymbolsReport:
        """Return the report about those of the symbols that were ``chosen``."""
        counts = [0] * len(chosen.sections)
        for symbol in chosen.symbols:
            counts[symbol.section] += 1
        rows = tuple(
            SectionRow(s.name, s.start, s.end, s.executable, count, s.image)
            for s, count in zip(chosen.sections, counts, strict=True)
        )
        return SymbolsReport(
            self.hypervisor,
            self.version,
            self.build_id,
            len(chosen.symbols),
            rows,
            chosen.how,
            chosen.problems,
            vm=self.vm,
        )


def find_symbols(stop: Stop) -> Symbols:
    """Find the symbols of whatever hypervisor a machine runs.

    :raises GdbhypError: in a sentence, if it carries none.
    """
    identity = identify(stop)
    hypervisor = identity.name
    if hypervisor == "xen":
        image = find_image(stop)
        return Symbols(hypervisor, xen_symbols(image))
    if hypervisor == "unknown":
        raise GdbhypError(_of_file(stop, identity))
    kernel = find_kernel(stop)
    names = Names(kernel)
    own = kernel_symbols(kernel, names)
    text = kernel.symbol("_stext")
    found = Symbols(hypervisor, own, None, kernel.banner or None, kernel.build_id or None, text)
    if hypervisor not in _SEPARATE:
        return found
    return replace(found, own=hyp_symbols(stop, kernel, names), kernel=own)


def guest_symbols(guest: Stop, vm: int) -> Symbols:
    """Find the symbols of a Linux kernel in a guest, ``guest``, through both stages.

    :raises GdbhypError: in a sentence, if no Linux kernel is recognised there.
    """
    if guest.optional("TTBR1_EL1") is None:
        raise GdbhypError(
            f"the EL1 registers of VM {vm} are not known, so its kernel is not found: say --vm {vm}.V with a vCPU "
            "that a CPU has loaded"
        )
    kernel = find_kernel(inner(guest))
    own = kernel_symbols(kernel, Names(kernel))
    text = kernel.symbol("_stext")
    return Symbols("linux", own, None, kernel.banner or None, kernel.build_id or None, text, vm)


def _of_file(stop: Stop, identity: Identity) -> str:
    """Say where the symbols of a hypervisor that carries none are."""
    vectors = stop.optional("VBAR_EL2")
    name = stop.symbol(vectors) if vectors else None
    if name:
        return (
            f"the hypervisor is none of KVM's or Xen's, and GDB has its symbols already: VBAR_EL2 is <{name}>"
        )
    why = "; ".join(identity.evidence)
    return f"no table of symbols is known of this hypervisor ({why}): load its ELF file with 'symbol-file'"


def contents(chosen: SymbolSet) -> bytes:
    """Return an ELF file of these symbols."""
    parts = [Part(s.name, s.start, s.end, s.executable) for s in chosen.sections]
    return symbol_file(parts, [Entry(*symbol) for symbol in chosen.symbols])


def choose(found: Symbols, *, with_kernel: bool) -> SymbolSet:
    """Return the hypervisor's symbols, and with ``with_kernel`` those of the kernel around it.

    Names of the hypervisor's code stand in the kernel, too, where it never runs; they are left out there.
    """
    if found.kernel is None or not with_kernel:
        return found.own
    own = {symbol.name for symbol in found.own.symbols}
    kernel = replace(found.kernel, symbols=tuple(s for s in found.kernel.symbols if s.name not in own))
    return joined(found.own, kernel)


@dataclass(frozen=True)
class RemovedSymbols:
    """The names of the symbol files that GDB was made to forget."""

    kind: ClassVar[str] = "symbols_removed"

    removed: tuple[str, ...]
