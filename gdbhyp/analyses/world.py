"""Whose world the CPU is in, from its registers alone.

The rules, for a CPU that is stopped anywhere:

* EL3 belongs to neither world.
* EL2 is the hypervisor, unless HCR_EL2.{E2H, TGE} is {1, 1}: then it is the host itself (VHE).
* EL0 with TGE = 1 is the host's user space.
* EL1 and EL0 with stage 2 off, or with VTTBR_EL2 zero, are the host: a guest cannot run without either.
* A host whose memory is behind stage 2 (pKVM) has VMID 0, which KVM and Xen never give to a guest.
"""

from __future__ import annotations

from gdbhyp.arch.worlds import Hcr, World, world_below
from gdbhyp.engine.stop import Stop
from gdbhyp.engine.translate import current_regime
from gdbhyp.engine.virtual import VirtualReader
from gdbhyp.errors import GdbhypError


def world_of(stop: Stop) -> tuple[World, str]:
    """Return the world and the reason for it in words.

    :raises RegisterUnavailable: if HCR_EL2 or VTTBR_EL2 is not shown.
    """
    hcr = Hcr(stop.register("HCR_EL2"))
    if stop.el == 3:
        return "unknown", "EL3 belongs to neither host nor guest"
    if stop.el == 2:
        if hcr.el2_is_host:
            return "host", "EL2 with HCR_EL2.{E2H, TGE} = {1, 1} is a VHE host"
        return "hypervisor", "EL2" + (
            ", E2H = 1 and TGE = 0: hVHE, or a VHE host in a world switch" if hcr.e2h else ""
        )
    return world_below(hcr, stop.register("VTTBR_EL2"), stop.optional("VTCR_EL2"))


def interrupted_world(stop: Stop) -> World:
    """Return the world that an exception interrupted, for a CPU that stands where its EL2 vector begins."""
    hcr = Hcr(stop.register("HCR_EL2"))
    spsr = stop.optional("SPSR_EL2")
    if spsr is None:
        return "unknown"
    if not spsr >> 4 & 1 and spsr >> 2 & 3 == 2:
        return "host" if hcr.el2_is_host else "hypervisor"
    return world_below(hcr, stop.register("VTTBR_EL2"), stop.optional("VTCR_EL2"))[0]


def is_vector_entry(pc: int, vbar: int | None) -> bool:
    """Return whether ``pc`` is the first instruction of one of the 16 vectors of 128 bytes at ``vbar``."""
    return vbar is not None and 0 <= pc - (vbar & ~0x7FF) < 0x800 and pc % 0x80 == 0


def at_exception_entry(stop: Stop) -> bool:
    """Return whether the CPU stands where its exception began: no register but SP has changed since.

    That is a vector itself, or the target of the branch that a vector consists of, after nothing but pushes.
    """
    pc, vbar = stop.register("PC"), stop.optional(f"VBAR_EL{stop.el}")
    if vbar is None or is_vector_entry(pc, vbar):
        return vbar is not None
    try:
        entry = (vbar & ~0x7FF) + _vector_offset(stop.register(f"SPSR_EL{stop.el}"), stop.el)
        regime = current_regime(stop.machine.registers, stop.el)
        code = VirtualReader(stop.machine, regime).read(entry, _BRANCH_WITHIN)
    except GdbhypError:
        return False
    return _first_branch(code, entry) == pc


# How far into a vector its branch is looked for: an error barrier and two pushes go before it in practice.
_BRANCH_WITHIN = 16


def _vector_offset(spsr: int, el: int) -> int:
    """Return the offset of the synchronous vector that was taken (Arm ARM, D1.4.1.5, the vector table)."""
    if spsr >> 4 & 1:
        return 0x600
    if spsr >> 2 & 3 < el:
        return 0x400
    return 0x200 if spsr & 1 else 0


def _first_branch(code: bytes, address: int) -> int | None:
    """Return the target of the first B in A64 ``code`` when only NOP, ESB and pushes to SP go before it."""
    for at in range(0, len(code), 4):
        word = int.from_bytes(code[at : at + 4], "little")
        if word >> 26 == 0b000101:
            offset = (word & 0x3FF_FFFF) << 2
            return address + at + offset - (1 << 28 if offset >> 27 else 0)
        push = word & 0xFFC0_03E0 == 0xA980_03E0
        if not push and word not in (0xD503_201F, 0xD503_221F):
            return None
    return None
