"""Every VM of the machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from gdbhyp.engine.stop import Stop
from gdbhyp.errors import GdbhypError
from gdbhyp.hypervisors.guest import Guest, behind, guest
from gdbhyp.hypervisors.vms import HostStage2, Vcpu, Vm, VmSearch, find_vms


@dataclass(frozen=True)
class VmsReport:
    """The VMs; ``problems`` are sentences about what could not be looked at.

    ``host`` is the host's kernel in words, and ``host_stage2`` what pKVM keeps it behind; text alone shows them.
    """

    kind: ClassVar[str] = "vms"
    json_lines: ClassVar[bool] = True

    rows: tuple[Vm, ...]
    problems: tuple[str, ...] = ()
    host: str = ""
    host_stage2: HostStage2 | None = None
    verbose: bool = field(default=False, metadata={"json": False})


def vms(stop: Stop, *, verbose: bool = False) -> VmsReport:
    """Return every VM that can be found; ``verbose`` asks text for the addresses of the hypervisor's objects."""
    found = find_vms(stop)
    return VmsReport(found.vms, found.problems, found.host, found.host_stage2, verbose)


def vm_of(stop: Stop, number: int) -> Vm:
    """Return the VM that ``hyp-vms`` shows with this number.

    :raises GdbhypError: if there is none.
    """
    found = find_vms(stop)
    for vm in found.vms:
        if vm.vm == number:
            return vm
    known = f"VMs are {', '.join(str(vm.vm) for vm in found.vms)}" if found.vms else "no VM was found"
    raise GdbhypError(f"there is no VM {number}: {known}{_missing(found)}")


def _missing(found: VmSearch) -> str:
    """Say what could not be looked at, for that may be why something is not there."""
    return f" ({'; '.join(found.problems)})" if found.problems else ""


def vcpu_of(stop: Stop, vm: Vm, number: int) -> Vcpu:
    """Return a VM's vCPU by its number.

    :raises GdbhypError: if there is none.
    """
    for vcpu in vm.vcpus:
        if vcpu.vcpu == number:
            return vcpu
    if not vm.vcpus:
        raise GdbhypError(f"no vCPU of VM {vm.vm} is known: it was found {vm.how}{_missing(find_vms(stop))}")
    raise GdbhypError(
        f"VM {vm.vm} has no vCPU {number}: it has {', '.join(str(vcpu.vcpu) for vcpu in vm.vcpus)}"
    )


def guest_of(stop: Stop, number: int, vcpu: int | None = None) -> Guest:
    """Return a VM's vCPU, its first one if none is said, as a Stop of its own.

    :raises GdbhypError: if there is no such VM or vCPU, or its registers cannot be had.
    """
    vm = vm_of(stop, number)
    return guest(stop, vm, None if vcpu is None else vcpu_of(stop, vm, vcpu))


def host_of(stop: Stop) -> Stop:
    """Return the CPU behind the stage 2 of the host itself, as pKVM has it.

    :raises GdbhypError: if there is none, or none that can be told.
    """
    found = find_vms(stop).host_stage2
    if found is None:
        raise GdbhypError(
            "the host is behind no stage 2 that is known: only pKVM has one, and shows it while the host runs"
        )
    return behind(stop, found)
