"""KVM's hypervisor code in nVHE, pKVM and hVHE: a part of the kernel's image that EL2 maps at addresses of its own.

Where EL2 maps a page of the image is what EL2's own table says. It is the same memory that the kernel's table leads to,
and both are walked for every page, so that no address is computed from an assumed offset.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gdbhyp.arch.regimes import Regime
from gdbhyp.arch.spaces import VA
from gdbhyp.arch.worlds import Hcr
from gdbhyp.engine.map import MappedRange, map_stage
from gdbhyp.engine.stop import Stop
from gdbhyp.engine.virtual import PAGE_SIZE
from gdbhyp.errors import MemoryUnavailable
from gdbhyp.hypervisors.linux.kernel import Kernel

PREFIX = "__kvm_nvhe_"
"""What the kernel's build puts before the names of its nVHE code and data."""


@dataclass(frozen=True)
class Region:
    """``start`` to ``end`` (exclusive) of EL2 is the image's memory at the kernel's ``kernel`` address.

    ``alias`` is "" where EL2 runs, "idmap" for the page that is mapped at its physical address to switch the MMU on,
    and "alias" for a further mapping.
    """

    start: VA
    end: VA
    kernel: VA
    executable: bool
    alias: str = ""

    @property
    def size(self) -> int:
        """The size in bytes."""
        return self.end - self.start


def el2_regime(stop: Stop) -> Regime:
    """Return the regime of EL2's own code."""
    return Regime.EL20 if Hcr(stop.optional("HCR_EL2") or 0).e2h else Regime.EL2


def regions(stop: Stop, kernel: Kernel) -> tuple[tuple[Region, ...], tuple[str, ...]]:
    """Return what EL2 maps of the kernel's image, ascending, and sentences about what could not be read.

    Pages that the kernel maps elsewhere are left out.
    """
    problems: list[str] = []
    found = list(_image_ranges(stop, kernel, problems))
    main = _main_distance(found)
    pieces = [piece for mapped in found for piece in _proven(kernel, mapped, main)]
    return tuple(pieces), tuple(problems)


def _image_ranges(stop: Stop, kernel: Kernel, problems: list[str]) -> Iterator[MappedRange]:
    """Yield what EL2's lower range maps of the image's physical memory."""
    first, last = kernel.physical_base, kernel.physical_base + image_size(kernel)
    for item in map_stage(stop.machine, el2_regime(stop), 1, end=1 << 55):
        if not isinstance(item, MappedRange):
            problems.append(f"EL2 {item.start:#x} to {item.end:#x} could not be followed ({item.kind})")
            continue
        low = max(item.output, first)
        high = min(item.output + (item.end - item.start), last)
        if low < high:
            shift = low - item.output
            start = item.start + shift
            yield item._replace(
                start=type(item.start)(start),
                end=type(item.end)(start + high - low),
                output=type(item.output)(low),
            )


def image_size(kernel: Kernel) -> int:
    """Return how many bytes the image has from its first symbol on, as far as its symbols tell."""
    end = kernel.symbol("_end")
    last = kernel.image.symbols.offsets[-1] if end is None else end - kernel.base - 1
    return (last // PAGE_SIZE + 1) * PAGE_SIZE


def _main_distance(found: list[MappedRange]) -> int | None:
    """Return the distance of virtual from physical addresses at which most of the image is mapped."""
    sizes: dict[int, int] = {}
    for item in found:
        distance = item.start - item.output
        sizes[distance] = sizes.get(distance, 0) + (item.end - item.start)
    return max(sizes, key=lambda distance: sizes[distance]) if sizes else None


def _proven(kernel: Kernel, mapped: MappedRange, main: int | None) -> Iterator[Region]:
    """Yield the parts of a range whose pages the kernel's own table leads to, too."""
    distance = mapped.start - mapped.output
    alias = "" if distance == main else "idmap" if distance == 0 else "alias"
    start: int | None = None
    for va in range(mapped.start, mapped.end, PAGE_SIZE):
        same = _same_memory(kernel, mapped.output + va - mapped.start)
        if same and start is None:
            start = va
        elif not same and start is not None:
            yield _region(kernel, mapped, start, va, alias)
            start = None
    if start is not None:
        yield _region(kernel, mapped, start, mapped.end, alias)


def _same_memory(kernel: Kernel, pa: int) -> bool:
    try:
        return kernel.memory.physical(kernel.base + pa - kernel.physical_base) == pa
    except MemoryUnavailable:
        return False


def _region(kernel: Kernel, mapped: MappedRange, start: int, end: int, alias: str) -> Region:
    own = kernel.base + mapped.output + start - mapped.start - kernel.physical_base
    return Region(VA(start), VA(end), VA(own), bool(mapped.execute), alias)
