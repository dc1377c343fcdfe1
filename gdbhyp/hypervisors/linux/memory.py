"""A kernel's virtual addresses as a space to read from."""

from __future__ import annotations

from gdbhyp.arch.regimes import Regime
from gdbhyp.engine.machine import Machine
from gdbhyp.engine.translate import explicit, with_registers
from gdbhyp.engine.virtual import VirtualReader

_HCR_VM = 1
# Little-endian, with the MMU and both caches on: a Linux kernel's own, whatever a guest has there now.
_SCTLR = 1 << 0 | 1 << 2 | 1 << 12
# The unused lower range: EPD0.
_EPD0 = 1 << 7


class KernelMemory(VirtualReader):
    """A Reader of a kernel's virtual addresses: ``machine`` has its table in TTBR1_EL1, and the control in TCR_EL1."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine, Regime.EL10)
        self.tcr = machine.registers.get("TCR_EL1") or 0

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
