"""The trees of translation tables of a machine, and whose each is.

What is looked at are the registers of every CPU, and the VMs that ``find_vms`` knows. A tree that several CPUs use is
one; the two VA ranges of a regime are two, because each CPU has its own process and all have the same kernel.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, cast

from gdbhyp.analyses.walk import features_sentence, machine_for
from gdbhyp.analyses.world import at_exception_entry, interrupted_world
from gdbhyp.arch.controls import FWB
from gdbhyp.arch.features import features
from gdbhyp.arch.regimes import Regime
from gdbhyp.arch.worlds import Hcr, World, vmid_of, world_below
from gdbhyp.engine.machine import Machine, Registers
from gdbhyp.engine.map import Budget, MappedRange, Problem, map_both, map_stage
from gdbhyp.engine.stop import Stop
from gdbhyp.engine.translate import explicit, registers_needed, undecided, with_registers
from gdbhyp.engine.walk import setup
from gdbhyp.errors import GdbhypError, RegisterUnavailable
from gdbhyp.hypervisors.guest import behind, guest
from gdbhyp.hypervisors.identify import Identity, identify
from gdbhyp.hypervisors.vms import HostStage2, Vcpu, Vm, VmSearch, find_vms

Who = Literal["hypervisor", "host", "vm"]
_UPPER = 1 << 63
MOST_TABLES = 1 << 22
"""What one tree may have: enough for 8 TiB of 4 KiB pages; tables that point to themselves would unfold into more."""


@dataclass(frozen=True)
class Tree:
    """One tree of tables: what the hypervisor, the host or a VM translates by.

    ``stages`` is "1" or "2", or "both" for a stage 1 that a stage 2 follows; ``upper`` says which VA range it is, None
    where there is one. ``machine`` has the registers that lead to it, taken from CPU number ``cpu``. ``key`` is equal
    for trees that are the same.
    """

    who: Who
    vm: int | None
    vmid: int | None
    stages: str
    regime: Regime
    upper: bool | None
    cpu: int
    machine: Machine = field(repr=False, compare=False)
    key: tuple[object, ...] = field(repr=False)

    @property
    def owner(self) -> str:
        """Whose it is: "hypervisor", "host", "VM 3"."""
        return f"VM {self.vm}" if self.who == "vm" else self.who

    @property
    def vms(self) -> tuple[int, ...]:
        """The VM that it belongs to, or none."""
        return () if self.vm is None else (self.vm,)

    @property
    def label(self) -> str:
        """The tree in words: "host stage 1 (TTBR1_EL1)", "VM 3 stage 2"."""
        if self.stages == "2":
            return f"{self.owner} stage 2"
        which = "" if self.upper is None else f" ({self.root})"
        return f"{self.owner} stage 1{which}"

    @property
    def root(self) -> str:
        """The register that the tree hangs on."""
        if self.stages == "2":
            return "VTTBR_EL2"
        suffix = "EL1" if self.regime is Regime.EL10 else "EL2"
        return f"TTBR{int(bool(self.upper))}_{suffix}"

    @property
    def limits(self) -> tuple[int | None, int | None]:
        """The input addresses that are this tree's."""
        if self.upper is None:
            return None, None
        return (_UPPER, None) if self.upper else (None, _UPPER)

    def ranges(self) -> Iterator[MappedRange | Problem]:
        """Yield what it maps to physical addresses, as ``map_stage`` does.

        :raises Unsupported: if a feature is in use that is not modelled.
        """
        start, end = self.limits
        budget = Budget(MOST_TABLES)
        if self.stages == "both":
            return map_both(self.machine, start=start, end=end, budget=budget)
        return map_stage(self.machine, self.regime, int(self.stages), start=start, end=end, budget=budget)


@dataclass(frozen=True)
class Trees:
    """All trees that are known, the hypervisor and the search for VMs that they come from, and what is missing."""

    trees: tuple[Tree, ...]
    hypervisor: Identity
    search: VmSearch
    problems: tuple[str, ...]


