"""The machine that a guest sees: its IPAs as physical memory, its EL1 registers, and no EL2.

What reads a host's kernel reads a guest's kernel there in the same way, through two stages.
"""

from __future__ import annotations

from gdbhyp.engine.machine import Machine, Registers
from gdbhyp.engine.stop import Stop
from gdbhyp.engine.translate import Stage2Reader

_RW = 1 << 31


class _InnerRegisters:
    """A guest's registers: none of EL2's, except that EL1 is AArch64 and no stage 2 is seen."""

    def __init__(self, outer: Registers, *, at_el2: bool) -> None:
        self._outer = outer
        # While EL2 works for the guest, its PC is where the exception returns to.
        self._moved = {"PC": "ELR_EL2", "CPSR": "SPSR_EL2"} if at_el2 else {}

    def get(self, name: str, /) -> int | None:
        if name.endswith("_EL2"):
            return {"HCR_EL2": _RW, "VTTBR_EL2": 0, "VTCR_EL2": 0}.get(name)
        return self._outer.get(self._moved.get(name, name))


def inner(stop: Stop) -> Stop:
    """Return the machine inside the guest that a CPU has loaded.

    :raises NoTarget: if there is no EL2 in this Security state.
    """
    at_el2 = stop.optional("CPSR") is not None and stop.el == 2
    registers = _InnerRegisters(stop.machine.registers, at_el2=at_el2)
    machine = Machine(registers, Stage2Reader(stop.machine), {"EL": 1})
    return Stop(machine, origin=stop.origin, cpu=stop.cpu)
