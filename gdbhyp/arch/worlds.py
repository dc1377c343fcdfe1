"""Whose world runs, as HCR_EL2 and VTTBR_EL2 tell it.

Source: Arm ARM (DDI 0487), HCR_EL2, VTTBR_EL2 and VTCR_EL2; that VMID 0 is no guest's is the practice of KVM and Xen.
"""

from __future__ import annotations

from typing import Literal

World = Literal["host", "hypervisor", "guest", "unknown"]


class Hcr:
    """The bits of HCR_EL2 that decide about worlds and regimes: VM [0] or DC [12], TGE [27] and E2H [34]."""

    def __init__(self, value: int) -> None:
        self.stage2 = bool(value & 1 or value >> 12 & 1)
        self.tge = bool(value >> 27 & 1)
        self.e2h = bool(value >> 34 & 1)

    @property
    def el2_is_host(self) -> bool:
        """Whether HCR_EL2.{E2H, TGE} are {1, 1}: EL2 is the host (VHE)."""
        return self.e2h and self.tge


def vmid_of(vttbr: int, vtcr: int | None) -> int:
    """Return VTTBR_EL2.VMID: [63:48], of which [63:56] are RES0 unless VTCR_EL2.VS [19] is set.

    Where VTCR_EL2 is not known (None), all of [63:48] count: software that keeps RES0 bits zero means them.
    """
    return vttbr >> 48 & (0xFFFF if vtcr is None or vtcr >> 19 & 1 else 0xFF)


def world_below(hcr: Hcr, vttbr: int, vtcr: int | None) -> tuple[World, str]:
    """Return whose world EL1 and EL0 are with these registers, and the reason in words."""
    if hcr.tge:
        return "host", "HCR_EL2.TGE = 1: EL0 is the host's user space"
    if not hcr.stage2:
        return "host", "stage 2 is off (HCR_EL2.VM = 0)"
    if vttbr == 0:
        return "host", "VTTBR_EL2 is zero"
    if vmid_of(vttbr, vtcr) == 0:
        return "host", "stage 2 is on with VMID 0: a host behind its own stage 2 (pKVM)"
    return "guest", "stage 2 is on with a VMID"