def trees_of(stop: Stop, *, guests: bool = False) -> Trees:
    """Return the trees of the machine that ``stop`` is a CPU of, ``guests`` with those of running guests' stage 1."""
    search = find_vms(stop)
    problems = list(search.problems)
    found: dict[tuple[object, ...], Tree] = {}
    cpus = stop.cpus()
    hypervisor = _identity(stop, cpus)
    vhe = hypervisor.name == "kvm-vhe" or any(_hcr(cpu).el2_is_host for cpu in cpus)
    numbers = {root_of(vm.vttbr): vm.vm for vm in search.vms} if guests else {}
    for cpu in cpus:
        for tree in _possible(cpu, hypervisor, vhe, numbers, problems):
            found.setdefault((tree.who, tree.vm, tree.key), tree)
    for vm in search.vms:
        if vm.vtcr is None:
            problems.append(f"VM {vm.vm}: its VTCR_EL2 is not known, so its stage 2 was not looked at")
            continue
        tree = _stage2("vm", vm.vm, vm.vmid, stop.cpu, stage2_machine(cpus, stop, vm, hypervisor))
        found.setdefault((tree.who, tree.vm, tree.key), tree)
        for tree in _guests(stop, vm, problems) if guests else ():
            found.setdefault((tree.who, tree.vm, tree.key), tree)
    host2 = search.host_stage2
    if host2 is not None and not any(tree.who == "host" and tree.stages == "2" for tree in found.values()):
        tree = _host_stage2(stop, host2)
        found[tree.who, tree.vm, tree.key] = tree
    if hypervisor.name in _KVM and not any(
        tree.who == "host" and tree.stages != "2" for tree in found.values()
    ):
        problems.append("no CPU is in the host now, so that its own tables are not known")
    problems += _assumptions(cpus, stop, found.values(), search.vms, hypervisor)
    return Trees(tuple(sorted(found.values(), key=_order)), hypervisor, search, tuple(problems))


def _order(tree: Tree) -> tuple[int, int, bool, bool, int]:
    """The hypervisor's, the host's, the VMs'; a VM's stage 2 first, the host's last."""
    rank = {"hypervisor": 0, "host": 1, "vm": 2}[tree.who]
    return rank, tree.vm or 0, (tree.stages == "2") != (tree.who == "vm"), not tree.upper, tree.cpu


def _identity(stop: Stop, cpus: Sequence[Stop]) -> Identity:
    """Return which hypervisor it is, by the first CPU that says so: looked at once a stop."""
    key = "hypervisor", *((cpu.optional("HCR_EL2"), cpu.optional("VBAR_EL2")) for cpu in cpus)
    known = stop.memo.get(key)
    if known is None:
        found = [identify(cpu) for cpu in cpus]
        known = stop.memo[key] = next((each for each in found if each.name != "unknown"), found[0])
    return cast(Identity, known)


def _hcr(cpu: Stop) -> Hcr:
    return Hcr(cpu.optional("HCR_EL2") or 0)


def stage2_machine(cpus: Sequence[Stop], stop: Stop, vm: Vm, hypervisor: Identity) -> Machine:
    """Return the registers with which a VM's stage 2 is walked.

    HCR_EL2.FWB decides what its memory types mean. Where no CPU runs the VM now, it is as the VM's vCPU has saved it,
    or else what KVM sets for every VM: on, where the processor has it.
    """
    own = _with_own_control(cpus, stop, vm)
    machine = explicit(own or stop.machine, Regime.EL10, vttbr=vm.vttbr, vtcr=vm.vtcr or 0)
    if own is None and hypervisor.name in _KVM and features(machine.registers.get).s2fwb:
        hcr_value = machine.registers.get("HCR_EL2") or 0
        return with_registers(machine, {"HCR_EL2": hcr_value | FWB.in_place})
    return machine


