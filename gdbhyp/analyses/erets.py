"""Where a hypervisor returns to what it runs: the ERET instructions around its vectors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gdbhyp.arch.regimes import Regime
from gdbhyp.arch.worlds import Hcr
from gdbhyp.engine.stop import Stop
from gdbhyp.engine.virtual import VirtualReader
from gdbhyp.errors import GdbhypError

# ERET, ERETAA, ERETAB (Arm ARM, C6.2).
_ERET = (0xD69F03E0, 0xD69F0BFF, 0xD69F0FFF)
_PAGE = 4096
# How far from its vectors a hypervisor's ERET instructions are looked for: code that is only a hypervisor is small, but
# a hypervisor that is a whole kernel (VHE) is not.
_NEAR, _FAR = 1 << 20, 16 << 20


def find_erets(stop: Stop, bases: Iterable[int]) -> list[int]:
    """Return the addresses of ERETs in the mapped pages around vector bases, ascending, up to a hole each way."""
    reach = _FAR if Hcr(stop.register("HCR_EL2")).el2_is_host else _NEAR
    memory = VirtualReader(stop.machine, Regime.EL20 if Hcr(stop.register("HCR_EL2")).e2h else Regime.EL2)
    pages: dict[int, list[int]] = {}
    for base in bases:
        _search(memory, base & ~(_PAGE - 1), reach, pages)
    return sorted(address for found in pages.values() for address in found)


def _search(memory: VirtualReader, start: int, reach: int, pages: dict[int, list[int]]) -> None:
    """Add the ERETs of each page by its address to ``pages``, where those of an earlier search are already."""
    for direction in (
        range(start, start + reach, _PAGE),
        range(start - _PAGE, max(start - reach, 0), -_PAGE),
    ):
        for page in direction:
            if page in pages:
                continue
            try:
                pages[page] = list(_erets(memory, page))
            except GdbhypError:
                break


def _erets(memory: VirtualReader, page: int) -> Iterator[int]:
    words = memoryview(memory.read(page, _PAGE)).cast("I")
    return (page + 4 * index for index, word in enumerate(words) if word in _ERET)
