"""The VMs of a Linux host with KVM, as the report of every VM takes them."""

from __future__ import annotations

from collections.abc import Sequence

from gdbhyp.arch.spaces import VA, Word
from gdbhyp.arch.worlds import Hcr, vmid_of
from gdbhyp.engine.layouts import NoType
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import BadInput, GdbhypError
from gdbhyp.hypervisors.linux import kvm, saved, tasks
from gdbhyp.hypervisors.linux.kernel import Kernel, find_kernel
from gdbhyp.hypervisors.linux.objects import Object, struct_at
from gdbhyp.hypervisors.vms import HostStage2, Memslot, PcSource, Process, Vcpu, Vm, VmSearch

_VECTORS_SIZE = 0x800
# include/uapi/linux/kvm.h
_MP_STATES = {5: "stopped", 8: "operating", 9: "load", 10: "suspended"}
_IN_GUEST_MODE = 1


def find_vms(stop: Stop) -> VmSearch:
    """Return the VMs of the host's KVM.

    :raises GdbhypError: if there is no Linux kernel.
    """
    kernel = find_kernel(stop)
    problems: list[str] = []
    cpus = stop.cpus()
    found = kvm.find_vms(kernel, stop, problems)
    vms = [
        vm for number, one in enumerate(found) if (vm := _vm(kernel, number, one, cpus, problems)) is not None
    ]
    return VmSearch(tuple(vms), tuple(problems), _host(kernel), host_stage2(kernel, cpus))


def _host(kernel: Kernel) -> str:
    """Say which kernel it is, and from where its structures are known."""
    try:
        structures = f"by {kernel.types.source}"
    except BadInput:
        structures = "are not known"
    banner, build_id = kernel.banner or "Linux", kernel.build_id or "not known"
    return f"{banner}, build ID {build_id}; its structures {structures}"


def host_stage2(kernel: Kernel, cpus: Sequence[Stop]) -> HostStage2 | None:
    """Return the stage 2 that pKVM keeps the host behind; None if there is none, or none that can be told.

    While the host runs it is in VTTBR_EL2, with VMID 0; while all CPUs run guests, it is in the hypervisor's own data,
    where the kernel lists that.
    """
    for cpu in cpus:
        vttbr, vtcr = cpu.optional("VTTBR_EL2"), cpu.optional("VTCR_EL2")
        if not vttbr or vtcr is None:
            continue
        if Hcr(cpu.optional("HCR_EL2") or 0).stage2 and not vmid_of(vttbr, vtcr):
            return HostStage2(Word(vttbr), Word(vtcr), f"in VTTBR_EL2 of CPU {cpu.cpu}")
    where = kernel.symbol("__kvm_nvhe_host_mmu")
    try:
        if where is None:
            return None
        found = kvm.stage2(struct_at(kernel, "host_mmu", where), _common_not_private(cpus))
    except GdbhypError:
        return None
    if not found.root or found.vtcr is None:
        return None
    root = kvm.stage2_register(found.root, 0, _common_not_private(cpus))
    return HostStage2(root, found.vtcr, "in the hypervisor's own data")


def _vm(
    kernel: Kernel, number: int, found: kvm.FoundVm, cpus: Sequence[Stop], problems: list[str]
) -> Vm | None:
    try:
        stage2 = kvm.stage2(found.kvm, _common_not_private(cpus))
    except GdbhypError as error:
        problems.append(f"VM {number} at {found.kvm.address:#x} is left out: {error}")
        return None
    return Vm(
        number,
        stage2.vmid,
        stage2.vttbr,
        stage2.vtcr,
        found.how,
        vcpus=_vcpus(found.kvm, number, stage2, cpus, problems),
        memslots=_memslots(found.kvm, number, problems),
        certain=found.certain,
        root=stage2.root,
        ipa_bits=None if stage2.vtcr is None else 64 - (stage2.vtcr & 0x3F),
        process=_process(kernel, found.kvm, number, problems),
        object=found.kvm.address,
        protected=_protected(found.kvm),
    )


def _protected(vm: Object) -> bool | None:
    """Return whether pKVM keeps a VM's memory from the host, None for a kernel whose pKVM has no such VMs."""
    for path in ("arch.pkvm.is_protected", "arch.pkvm.enabled"):
        if vm.has(path):
            return bool(vm.number(path))
    return None


def _common_not_private(cpus: Sequence[Stop]) -> bool:
    """Return whether the kernel sets CnP, bit 0 of every root: EL2's own roots then have it, at any stop."""
    return any((cpu.optional(name) or 0) & 1 for cpu in cpus for name in ("TTBR0_EL2", "TTBR1_EL2"))