def _with_own_control(cpus: Sequence[Stop], stop: Stop, vm: Vm) -> Machine | None:
    """Return registers of which HCR_EL2 is the VM's: of a CPU that has it loaded, or of a vCPU as it was saved."""
    for cpu in cpus:
        hcr = _hcr(cpu)
        if hcr.stage2 and not hcr.tge and root_of(cpu.optional("VTTBR_EL2") or 0) == root_of(vm.vttbr):
            return cpu.machine
    if any(vcpu.object is not None for vcpu in vm.vcpus):
        with contextlib.suppress(GdbhypError):
            return guest(stop, vm).stop.machine
    return None


def _assumptions(
    cpus: Sequence[Stop], stop: Stop, found: Iterable[Tree], vms: Sequence[Vm], hypervisor: Identity
) -> Iterator[str]:
    """Yield in sentences what was assumed of the processor for the trees that were found."""
    names = {name for tree in found for name in undecided(tree.machine.registers, partial(_parameters, tree))}
    sentence = features_sentence(sorted(names))
    if sentence:
        yield sentence
    if hypervisor.name not in _KVM or not stop.machine.missing(["ID_AA64MMFR2_EL1"]):
        return
    taken = [f"{vm.vm}" for vm in vms if vm.vtcr is not None and _with_own_control(cpus, stop, vm) is None]
    if taken:
        yield (
            f"VM {', '.join(taken)}: HCR_EL2.FWB was taken to be 1, as KVM sets it where it is there: what the "
            "memory types of stage 2 mean depends on it"
        )


def _parameters(tree: Tree, registers: Registers) -> object:
    return setup(registers.get, tree.regime, tree.stages == "2").parameters(tree.stages)


def _host_stage2(stop: Stop, found: HostStage2) -> Tree:
    """Return the stage 2 of a host that no CPU has loaded; pKVM does not use FWB for it (KVM_PGTABLE_S2_NOFWB)."""
    machine = behind(stop, found).machine
    hcr = machine.registers.get("HCR_EL2") or 0
    return _stage2("host", None, 0, stop.cpu, with_registers(machine, {"HCR_EL2": hcr & ~FWB.in_place}))


_KVM = ("kvm-nvhe", "kvm-vhe", "kvm-hvhe", "pkvm")


def _possible(
    cpu: Stop, hypervisor: Identity, vhe: bool, numbers: Mapping[int, int], problems: list[str]
) -> Iterator[Tree]:
    """Yield the trees of a CPU; what stands in the way goes to ``problems``."""
    try:
        for trees in _of_cpu(cpu, hypervisor, vhe, numbers):
            yield from _known(cpu, trees, problems)
    except GdbhypError as error:
        problems.append(f"CPU {cpu.cpu}: its translation tables were not looked at: {error}")


def _known(cpu: Stop, trees: Iterator[Tree], problems: list[str]) -> Iterator[Tree]:
    """Yield trees that the registers lead to; what one tree lacks, another one may not need."""
    try:
        yield from trees
    except GdbhypError as error:
        problems.append(f"CPU {cpu.cpu}: a tree of its translation tables was not looked at: {error}")


def _of_cpu(
    cpu: Stop, hypervisor: Identity, vhe: bool, numbers: Mapping[int, int]
) -> Iterator[Iterator[Tree]]:
    """Yield what a CPU's registers lead to; ``numbers`` are the VMs whose stage 1 is wanted, by root."""
    hcr = Hcr(cpu.register("HCR_EL2"))
    yield _stage1("host" if vhe else "hypervisor", None, cpu, Regime.EL20 if hcr.e2h else Regime.EL2)
    if hcr.tge:
        return
    vttbr = cpu.register("VTTBR_EL2")
    world, between = world_of_el1(cpu)
    if world == "host":
        # Xen has no host: with VMID 0, nobody runs below it.
        if hypervisor.name == "xen":
            return
        if not between:
            yield _stage1("host", None, cpu, Regime.EL10)
        if hcr.stage2 and vttbr:
            yield _stage2_in_force("host", cpu)
    elif root_of(vttbr) in numbers and not between:
        yield _stage1("vm", numbers[root_of(vttbr)], cpu, Regime.EL10)


