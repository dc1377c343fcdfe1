"""The context of a vCPU: what KVM has saved of it, and which of it a CPU holds in a newer state.

KVM saves a guest's registers to ``struct kvm_vcpu`` when it leaves the guest. In nVHE that is all of them, at each
exit. In VHE the EL1 registers stay in the CPU until the vCPU is put, so that while the host runs at EL2, they are the
newer ones; the general-purpose registers are saved at each exit. In protected mode the hypervisor runs its own copy of
the vCPU, and writes what it is willing to show to the host's at each exit.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from gdbhyp.arch.spaces import PA
from gdbhyp.arch.worlds import Hcr, vmid_of, world_below
from gdbhyp.engine.stop import Stop
from gdbhyp.hypervisors.linux.objects import Object
from gdbhyp.hypervisors.saved import Context, Loaded
from gdbhyp.hypervisors.vms import root_of

_GENERAL = 31
_NO_REGISTER = ("__INVALID_SYSREG__", "NR_SYS_REGS")


def context(vcpu: Object) -> Context:
    """Read the saved context of a ``struct kvm_vcpu``."""
    return Context(_general(vcpu), system_registers(vcpu), _control(vcpu), _fault(vcpu))


def _general(vcpu: Object) -> dict[str, int]:
    base = vcpu.type.offset("arch.ctxt.regs")
    size = vcpu.type.member("arch.ctxt.regs").size
    words = struct.unpack_from(f"<{_GENERAL + 3}Q", vcpu.kernel.memory.read(vcpu.address + base, size))
    names = [*(f"X{number}" for number in range(_GENERAL)), "SP_EL0", "PC", "CPSR"]
    return dict(zip(names, words, strict=True))


def system_registers(vcpu: Object) -> dict[str, int]:
    """Return all saved system registers by the kernel's names, which are the architecture's."""
    constants = vcpu.type.types.enum("vcpu_sysreg")
    member = vcpu.type.member("arch.ctxt.sys_regs")
    data = vcpu.kernel.memory.read(vcpu.address + member.offset, member.size)
    page, first = _redirected(vcpu, constants)
    found = {}
    virtual_el2 = _has_el2_registers(vcpu)
    for name, number in constants.items():
        if name in _NO_REGISTER or name.startswith("__"):
            continue
        if name.endswith("_EL2") and not virtual_el2:
            continue
        source, at = (page, number - first) if page and number >= first else (data, number)
        if 0 <= 8 * at < len(source) - 7:
            found[name] = struct.unpack_from("<Q", source, 8 * at)[0]
    return found


# HCR_EL2.
_NV, _RW = 1 << 42, 1 << 31


def _has_el2_registers(vcpu: Object) -> bool:
    """Return whether a guest uses the places for EL2 registers: those of a virtual EL2, or of AArch32 state."""
    hcr = vcpu.number("arch.hcr_el2") if vcpu.has("arch.hcr_el2") else 0
    return bool(hcr & _NV) or not hcr & _RW


def _redirected(vcpu: Object, constants: Mapping[str, int]) -> tuple[bytes, int]:
    """Return the page of registers that a vCPU with nested virtualization has in memory, and which is its first."""
    first = constants.get("__VNCR_START__")
    if first is None or not vcpu.has("arch.ctxt.vncr_array"):
        return b"", 0
    page = vcpu.number("arch.ctxt.vncr_array")
    return (vcpu.kernel.memory.read(page, 4096), first) if page else (b"", 0)


def _members(vcpu: Object, paths: Mapping[str, str]) -> dict[str, int]:
    return {name: vcpu.number(path) for name, path in paths.items() if vcpu.has(path)}


def _control(vcpu: Object) -> dict[str, int]:
    paths = {
        "HCR_EL2": "arch.hcr_el2",
        "HCRX_EL2": "arch.hcrx_el2",
        "MDCR_EL2": "arch.mdcr_el2",
        "VSESR_EL2": "arch.vsesr_el2",
    }
    return _members(vcpu, paths)


def _fault(vcpu: Object) -> dict[str, int]:
    paths = {
        "ESR_EL2": "arch.fault.esr_el2",
        "FAR_EL2": "arch.fault.far_el2",
        "HPFAR_EL2": "arch.fault.hpfar_el2",
        "DISR_EL1": "arch.fault.disr_el1",
    }
    return _members(vcpu, paths)


SWITCHED = (
    *(
        "SCTLR_EL1",
        "TCR_EL1",
        "TCR2_EL1",
        "TTBR0_EL1",
        "TTBR1_EL1",
        "MAIR_EL1",
        "AMAIR_EL1",
        "PIR_EL1",
        "PIRE0_EL1",
    ),
    *(
        "POR_EL1",
        "CPACR_EL1",
        "VBAR_EL1",
        "CONTEXTIDR_EL1",
        "TPIDR_EL1",
        "TPIDR_EL0",
        "TPIDRRO_EL0",
        "PAR_EL1",
    ),
    *(
        "ESR_EL1",
        "FAR_EL1",
        "AFSR0_EL1",
        "AFSR1_EL1",
        "SP_EL1",
        "ELR_EL1",
        "SPSR_EL1",
        "CNTKCTL_EL1",
        "TFSR_EL1",
    ),
)
"""Registers that a CPU holds for a loaded guest (KVM, hyp/include/hyp/sysreg-sr.h); KVM emulates the others."""


def loaded(vcpu: Object, root: PA, cpus: Sequence[Stop]) -> Loaded | None:
    """Return where registers of a vCPU are newer than the saved ones, None if they are nowhere."""
    cpu = in_guest_on(vcpu, root, cpus)
    if cpu is not None:
        return Loaded(cpu, cpu.optional("CPSR") is not None and cpu.el < 2)
    number = vcpu.signed("cpu")
    for cpu in _with_stage2(vcpu, root, cpus):
        # Only a VHE host leaves them there; nVHE's has EL1 for itself, also with E2H (hVHE).
        vhe_host = Hcr(cpu.optional("HCR_EL2") or 0).el2_is_host
        if vhe_host and cpu.cpu == number and cpu.optional("VMPIDR_EL2") is not None:
            return Loaded(cpu, general=False)
    return None


# enum in include/linux/kvm_host.h: IN_GUEST_MODE, and EXITING_GUEST_MODE after a kick.
_RUNNING = (1, 2)


def in_guest_on(vcpu: Object, root: PA, cpus: Sequence[Stop]) -> Stop | None:
    """Return the CPU that executes the vCPU, or has just left it or is about to enter it; None if there is none.

    It has the VM's stage 2 in force, and VMPIDR_EL2 is the vCPU's. At EL2 that is not enough, for KVM loads a VM's
    stage 2 also to invalidate its TLB entries for the host: then KVM must say that the vCPU is in its guest.
    """
    for cpu in _with_stage2(vcpu, root, cpus):
        hcr, vttbr = Hcr(cpu.optional("HCR_EL2") or 0), cpu.optional("VTTBR_EL2") or 0
        if world_below(hcr, vttbr, cpu.optional("VTCR_EL2"))[0] != "guest":
            continue
        below = cpu.optional("CPSR") is not None and cpu.el < 2
        if below or (vcpu.signed("cpu") == cpu.cpu and vcpu.number("mode") in _RUNNING):
            return cpu
    return None


def _with_stage2(vcpu: Object, root: PA, cpus: Sequence[Stop]) -> list[Stop]:
    """Return the CPUs whose VTTBR_EL2 and VMPIDR_EL2 are the vCPU's.

    Where VMPIDR_EL2 is not shown, KVM itself says on which CPU it has loaded the vCPU.
    """
    found = []
    for cpu in cpus:
        vttbr = cpu.optional("VTTBR_EL2") or 0
        if root_of(vttbr) == root and vmid_of(vttbr, cpu.optional("VTCR_EL2")):
            found.append(cpu)
    if not found:
        return []
    mpidr = system_registers(vcpu).get("MPIDR_EL1")
    number = vcpu.signed("cpu")

    def holds(cpu: Stop) -> bool:
        own = cpu.optional("VMPIDR_EL2")
        return own == mpidr if own is not None else number == cpu.cpu

    return [cpu for cpu in found if holds(cpu)]