def _process(kernel: Kernel, vm: Object, number: int, problems: list[str]) -> Process | None:
    """Return the process that made a VM, which still holds its memory."""
    try:
        space = vm.number("mm")
        for process in tasks.processes(kernel):
            if space and process.number("mm") == space:
                task = tasks.task_of(process)
                return Process(task.tgid, task.name)
    except GdbhypError as error:
        problems.append(f"the process of VM {number} was not found: {error}")
    return None


def _memslots(vm: Object, number: int, problems: list[str]) -> tuple[Memslot, ...]:
    try:
        return tuple(
            Memslot(s.ipa, s.size, s.host_va, s.number, bool(s.flags & 2), bool(s.flags & 1))
            for s in kvm.slots(vm)
        )
    except GdbhypError as error:
        problems.append(f"the memory slots of VM {number} are not known: {error}")
        return ()


def _vcpus(
    vm: Object, number: int, stage2: kvm.Stage2, cpus: Sequence[Stop], problems: list[str]
) -> tuple[Vcpu, ...]:
    found: list[Vcpu] = []
    try:
        found.extend(_vcpu(vcpu, stage2, cpus) for vcpu in kvm.vcpus(vm))
    except GdbhypError as error:
        problems.append(f"VM {number} has vCPUs that could not be read: {error}")
    return tuple(found)


def _vcpu(vcpu: Object, stage2: kvm.Stage2, cpus: Sequence[Stop]) -> Vcpu:
    live = saved.in_guest_on(vcpu, stage2.root, cpus)
    cpu = vcpu.signed("cpu")
    pc, source = _pc(vcpu, live)
    return Vcpu(
        vcpu=vcpu.number("vcpu_id"),
        pc=VA(pc),
        cpu=live.cpu if live is not None else (cpu if cpu >= 0 else None),
        pc_from=source,
        state=_state(vcpu, live, cpu),
        task=_task(vcpu),
        object=vcpu.address,
    )


def _pc(vcpu: Object, live: Stop | None) -> tuple[int, PcSource]:
    last = vcpu.number("arch.ctxt.regs.pc")
    pc = None if live is None else live.optional("PC")
    if live is None or pc is None or live.optional("CPSR") is None:
        return last, "saved"
    if live.el < 2:
        return pc, "live"
    # VHE switches the stage 2 before ELR_EL2, so there only the vectors prove that ELR_EL2 is the guest's.
    vbar = live.optional("VBAR_EL2")
    at_vector = vbar is not None and 0 <= pc - vbar < _VECTORS_SIZE
    elr = live.optional("ELR_EL2")
    if elr is not None and (at_vector or not Hcr(live.optional("HCR_EL2") or 0).e2h):
        return elr, "ELR_EL2"
    return last, "saved"


def _state(vcpu: Object, live: Stop | None, cpu: int) -> str:
    """Say what a vCPU does; the kernel's own words for it are vcpu->cpu, mode, mp_state and stat.blocking."""
    if live is not None:
        return (
            "in the guest"
            if live.optional("CPSR") is not None and live.el < 2
            else "between guest and hypervisor"
        )
    state = (
        _MP_STATES.get(vcpu.number("arch.mp_state.mp_state")) if vcpu.has("arch.mp_state.mp_state") else None
    )
    if state in ("stopped", "suspended"):
        return state
    if cpu >= 0:
        entering = vcpu.number("mode") == _IN_GUEST_MODE
        return f"loaded on CPU {cpu}, {'entering or leaving the guest' if entering else 'in the host'}"
    if vcpu.has("stat.generic.blocking") and vcpu.number("stat.generic.blocking"):
        return "waits for an interrupt"
    return "not loaded"


def _task(vcpu: Object) -> Process | None:
    """Return the thread that runs a vCPU, None before its first run."""
    try:
        pid = vcpu.follow("pid")
        first = pid.kernel.memory.word(pid.at("tasks")) if pid is not None else 0
        if not first:
            return None
        kind = vcpu.type.types.struct("task_struct")
        # The list of PIDTYPE_PID, the first kind, leads through the first of a task's links.
        links = "pid_links" if kind.has("pid_links") else "pids"
        task = tasks.task_of(Object(vcpu.kernel, kind, VA(first - kind.offset(links))))
        return Process(task.pid, task.name)
    except (GdbhypError, NoType):
        return None
