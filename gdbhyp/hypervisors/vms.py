"""Every VM of the machine, whichever hypervisor runs it.

What any hypervisor shows is the VM that it has loaded: VTTBR_EL2 of each CPU names a stage-2 root and a VMID. VMID 0 is
no guest's (KVM, Xen), and a VHE host leaves the last guest's VTTBR_EL2 in place, which then still names a VM. The
others are in the hypervisor's own objects, which a module for each hypervisor reads.
"""

from __future__ import annotations

from dataclasses import dataclass

from gdbhyp.arch.spaces import IPA, VA, Word
from gdbhyp.arch.worlds import Hcr, vmid_of, world_below
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import GdbhypError
from gdbhyp.hypervisors.identify import is_xen


@dataclass(frozen=True)
class Memslot:
    """Guest memory: ``size`` bytes at ``ipa`` are the VMM's at ``host_va``, None where that is not known."""

    ipa: IPA
    size: int
    host_va: VA | None


@dataclass(frozen=True)
class Vcpu:
    """A virtual CPU; ``pc`` is where its guest is, None where that is not known; ``cpu`` is the CPU it is loaded on."""

    vcpu: int
    pc: VA | None
    cpu: int | None


@dataclass(frozen=True)
class Vm:
    """A VM: ``vm`` counts from 0; ``how`` says how it was found. ``vtcr`` is None where nobody told it."""

    vm: int
    vmid: int | None
    vttbr: Word
    vtcr: Word | None
    how: str
    vcpus: tuple[Vcpu, ...] = ()
    memslots: tuple[Memslot, ...] = ()


@dataclass(frozen=True)
class VmSearch:
    """The VMs that were found; ``problems`` are sentences about what could not be looked at."""

    vms: tuple[Vm, ...]
    problems: tuple[str, ...] = ()


def find_vms(stop: Stop) -> VmSearch:
    """Return every VM of the machine that can be found, in the order of their VMIDs, or as its hypervisor counts."""
    loaded = loaded_vms(stop)
    if is_xen(stop):
        from gdbhyp.hypervisors.xen import domains

        return domains.find(stop, loaded)
    return loaded


def loaded_vms(stop: Stop) -> VmSearch:
    """Return the VMs that are in VTTBR_EL2 of some CPU, in the order of their VMIDs."""
    loaded: dict[tuple[int, int], list[Stop]] = {}
    problems = []
    for cpu in stop.cpus():
        try:
            vttbr, vtcr = cpu.register("VTTBR_EL2"), cpu.optional("VTCR_EL2") or 0
        except GdbhypError as error:
            problems.append(f"CPU {cpu.cpu} is left out: {error}")
            continue
        if vmid_of(vttbr, vtcr):
            loaded.setdefault((vttbr, vtcr), []).append(cpu)
    ordered = sorted(loaded.items(), key=lambda item: (vmid_of(*item[0]), item[0]))
    vms = (_loaded_vm(number, *registers, cpus) for number, (registers, cpus) in enumerate(ordered))
    return VmSearch(tuple(vms), tuple(problems))


def _loaded_vm(number: int, vttbr: int, vtcr: int, cpus: list[Stop]) -> Vm:
    where = " and ".join(str(cpu.cpu) for cpu in cpus)
    how = f"in VTTBR_EL2 of CPU{'s' if len(cpus) > 1 else ''} {where}"
    if all(Hcr(cpu.optional("HCR_EL2") or 0).el2_is_host for cpu in cpus):
        how += ", left there by its last run (VHE)"
    running = [cpu for cpu in cpus if _runs_guest(cpu, vttbr, vtcr)]
    vcpus = (Vcpu(index, VA(cpu.register("PC")), cpu.cpu) for index, cpu in enumerate(running))
    return Vm(number, vmid_of(vttbr, vtcr), Word(vttbr), Word(vtcr), how, tuple(vcpus))


def _runs_guest(cpu: Stop, vttbr: int, vtcr: int) -> bool:
    """Return whether the CPU executes the guest now."""
    if cpu.optional("PC") is None or cpu.optional("CPSR") is None or cpu.el > 1:
        return False
    return world_below(Hcr(cpu.optional("HCR_EL2") or 0), vttbr, vtcr)[0] == "guest"
