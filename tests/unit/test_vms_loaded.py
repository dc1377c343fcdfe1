"""VMs as the registers of the CPUs alone show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gdbhyp.engine.machine import Machine
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import MemoryUnavailable
from gdbhyp.hypervisors.vms import find_vms

_VM, _RW, _TGE, _E2H = 1, 1 << 31, 1 << 27, 1 << 34
_EL0, _EL1, _EL2 = 0x0, 0x5, 0x9
_VTCR = 0x8002_3558


class NoMemory:
    def read(self, address: int, size: int, /) -> bytes:
        raise MemoryUnavailable("PA", address, size, "there is none")


def machine(*cpus: Mapping[str, int]) -> Stop:
    stops: list[Stop] = []

    def others(own: int) -> Sequence[Stop]:
        return [stop for stop in stops if stop.cpu != own]

    for number, registers in enumerate(cpus):
        stops.append(
            Stop(Machine(registers, NoMemory()), cpu=number, others=lambda own=number: others(own))  # type: ignore[misc]
        )
    return stops[0]


def cpu(vttbr: int, hcr: int = _VM | _RW, cpsr: int = _EL1, pc: int = 0) -> dict[str, int]:
    return {"VTTBR_EL2": vttbr, "VTCR_EL2": _VTCR, "HCR_EL2": hcr, "CPSR": cpsr, "PC": pc}


def test_cpus_come_in_order_from_whichever() -> None:
    first = machine(cpu(0), cpu(0), cpu(0))
    second = first.cpus()[1]
    assert [stop.cpu for stop in first.cpus()] == [0, 1, 2]
    assert [stop.cpu for stop in second.cpus()] == [0, 1, 2]


def test_none_is_loaded() -> None:
    assert find_vms(machine(cpu(0, hcr=_RW))).vms == ()


def test_a_host_behind_stage_2_is_no_vm() -> None:
    assert find_vms(machine(cpu(0x4000_0000))).vms == ()


def test_two_cpus_of_one_vm() -> None:
    root = 3 << 48 | 0x4000_0000
    (vm,) = find_vms(machine(cpu(root, pc=0x1000), cpu(root, pc=0x2000))).vms
    assert (vm.vmid, vm.vttbr, vm.how) == (3, root, "in VTTBR_EL2 of CPUs 0 and 1")
    assert [(v.pc, v.cpu) for v in vm.vcpus] == [(0x1000, 0), (0x2000, 1)]


def test_each_vm_once_by_vmid() -> None:
    found = find_vms(machine(cpu(5 << 48 | 0x5000_0000), cpu(2 << 48 | 0x4000_0000)))
    assert [(vm.vm, vm.vmid) for vm in found.vms] == [(0, 2), (1, 5)]


def test_a_vcpu_inside_the_hypervisor_has_no_pc() -> None:
    (vm,) = find_vms(machine(cpu(1 << 48 | 0x4000_0000, cpsr=_EL2, pc=0x9000))).vms
    assert vm.vcpus == ()


def test_a_vhe_host_leaves_its_last_guest() -> None:
    left = cpu(1 << 48 | 0x4000_0000, hcr=_RW | _TGE | _E2H, cpsr=_EL0)
    (vm,) = find_vms(machine(left)).vms
    assert "left there by its last run" in vm.how
    assert vm.vcpus == ()


def test_a_cpu_without_the_register_is_said() -> None:
    found = find_vms(machine(cpu(1 << 48 | 0x4000_0000), {}))
    assert [vm.vmid for vm in found.vms] == [1]
    assert "CPU 1 is left out: the target does not show VTTBR_EL2" in found.problems
