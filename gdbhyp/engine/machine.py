"""What the engine is handed: the registers and the physical memory of one CPU at one moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol


class Reader(Protocol):
    """A space of bytes.

    ``read(address, size)`` returns exactly ``size`` bytes or raises ``MemoryUnavailable`` with the space, the first
    bad address, the size and the reason. There is no partial result and no zero fill.
    """

    def read(self, address: int, size: int, /) -> bytes: ...


class Registers(Protocol):
    """System registers by their architectural upper-case name, ``"HCR_EL2"``.

    ``get`` returns None for a register that the target does not have or does not show.
    """

    def get(self, name: str, /) -> int | None: ...


def pstate_of(cpsr: int) -> dict[str, int]:
    """Return the fields of PSTATE that a translation depends on; SPSR_EL2 in the Arm ARM gives the positions."""
    return {"PAN": cpsr >> 22 & 1, "UAO": cpsr >> 23 & 1, "EL": cpsr >> 2 & 3}


@dataclass(frozen=True)
class Machine:
    """One CPU: its registers, the PSTATE fields that matter to a translation, and physical memory.

    ``pstate`` holds fields by name (``{"PAN": 1}``), missing ones are 0. ``mapping`` objects such as a plain dict
    are valid ``registers``.
    """

    registers: Registers
    memory: Reader
    pstate: Mapping[str, int] = field(default_factory=dict)

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return those of ``names`` that the target does not show."""
        return [name for name in names if self.registers.get(name) is None]
