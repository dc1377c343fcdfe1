"""A guest as a Stop: any VM's vCPU as if a CPU had it loaded, so that every question can be asked of it from any stop.

Where a CPU has the vCPU's registers, they are that CPU's; else they are those that the hypervisor saved. Without a
vCPU's registers, as for a VM that was only seen in VTTBR_EL2, a guest has its stage 2 alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gdbhyp.arch.controls import TGE, VM
from gdbhyp.arch.features import ID_REGISTERS
from gdbhyp.engine.machine import Machine, Registers, pstate_of
from gdbhyp.engine.stop import Stop
from gdbhyp.engine.translate import with_registers
from gdbhyp.hypervisors.saved import AT_LAST_EXIT, HOSTS_COPY, SavedVcpu, saved_vcpu
from gdbhyp.hypervisors.vms import HostStage2, Vcpu, Vm

_RW = 1 << 31


@dataclass(frozen=True)
class Guest:
    """A vCPU as a Stop, and where its registers are from: "live on CPU 1", or "as saved at its last exit"."""

    stop: Stop
    registers_from: str
    live: bool = False


class _GuestRegisters:
    """A guest's own registers; of the CPU's, only what the CPU is and what belongs to EL2."""

    def __init__(self, below: Registers, own: Mapping[str, int]) -> None:
        self._below = below
        self._own = dict(own)

    def get(self, name: str, /) -> int | None:
        if name in self._own:
            return self._own[name]
        return self._below.get(name) if name.endswith("_EL2") or name in ID_REGISTERS else None


def guest(stop: Stop, vm: Vm, vcpu: Vcpu | None = None) -> Guest:
    """Return a VM's vCPU; if none is said, the first one whose registers are known.

    :raises GdbhypError: if the hypervisor's objects cannot be read.
    """
    known = (one for one in vm.vcpus if one.object is not None or one.cpu is not None)
    chosen = vcpu or next(known, vm.vcpus[0] if vm.vcpus else None)
    if chosen is None or chosen.object is None:
        return _only_seen(stop, vm, chosen)
    return of_saved(stop, vm, saved_vcpu(stop, vm, chosen))


def of_saved(stop: Stop, vm: Vm, saved: SavedVcpu) -> Guest:
    """Return a VM's vCPU by what was read of it."""
    context, where = saved.context, saved.loaded
    own = {**context.general, **context.system, **_stage2(stop, vm, context.control)}
    if where is None:
        return Guest(_as_stop(stop, stop.cpu, own), saved.how)
    own |= _live_system(where.cpu, context.system, saved.switched)
    if where.general:
        return Guest(where.cpu, f"live on CPU {where.cpu.cpu}", live=True)
    general = f"general-purpose registers {HOSTS_COPY if vm.protected else AT_LAST_EXIT}"
    text = f"EL1 registers live on CPU {where.cpu.cpu}, {general}"
    return Guest(_as_stop(where.cpu, where.cpu.cpu, own), text)


def _live_system(cpu: Stop, saved: Mapping[str, int], switched: Sequence[str]) -> dict[str, int]:
    """Return the saved system registers with those that the CPU holds for the guest as they are there."""
    live = {name: cpu.optional(name) for name in switched if name in saved}
    return {**saved, **{name: value for name, value in live.items() if value is not None}}


def _stage2(stop: Stop, vm: Vm, control: Mapping[str, int]) -> dict[str, int]:
    """Return the registers of EL2 as they are while the guest runs."""
    hcr = control.get("HCR_EL2")
    if hcr is None:
        hcr = (stop.optional("HCR_EL2") or 0) | _RW
    values = {**control, "HCR_EL2": hcr & ~TGE.in_place | VM.in_place, "VTTBR_EL2": int(vm.vttbr)}
    if vm.vtcr is not None:
        values["VTCR_EL2"] = int(vm.vtcr)
    return values


def _as_stop(stop: Stop, cpu: int, own: Mapping[str, int]) -> Stop:
    machine = Machine(
        _GuestRegisters(stop.machine.registers, own), stop.machine.memory, pstate_of(own.get("CPSR", 0))
    )
    return replace(stop, machine=machine, cpu=cpu, symbol=_no_symbol)


def _no_symbol(address: int, /) -> str | None:
    return None


def _only_seen(stop: Stop, vm: Vm, vcpu: Vcpu | None) -> Guest:
    """Return a guest of which no saved registers are known: the CPU that runs it, or its stage 2 alone."""
    for cpu in stop.cpus():
        if vcpu is not None and vcpu.cpu == cpu.cpu:
            return Guest(cpu, f"live on CPU {cpu.cpu}", live=True)
    return Guest(_as_stop(stop, stop.cpu, _stage2(stop, vm, {})), "not known: only its stage 2 is")


def behind(stop: Stop, stage2: HostStage2) -> Stop:
    """Return the CPU as it is with the host's own stage 2 in force."""
    hcr = (stop.optional("HCR_EL2") or 0) & ~TGE.in_place | VM.in_place
    values = {"HCR_EL2": hcr, "VTTBR_EL2": int(stage2.vttbr), "VTCR_EL2": int(stage2.vtcr)}
    return replace(stop, machine=with_registers(stop.machine, values))
