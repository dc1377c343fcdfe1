"""Every VM of the machine, whichever hypervisor runs it.

KVM's own objects tell all of its VMs, also those that no CPU has loaded. What any hypervisor shows is the VM that it
has loaded: VTTBR_EL2 of each CPU names a stage-2 root and a VMID. VMID 0 is no guest's (KVM, Xen), and a VHE host
leaves the last guest's VTTBR_EL2 in place, which then still names a VM.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from gdbhyp.arch.spaces import IPA, PA, VA, Word
from gdbhyp.arch.worlds import Hcr, vmid_of, world_below
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import GdbhypError
from gdbhyp.hypervisors.identify import identify, is_xen

PcSource = Literal["live", "ELR_EL2", "saved"]
"""Where a vCPU's PC is from: the CPU that runs the guest now, the exception that has just left it, or its last exit."""


@dataclass(frozen=True)
class Process:
    """A process or thread of the host: its number and name."""

    pid: int
    name: str


@dataclass(frozen=True)
class Memslot:
    """Guest memory: ``size`` bytes at ``ipa`` are the VMM's at ``host_va``, None where that is not known.

    ``slot`` is the VMM's number for it; ``read_only`` and ``log_dirty`` are KVM's flags.
    """

    ipa: IPA
    size: int
    host_va: VA | None
    slot: int | None = None
    read_only: bool = False
    log_dirty: bool = False


@dataclass(frozen=True)
class Vcpu:
    """A virtual CPU; ``pc`` is where its guest is, None where that is not known; ``cpu`` is the CPU it is loaded on.

    ``state`` is what it does in words, ``task`` the thread that runs it, ``object`` where the hypervisor describes it.
    """

    vcpu: int
    pc: VA | None
    cpu: int | None
    pc_from: PcSource | None = None
    state: str = ""
    task: Process | None = None
    object: VA | None = None


@dataclass(frozen=True)
class Vm:
    """A VM: ``vm`` counts from 0; ``how`` says how it was found, ``certain`` that this leaves no doubt.

    ``vtcr`` is None where nobody told it, ``vmid`` also for a VM that has not run yet. ``root`` is the stage-2 root,
    ``ipa_bits`` the size of its input addresses, ``process`` its VMM, and ``object`` where the hypervisor describes it.
    ``protected`` says whether its memory is kept from the host (pKVM), None where the hypervisor does not tell.
    """

    vm: int
    vmid: int | None
    vttbr: Word
    vtcr: Word | None
    how: str
    vcpus: tuple[Vcpu, ...] = ()
    memslots: tuple[Memslot, ...] = ()
    certain: bool = True
    root: PA | None = None
    ipa_bits: int | None = None
    process: Process | None = None
    object: VA | None = None
    protected: bool | None = None


@dataclass(frozen=True)
class HostStage2:
    """The stage 2 that pKVM keeps the host itself behind, and how it was found."""

    vttbr: Word
    vtcr: Word
    how: str


@dataclass(frozen=True)
class VmSearch:
    """The VMs that were found; ``problems`` are sentences about what could not be looked at.

    ``host`` is the host's kernel in words, "" where it is not known; ``host_stage2`` is None where it has none.
    """

    vms: tuple[Vm, ...]
    problems: tuple[str, ...] = ()
    host: str = ""
    host_stage2: HostStage2 | None = None


def find_vms(stop: Stop) -> VmSearch:
    """Return every VM of the machine that can be found, in the order in which its hypervisor counts them.

    That is the order of their creation (KVM), of the domains' numbers (Xen), or else of their VMIDs. The search is made
    once for as long as the machine stands still.
    """
    known: VmSearch | None = stop.memo.get("vms")
    if known is None:
        known = stop.memo["vms"] = _find(stop)
    return known


def _find(stop: Stop) -> VmSearch:
    loaded = loaded_vms(stop)
    if is_xen(stop):
        from gdbhyp.hypervisors.xen import domains

        return domains.find(stop, loaded)
    told = _told(stop)
    known = {_key(vm) for vm in told.vms}
    more = [vm for vm in loaded.vms if _key(vm) not in known]
    added = (replace(vm, vm=number) for number, vm in enumerate(more, len(told.vms)))
    return replace(told, vms=(*told.vms, *added), problems=(*told.problems, *loaded.problems))


_CNP = 1


def _key(vm: Vm) -> int:
    return vm.vttbr & ~_CNP