def _stage2_in_force(who: Who, cpu: Stop) -> Iterator[Tree]:
    yield _stage2(who, None, 0, cpu.cpu, cpu.machine)


def _guests(stop: Stop, vm: Vm, problems: list[str]) -> Iterator[Tree]:
    """Yield stage 1 of a VM's vCPUs, by the registers of the CPU that has them, or as they were saved."""
    for vcpu in vm.vcpus:
        yield from _guest(stop, vm, vcpu, problems)


def _guest(stop: Stop, vm: Vm, vcpu: Vcpu, problems: list[str]) -> Iterator[Tree]:
    try:
        yield from _stage1("vm", vm.vm, guest(stop, vm, vcpu).stop, Regime.EL10)
    except GdbhypError as error:
        problems.append(f"VM {vm.vm}, vCPU {vcpu.vcpu}: its stage 1 was not looked at: {error}")


def root_of(vttbr: int) -> int:
    """Return VTTBR_EL2.BADDR [47:1] in place: what is left without the VMID and CnP."""
    return vttbr & (1 << 48) - 2


def world_of_el1(cpu: Stop) -> tuple[World, bool]:
    """Return whose world is loaded for EL1, and whether the CPU is at EL2 between two worlds.

    Between them, registers of EL1 may still be one's while HCR_EL2 and VTTBR_EL2 are the other's already. Where an
    exception has just entered EL2, all of them are still those of whom it interrupted.
    """
    hcr = Hcr(cpu.register("HCR_EL2"))
    world, _ = world_below(hcr, cpu.register("VTTBR_EL2"), cpu.optional("VTCR_EL2"))
    if cpu.optional("CPSR") is None or cpu.el < 2:
        return world, False
    entered = cpu.optional("PC") is not None and at_exception_entry(cpu) and interrupted_world(cpu) == world
    return world, not entered


def _stage2(who: Who, vm: int | None, vmid: int | None, cpu: int, machine: Machine) -> Tree:
    machine_for(machine, Regime.EL10, "2")
    params = setup(machine.registers.get, Regime.EL10, force_stage2=True).second
    same = params and replace(params, vttbr=0, vmid=0, vm=True)
    return Tree(who, vm, vmid, "2", Regime.EL10, None, cpu, machine, ("2", same))


def _stage1(who: Who, vm: int | None, cpu: Stop, regime: Regime) -> Iterator[Tree]:
    own = setup(cpu.machine.registers.get, regime)
    second = own.second if regime is Regime.EL10 and own.second and own.second.vm else None
    stages = "both" if second else "1"
    vmid = vmid_of(cpu.register("VTTBR_EL2"), cpu.optional("VTCR_EL2")) if who == "vm" else None
    lacking: str | None = None
    for upper in (True, False) if regime.has_unprivileged else (None,):
        first = replace(own.half(bool(upper)), ttbr=0, asid=None)
        if first.epd:
            continue
        missing = _lacking(cpu, regime, stages, upper)
        if missing:
            lacking = lacking or missing
            continue
        if upper and not first.enabled:
            continue
        key = (stages, first, second and replace(second, vttbr=0, vmid=0))
        yield Tree(who, vm, vmid, stages, regime, upper, cpu.cpu, cpu.machine, key)
    if lacking:
        raise RegisterUnavailable(lacking, "without it, a walk would be a guess")


def _lacking(cpu: Stop, regime: Regime, stages: str, upper: bool | None) -> str | None:
    """Return a register that is not shown and that this range is translated by."""
    return next(iter(cpu.machine.missing(registers_needed(regime, stages, upper=upper))), None)
