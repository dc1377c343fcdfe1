"""Reading memory by a virtual address of any regime."""

from __future__ import annotations

from gdbhyp.arch.regimes import Regime
from gdbhyp.engine.machine import Machine
from gdbhyp.engine.translate import translate
from gdbhyp.errors import MemoryUnavailable

_PAGE = 4096


def read_virtual(machine: Machine, address: int, size: int, regime: Regime) -> bytes:
    """Return ``size`` bytes at a virtual address, through all stages of ``regime``.

    :raises MemoryUnavailable: if a page of it is not mapped or not there; nothing is returned for the rest.
    """
    parts = []
    at = address
    while at < address + size:
        length = min(_PAGE - at % _PAGE, address + size - at)
        found = translate(machine, at, regime)
        if found.output is None:
            reason = found.fault.text if found.fault else "it is not mapped"
            raise MemoryUnavailable("VA", address, size, reason, at)
        parts.append(machine.memory.read(found.output, length))
        at += length
    return b"".join(parts)
