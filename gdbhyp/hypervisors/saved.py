"""What a hypervisor has saved of a vCPU, whichever hypervisor it is, and which of it a CPU holds in a newer state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gdbhyp.engine.stop import Stop
from gdbhyp.errors import GdbhypError
from gdbhyp.hypervisors.identify import is_xen
from gdbhyp.hypervisors.vms import Vcpu, Vm

AT_LAST_EXIT = "as saved at its last exit"
HOSTS_COPY = (
    "the host's copy: this VM is protected, and pKVM runs a copy of its own, of which it shows the host no more than "
    "an exit needs, so that values here may be stale or zero"
)


@dataclass(frozen=True)
class Context:
    """Saved registers by their architectural names.

    ``general`` holds X0 to X30, SP_EL0, PC and CPSR, ``system`` the EL1 and EL0 system registers that this hypervisor
    saves, ``control`` what it runs the guest with (HCR_EL2, MDCR_EL2, ...), ``fault`` the registers of the last exit
    that was no interrupt, None where the hypervisor does not keep them apart.
    """

    general: Mapping[str, int]
    system: Mapping[str, int]
    control: Mapping[str, int]
    fault: Mapping[str, int] | None


@dataclass(frozen=True)
class Loaded:
    """A CPU that holds registers of a vCPU: its EL1 ones always, ``general`` also X0 to X30, PC and PSTATE."""

    cpu: Stop
    general: bool


@dataclass(frozen=True)
class SavedVcpu:
    """A vCPU's ``context`` as it was saved; ``how`` says when, in words.

    ``loaded`` is where registers are newer, None if they are nowhere; of ``switched`` system registers the CPU's are
    the guest's then. ``pending(problems)`` yields what will be injected, in words; it is None where nobody knows.
    """

    context: Context
    loaded: Loaded | None
    switched: Sequence[str]
    how: str
    pending: Callable[[list[str]], Iterable[str]] | None


def saved_vcpu(stop: Stop, vm: Vm, vcpu: Vcpu) -> SavedVcpu:
    """Return what the hypervisor has saved of a vCPU that it describes (``vcpu.object``).

    :raises GdbhypError: if the hypervisor's objects cannot be read.
    """
    if vcpu.object is None or vm.root is None:
        raise GdbhypError(f"where the hypervisor saves the vCPUs of VM {vm.vm} is not known")
    if is_xen(stop):
        from gdbhyp.hypervisors.xen import saved as xen

        return xen.saved_vcpu(stop, vm, vcpu.object)
    from gdbhyp.hypervisors.linux import pending, saved
    from gdbhyp.hypervisors.linux.kernel import find_kernel
    from gdbhyp.hypervisors.linux.objects import struct_at

    found = struct_at(find_kernel(stop), "kvm_vcpu", vcpu.object)
    context = saved.context(found)
    return SavedVcpu(
        context,
        saved.loaded(found, vm.root, stop.cpus()),
        saved.SWITCHED,
        HOSTS_COPY if vm.protected else AT_LAST_EXIT,
        lambda problems: pending.pending(found, context.control, problems),
    )
