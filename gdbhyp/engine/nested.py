"""FEAT_NV2: where a guest hypervisor's register accesses go when they go to memory.

Source: Arm ARM (DDI 0487) D8.11 "Nested virtualization" and the description of VNCR_EL2.
"""

from __future__ import annotations

from gdbhyp.arch.controls import NV, NV2
from gdbhyp.arch.features import features
from gdbhyp.arch.fields import Bits
from gdbhyp.arch.spaces import VA
from gdbhyp.engine.machine import Machine, Registers
from gdbhyp.engine.results import Access, Translation
from gdbhyp.engine.translate import current_regime, translate
from gdbhyp.errors import UsageError

# VNCR_EL2
_BADDR = Bits(56, 12)
_SIGN = 1 << _BADDR.msb

PAGE_SIZE = 1 << 12
"""Bytes of the page that VNCR_EL2 points to."""


def vncr_page(registers: Registers) -> VA | None:
    """The EL2 virtual address of the page that VNCR_EL2 points to, sign-extended from bit 56.

    None while HCR_EL2.{NV,NV2} is not {1,1}, or without FEAT_NV2: register accesses are then not redirected.
    """

    def register(name: str) -> int:
        return registers.get(name) or 0

    hcr = register("HCR_EL2")
    if not (features(registers.get).nv2 and NV(hcr) and NV2(hcr)):
        return None
    base = register("VNCR_EL2") & _BADDR.in_place
    return VA(base if not base & _SIGN else base | (1 << 64) - (_SIGN << 1))


def translate_vncr(machine: Machine, offset: int = 0, *, kind: str = "read") -> Translation | None:
    """Translate the address of a redirected register access, at ``offset`` bytes into the page.

    The access is made with EL2's own translation, whatever the guest's is. Returns None while nothing is
    redirected.

    :raises UsageError: if the offset is outside the page.
    """
    if not 0 <= offset < PAGE_SIZE:
        raise UsageError(f"an offset into the VNCR_EL2 page is 0 to {PAGE_SIZE - 1:#x}, not {offset:#x}")
    page = vncr_page(machine.registers)
    if page is None:
        return None
    regime = current_regime(machine.registers, 2)
    return translate(machine, page + offset, regime, access=Access(kind, 2))
