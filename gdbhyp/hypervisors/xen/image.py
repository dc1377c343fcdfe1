"""Where Xen's image is, and the symbols in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gdbhyp.arch.regimes import Regime
from gdbhyp.arch.spaces import VA
from gdbhyp.arch.worlds import Hcr
from gdbhyp.engine.map import MappedRange, map_stage
from gdbhyp.engine.stop import Stop
from gdbhyp.engine.virtual import PAGE_SIZE, VirtualReader
from gdbhyp.errors import BadInput, MemoryUnavailable
from gdbhyp.hypervisors.linux.kallsyms import Kallsyms
from gdbhyp.hypervisors.symbols import Listed, Section, SymbolSet, placed, virtual_bits
from gdbhyp.hypervisors.xen import symbols

# Xen maps its text, read-only data and data in one piece of at most 8 MiB (xen/arch/arm/include/asm/config.h).
_LARGEST = 8 << 20


@dataclass(frozen=True)
class Image:
    """Xen's text and read-only data: ``data`` stands at ``start`` in ``memory``, EL2's virtual addresses."""

    start: VA
    data: bytes
    symbols: Kallsyms
    memory: VirtualReader

    def function(self, name: str) -> tuple[int, bytes]:
        """Return the address and the code of a function.

        :raises BadInput: if Xen has none of this name.
        """
        address = self.symbols.address(name)
        if address is None:
            raise BadInput(f"Xen's table of symbols has no {name}")
        following = [found for found in self.symbols.offsets if found > address]
        end = min(following, default=address + PAGE_SIZE)
        return address, self.data[address - self.start : end - self.start]


def xen_symbols(image: Image) -> SymbolSet:
    """Return Xen's symbols, static ones without the name of their file; there are only functions in most builds."""
    listed = [
        Listed(symbols.plain_name(symbol.name), symbol.address, symbol.type) for symbol in image.symbols
    ]
    sections = tuple(_sections(image))
    how = f"the table of symbols in Xen's image at VA {image.start:#x}"
    return SymbolSet(sections, tuple(placed(listed, sections, sized_data=False)), (how,))


def _sections(image: Image) -> Iterator[Section]:
    """Yield what is mapped from the image's start on as far as its symbols go, by what may be executed."""
    last = image.symbols.offsets[-1]
    pieces: list[tuple[int, int, bool]] = []
    for item in map_stage(image.memory.machine, image.memory.regime, 1, start=image.start, end=last + 1):
        if not isinstance(item, MappedRange):
            continue
        if pieces and pieces[-1][1:] == (item.start, item.execute):
            pieces[-1] = (pieces[-1][0], item.end, item.execute)
        else:
            pieces.append((item.start, item.end, item.execute))
    bits = virtual_bits(image.memory.machine.registers.get, image.memory.regime, upper=False)
    for start, end, execute in pieces:
        yield Section(".text" if execute else ".data", VA(start), VA(end), execute, VA(start), bits)


def find_image(stop: Stop) -> Image:
    """Return the image that VBAR_EL2 of a CPU points into, under Xen.

    :raises BadInput: if no table of symbols is there.
    :raises RegisterUnavailable: if the target does not show VBAR_EL2.
    """
    vectors = stop.register("VBAR_EL2")
    regime = Regime.EL20 if Hcr(stop.optional("HCR_EL2") or 0).e2h else Regime.EL2
    memory = VirtualReader(stop.machine, regime)
    start = end = vectors - vectors % PAGE_SIZE
    while end - start < _LARGEST and memory.physical(start - PAGE_SIZE) is not None:
        start -= PAGE_SIZE
    while end - start < _LARGEST and memory.physical(end) is not None:
        end += PAGE_SIZE
    try:
        data = memory.read(start, end - start)
    except MemoryUnavailable as error:
        raise BadInput(f"Xen's image cannot be read: {error}") from error
    return Image(VA(start), data, symbols.find(data), memory)