_ONLY_LOADED = "only VMs that a CPU has loaded are shown"
# What EL2's own code is found by, and so the hypervisor recognised.
_OF_EL2 = ("HCR_EL2", "VBAR_EL2", "SCTLR_EL2", "TCR_EL2", "TTBR0_EL2")


def _told(stop: Stop) -> VmSearch:
    """Return the VMs that the objects of a Linux host tell of; a dump without registers of EL2 may be one's, too."""
    identity = identify(stop)
    is_kvm = identity.name.startswith("kvm-") or identity.name == "pkvm"
    if not is_kvm and (stop.origin == "live" or stop.optional("VBAR_EL2") is not None):
        missing = identity.name == "unknown" and stop.machine.missing(_OF_EL2)
        return VmSearch((), tuple(f"{_ONLY_LOADED}: {why}" for why in identity.evidence if missing))
    from gdbhyp.hypervisors.linux import vms

    try:
        return vms.find_vms(stop)
    except GdbhypError as error:
        # A dump without any register of EL2 need not be of a hypervisor.
        expected = is_kvm or len(stop.machine.missing(_OF_EL2)) < len(_OF_EL2)
        problems = (f"{_ONLY_LOADED}: {error}",) if expected else ()
        return VmSearch((), problems)


def loaded_vms(stop: Stop) -> VmSearch:
    """Return the VMs that are in VTTBR_EL2 of some CPU, in the order of their VMIDs."""
    loaded: dict[tuple[int, int | None], list[Stop]] = {}
    problems = []
    for cpu in stop.cpus():
        try:
            vttbr, vtcr = cpu.register("VTTBR_EL2"), cpu.optional("VTCR_EL2")
        except GdbhypError as error:
            problems.append(f"CPU {cpu.cpu} is left out: {error}")
            continue
        if vmid_of(vttbr, vtcr):
            problems += _unknown_vcpu(cpu)
            loaded.setdefault((vttbr, vtcr), []).append(cpu)
    ordered = sorted(loaded.items(), key=lambda item: (vmid_of(*item[0]), item[0][0]))
    vms = (_loaded_vm(number, *registers, cpus) for number, (registers, cpus) in enumerate(ordered))
    return VmSearch(tuple(vms), tuple(problems))


_BADDR = 0xFFFF_FFFF_FFC0


def root_of(vttbr: int) -> PA:
    """Return the root that VTTBR_EL2 points to, with bits [51:48] in its bits [5:2], as FEAT_LPA and FEAT_LPA2 have it.

    A root is aligned to 64 bytes at least wherever these bits are in use; where they are not, hypervisors align it too.
    """
    return PA(vttbr & _BADDR | (vttbr >> 2 & 0xF) << 48)


def _unknown_vcpu(cpu: Stop) -> list[str]:
    """Return in a sentence why it cannot be known whether a CPU executes the VM that it has loaded."""
    missing = cpu.machine.missing(("HCR_EL2", "CPSR", "PC"))
    if not missing:
        return []
    return [f"whether CPU {cpu.cpu} runs its VM is not known: the target does not show {missing[0]}"]


def _loaded_vm(number: int, vttbr: int, vtcr: int | None, cpus: list[Stop]) -> Vm:
    where = " and ".join(str(cpu.cpu) for cpu in cpus)
    how = f"in VTTBR_EL2 of CPU{'s' if len(cpus) > 1 else ''} {where}"
    if all(Hcr(cpu.optional("HCR_EL2") or 0).el2_is_host for cpu in cpus):
        how += ", left there by its last run (VHE)"
    running = [cpu for cpu in cpus if _runs_guest(cpu, vttbr, vtcr)]
    vcpus = (
        Vcpu(index, VA(cpu.register("PC")), cpu.cpu, "live", "in the guest")
        for index, cpu in enumerate(running)
    )
    bits = 64 - (vtcr & 0x3F) if vtcr else None
    return Vm(
        number,
        vmid_of(vttbr, vtcr),
        Word(vttbr),
        None if vtcr is None else Word(vtcr),
        how,
        tuple(vcpus),
        root=root_of(vttbr),
        ipa_bits=bits,
    )


def _runs_guest(cpu: Stop, vttbr: int, vtcr: int | None) -> bool:
    """Return whether the CPU executes the guest now."""
    if cpu.optional("PC") is None or cpu.optional("CPSR") is None or cpu.el > 1:
        return False
    return world_below(Hcr(cpu.optional("HCR_EL2") or 0), vttbr, vtcr)[0] == "guest"
