"""Virtual address space as memory, of any regime and through all its stages."""

from __future__ import annotations

from gdbhyp.arch.regimes import Regime
from gdbhyp.arch.spaces import PA
from gdbhyp.engine.machine import Machine
from gdbhyp.engine.translate import FAULT_WORDS
from gdbhyp.engine.walk import WalkFault, walker
from gdbhyp.errors import MemoryUnavailable

PAGE_SIZE = 4096
"""The smallest granule: within it, a translation is linear in every regime."""


class VirtualReader:
    """The virtual addresses of ``regime`` as a Reader.

    Translations are kept, so that one object is good for one stop.
    """

    def __init__(self, machine: Machine, regime: Regime) -> None:
        self.machine = machine
        self.regime = regime
        self._walk = walker(machine, regime)
        self._pages: dict[int, int | WalkFault] = {}

    def read(self, address: int, size: int, /) -> bytes:
        """Return ``size`` bytes from a VA on, over as many pages as they span.

        :raises MemoryUnavailable: for "VA" if a page of it is not mapped, or the memory behind it is missing.
        """
        parts = []
        at, end = address, address + size
        while at < end:
            count = min(end - at, PAGE_SIZE - at % PAGE_SIZE)
            found = self._page(at)
            if isinstance(found, WalkFault):
                reason = f"stage {found.stage} has a {FAULT_WORDS[found.kind]} at level {found.level}"
                raise MemoryUnavailable("VA", address, size, reason, at)
            pa = found + at % PAGE_SIZE
            try:
                parts.append(self.machine.memory.read(pa, count))
            except MemoryUnavailable as error:
                reason = f"it is PA {error.first_bad:#x}, {error.reason}"
                raise MemoryUnavailable("VA", address, size, reason, at + error.first_bad - pa) from error
            at += count
        return b"".join(parts)

    def physical(self, address: int) -> PA | None:
        """Return where a VA leads, None if it is not mapped."""
        found = self._page(address)
        return None if isinstance(found, WalkFault) else PA(found + address % PAGE_SIZE)

    def _page(self, address: int) -> int | WalkFault:
        """Return the physical address of the page that holds ``address``, or why there is none."""
        page = address // PAGE_SIZE
        found = self._pages.get(page)
        if found is None:
            resolved = self._walk.resolve(page * PAGE_SIZE)
            found = resolved if isinstance(resolved, WalkFault) else resolved.output
            self._pages[page] = found
        return found
