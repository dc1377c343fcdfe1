"""A kernel's virtual addresses as a space to read from."""

from __future__ import annotations

from gdbhyp.arch.regimes import Regime
from gdbhyp.engine.machine import Machine
from gdbhyp.engine.translate import explicit, with_registers
from gdbhyp.engine.walk import Found, walker
from gdbhyp.errors import MemoryUnavailable

_PAGE = 1 << 12
_MOST_PAGES = 1 << 16
_HCR_VM = 1
# Little-endian, with the MMU and both caches on: a Linux kernel's own, whatever a guest has there now.
_SCTLR = 1 << 0 | 1 << 2 | 1 << 12
# The unused lower range: EPD0.
_EPD0 = 1 << 7


class KernelMemory:
    """A Reader of virtual addresses through ``machine``'s EL1&0 regime; pages are looked up once.

    ``machine`` has the kernel's table in TTBR1_EL1 and its control in TCR_EL1.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._walk = walker(machine, Regime.EL10)
        self._pages: dict[int, int] = {}

    def read(self, address: int, size: int, /) -> bytes:
        """Return ``size`` bytes at a virtual address.

        :raises MemoryUnavailable: if a page of it is not mapped or not there.
        """
        offset = address % _PAGE
        if offset + size <= _PAGE:
            return self.machine.memory.read(self._page(address - offset, address, size) + offset, size)
        parts = []
        at, end = address, address + size
        while at < end:
            start = self.physical(at)
            length = _PAGE - at % _PAGE
            # What is contiguous is read in one piece.
            while at + length < end and self.physical(at + length) == start + length:
                length += _PAGE
            length = min(length, end - at)
            parts.append(self.machine.memory.read(start, length))
            at += length
        return b"".join(parts)

    def physical(self, address: int) -> int:
        """Return the physical address of a virtual one.

        :raises MemoryUnavailable: if it is not mapped.
        """
        return self._page(address - address % _PAGE, address, 1) + address % _PAGE

    def _page(self, page: int, address: int, size: int) -> int:
        found = self._pages.get(page)
        if found is None:
            walked = self._walk.resolve(page, None, [])
            if not isinstance(walked, Found):
                raise MemoryUnavailable("VA", address, size, "the kernel does not map it", max(page, address))
            if len(self._pages) >= _MOST_PAGES:
                self._pages.clear()
            found = self._pages[page] = walked.output
        return found

    def word(self, address: int) -> int:
        """Return the 64-bit word at a virtual address."""
        return int.from_bytes(self.read(address, 8), "little")


def of_host(machine: Machine, ttbr1: int, tcr: int) -> KernelMemory:
    """Return the space of a host kernel with these tables.

    Its stage 2, which pKVM puts under the host, is left out: it maps each address to itself, and some not yet.
    """
    own = explicit(machine, Regime.EL10, ttbr=0, ttbr1=ttbr1, tcr=tcr | _EPD0)
    hcr = (own.registers.get("HCR_EL2") or 0) & ~_HCR_VM
    return KernelMemory(with_registers(own, {"HCR_EL2": hcr, "SCTLR_EL1": _SCTLR}))
