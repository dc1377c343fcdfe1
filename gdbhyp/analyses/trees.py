"""The trees of translation tables of a machine, and whose each is.

What is looked at are the registers of every CPU, and the VMs that ``find_vms`` knows. A tree that several CPUs use is
one; the two VA ranges of a regime are two, because each CPU has its own process and all have the same kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from gdbhyp.arch.regimes import Regime
from gdbhyp.arch.worlds import Hcr, vmid_of, world_below
from gdbhyp.engine.machine import Machine
from gdbhyp.engine.map import Budget, MappedRange, Problem, map_both, map_stage
from gdbhyp.engine.stop import Stop
from gdbhyp.engine.translate import explicit
from gdbhyp.engine.walk import setup
from gdbhyp.errors import GdbhypError
from gdbhyp.hypervisors.identify import identify
from gdbhyp.hypervisors.vms import VmSearch, find_vms

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
    """All trees that are known, the search for VMs that they come from, and what could not be looked at."""

    trees: tuple[Tree, ...]
    search: VmSearch
    problems: tuple[str, ...]


def trees_of(stop: Stop, *, guests: bool = False) -> Trees:
    """Return the trees of the machine that ``stop`` is a CPU of, ``guests`` with those of running guests' stage 1."""
    search = find_vms(stop)
    problems = list(search.problems)
    found: dict[tuple[object, ...], Tree] = {}
    cpus = stop.cpus()
    vhe = _is_vhe_host(cpus)
    for cpu in cpus:
        for tree in _possible(cpu, vhe, search, guests, problems):
            found.setdefault((tree.who, tree.vm, tree.key), tree)
    for vm in search.vms:
        if vm.vtcr is None:
            problems.append(f"VM {vm.vm}: its VTCR_EL2 is not known, so its stage 2 was not looked at")
            continue
        machine = explicit(stop.machine, Regime.EL10, vttbr=vm.vttbr, vtcr=vm.vtcr)
        tree = _stage2("vm", vm.vm, vm.vmid, stop.cpu, machine)
        found.setdefault((tree.who, tree.vm, tree.key), tree)
    return Trees(tuple(sorted(found.values(), key=_order)), search, tuple(problems))


def _order(tree: Tree) -> tuple[int, int, bool, bool, int]:
    """The hypervisor's, the host's, the VMs'; a VM's stage 2 first, the host's last."""
    rank = {"hypervisor": 0, "host": 1, "vm": 2}[tree.who]
    return rank, tree.vm or 0, (tree.stages == "2") != (tree.who == "vm"), not tree.upper, tree.cpu


def _is_vhe_host(cpus: Sequence[Stop]) -> bool:
    """Return whether EL2 is the host: it is on a CPU, or the vectors are those of a host that runs at EL2."""
    values = [cpu.optional("HCR_EL2") or 0 for cpu in cpus]
    if any(Hcr(value).el2_is_host for value in values):
        return True
    if not any(Hcr(value).e2h for value in values):
        return False
    return any(identify(cpu).name == "kvm-vhe" for cpu in cpus)


def _possible(cpu: Stop, vhe: bool, search: VmSearch, guests: bool, problems: list[str]) -> Iterator[Tree]:
    """Yield the trees of a CPU; what stands in the way goes to ``problems``."""
    try:
        yield from _of_cpu(cpu, vhe, search, guests)
    except GdbhypError as error:
        problems.append(f"CPU {cpu.cpu}: its translation tables were not looked at: {error}")


def _of_cpu(cpu: Stop, vhe: bool, search: VmSearch, guests: bool) -> Iterator[Tree]:
    hcr = Hcr(cpu.register("HCR_EL2"))
    yield from _stage1("host" if vhe else "hypervisor", None, cpu, Regime.EL20 if hcr.e2h else Regime.EL2)
    if hcr.tge:
        return
    vttbr, vtcr = cpu.register("VTTBR_EL2"), cpu.optional("VTCR_EL2") or 0
    world, _ = world_below(hcr, vttbr, vtcr)
    if world == "host":
        if hcr.stage2 and vttbr:
            yield _stage2("host", None, 0, cpu.cpu, cpu.machine)
        yield from _stage1("host", None, cpu, Regime.EL10)
    elif guests:
        number = next((vm.vm for vm in search.vms if vm.vttbr == vttbr), None)
        if number is not None:
            yield from _stage1("vm", number, cpu, Regime.EL10)


def _stage2(who: Who, vm: int | None, vmid: int | None, cpu: int, machine: Machine) -> Tree:
    params = setup(machine.registers.get, Regime.EL10, force_stage2=True).second
    same = params and replace(params, vttbr=0, vmid=0, vm=True)
    return Tree(who, vm, vmid, "2", Regime.EL10, None, cpu, machine, ("2", same))


def _stage1(who: Who, vm: int | None, cpu: Stop, regime: Regime) -> Iterator[Tree]:
    own = setup(cpu.machine.registers.get, regime)
    second = own.second if regime is Regime.EL10 and own.second and own.second.vm else None
    stages = "both" if second else "1"
    vmid = vmid_of(cpu.register("VTTBR_EL2"), cpu.optional("VTCR_EL2") or 0) if who == "vm" else None
    for upper in (True, False) if regime.has_unprivileged else (None,):
        first = replace(own.half(bool(upper)), ttbr=0, asid=None)
        if first.epd or (upper and not first.enabled):
            continue
        key = (stages, first, second and replace(second, vttbr=0, vmid=0))
        yield Tree(who, vm, vmid, stages, regime, upper, cpu.cpu, cpu.machine, key)
