"""Rules about who reaches whose memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from gdbhyp.analyses.audit.findings import Evidence, Finding, Rule, about_memory
from gdbhyp.analyses.audit.world import World, is_memory, register_evidence, tables_of, writable
from gdbhyp.analyses.reach import Indexed
from gdbhyp.arch.fields import Bits
from gdbhyp.engine.map import MappedRange
from gdbhyp.engine.ranges import Ranges, difference, intersection, union
from gdbhyp.engine.translate import translate

_ISOLATION = (
    "Arm ARM (DDI 0487), Address translation: stage 2 alone decides which physical memory a VM reaches"
)


def _writes(kind: MappedRange) -> bool:
    return is_memory(kind) and writable(kind)


def _needs_vm(world: World) -> str:
    return "" if world.vms else "no VM is known"


def _needs_two_vms(world: World) -> str:
    return "" if len({e.tree.vm for e in world.vms}) > 1 else "fewer than two VMs are known"


def _needs_host_stage2(world: World) -> str:
    if world.host_stage2:
        return ""
    if world.reach.trees.hypervisor.protected:
        return "the stage 2 that the host is behind is loaded on no CPU now"
    return "there is no host behind a stage 2 of its own (pKVM)"


def _number(each: Indexed) -> int:
    assert each.tree.vm is not None
    return each.tree.vm


def _by_writing(ranges: Ranges, trees: Sequence[Indexed]) -> Iterator[tuple[bool, Ranges]]:
    """Split ranges into those that any of the trees may write, and the others."""
    may_write = union(r for each in trees for r in each.map.covered(_writes))
    yield True, intersection(ranges, may_write)
    yield False, difference(ranges, may_write)


def vm_shared_memory(world: World) -> Iterator[Finding]:
    """Two VMs' stage 2 lead to the same memory."""
    for first, second in combinations(world.vms, 2):
        if first.tree.vm == second.tree.vm:
            continue
        both = intersection(first.map.covered(is_memory), second.map.covered(is_memory))
        for written, ranges in _by_writing(world.in_memory(both), (first, second)):
            if ranges:
                yield _shared(world, (first, second), ranges, written)


def _shared(world: World, pair: tuple[Indexed, Indexed], ranges: Ranges, written: bool) -> Finding:
    names = " and ".join(each.tree.owner for each in pair)
    how = "at least one of them may write to it" if written else "neither may write to it"
    return about_memory(
        "vm-shared-memory",
        "high" if written else "low",
        f"{names} reach the same memory; {how}",
        ranges,
        world.evidence_at(pair, ranges[0][0], is_memory),
        vms=[_number(each) for each in pair],
        explanation="right for memory that the VMs are meant to share"
        if written
        else "Linux gives every VM its one page of zeros, and pages that KSM merged, to read",
    )


def vm_reaches_hypervisor(world: World) -> Iterator[Finding]:
    """A VM's stage 2 leads to the hypervisor's own memory; tables are a rule of their own."""
    own = difference(world.mapped_by_el2, _all_tables(world))
    for each in world.vms:
        for written, ranges in _by_writing(intersection(each.map.covered(is_memory), own), [each]):
            if not ranges:
                continue
            what = "memory" + (", text among it" if intersection(ranges, world.text) else "")
            yield about_memory(
                "vm-reaches-hypervisor",
                "critical" if written else "high",
                f"{each.tree.owner} may {'write' if written else 'read'} the hypervisor's own {what} "
                f"(compared with {world.owns()})",
                ranges,
                [
                    *world.evidence_at([each], ranges[0][0], is_memory),
                    *world.evidence_at(world.el2, ranges[0][0], is_memory, each=2),
                ],
                vms=[_number(each)],
                explanation="" if written or not _kernel_is_el2(world) else _ZERO_PAGE,
            )


_ZERO_PAGE = "a VHE host's page of zeros is part of the kernel's image, and any VM may get it to read"


def _kernel_is_el2(world: World) -> bool:
    return any(each.tree.who == "host" for each in world.el2)


def _all_tables(world: World) -> Ranges:
    return tables_of(
        [each for each in world.reach.indexed if each.tree.who != "vm" or each.tree.stages == "2"]
    )


def vm_reaches_tables(world: World) -> Iterator[Finding]:
    """A VM's stage 2 leads to translation tables: of EL2, of the host, of itself or of another VM."""
    owners = [each for each in world.reach.indexed if each.tree.stages != "both" or each.tree.who != "vm"]
    for each in world.vms:
        reached = each.map.covered(is_memory)
        for other in owners:
            for written, ranges in _by_writing(intersection(reached, other.tables), [each]):
                if ranges:
                    yield _tables_reached(world, each, other, ranges, written)


def _tables_reached(world: World, vm: Indexed, other: Indexed, ranges: Ranges, written: bool) -> Finding:
    whose = "its own stage 2" if vm is other else other.tree.label
    first = ranges[0][0]
    table = next(t for t in other.census.tables if any(a <= first < b for a, b in t.pieces))
    return about_memory(
        "vm-reaches-tables",
        "critical" if written else "high",
        f"{vm.tree.owner} may {'write' if written else 'read'} translation tables "
        f"of {whose}, the first at PA {first:#x} (level {table.level})",
        ranges,
        world.evidence_at([vm], first, is_memory),
        vms=sorted({_number(vm)} | ({_number(other)} if other.tree.who == "vm" else set())),
    )


_PAGE_STATE = Bits(56, 55)
"""Software bits of a leaf of pKVM's stage 1 at EL2 (Linux, arch/arm64/kvm/hyp/include/nvhe/mem_protect.h, ``enum
pkvm_page_state``): 0 is owned, other states are shared with the host."""

_MOST_PAGES = 1 << 16


def host_reaches_hypervisor(world: World) -> Iterator[Finding]:
    """The stage 2 that a host is behind leads to what the hypervisor keeps for itself."""
    own = union([*_kept(world), *world.el2_tables, *tables_of(world.host_stage2)])
    for each in world.host_stage2:
        for written, ranges in _by_writing(intersection(each.map.covered(is_memory), own), [each]):
            if ranges:
                yield about_memory(
                    "host-reaches-hypervisor",
                    "critical" if written else "high",
                    f"the host may {'write' if written else 'read'} memory that the "
                    "hypervisor has not shared with it (compared with what EL2 maps without pKVM's mark for shared "
                    "pages, EL2's tables and the host's own stage-2 tables)",
                    ranges,
                    [
                        *world.evidence_at([each], ranges[0][0], is_memory),
                        *world.evidence_at(world.el2, ranges[0][0], is_memory),
                        *_stacks(world, ranges),
                    ],
                )


def _stacks(world: World, ranges: Ranges) -> Iterator[Evidence]:
    """Yield the CPUs whose stack of EL2 is there."""
    for cpu in world.cpus:
        sp = cpu.optional("SP_EL2")
        if not sp:
            continue
        for each in world.el2:
            if each.tree.upper is not None and each.tree.upper is not bool(sp >> 55 & 1):
                continue
            pa = translate(each.tree.machine, sp - 1, each.tree.regime, stages="1").output
            if pa is not None and intersection(ranges, [(pa, pa + 1)]):
                yield register_evidence(cpu, "SP_EL2", f"PA {pa + 1:#x}: this is a stack of EL2")


def _kept(world: World) -> Ranges:
    """Return what EL2 maps and does not mark as shared with the host, looking at each page that both map."""
    reached = union(r for each in world.host_stage2 for r in each.map.covered(is_memory))
    found: Ranges = []
    for start, end in intersection(world.mapped_by_el2, reached):
        for each in world.el2:
            for hit in each.map.find(start, end):
                found += _unshared(world, each, hit)
    return union(found)


def _unshared(world: World, each: Indexed, hit: MappedRange) -> Iterator[tuple[int, int]]:
    if not is_memory(hit):
        return
    step = hit.page_size
    for at in range(hit.start, hit.end, step)[:_MOST_PAGES]:
        steps = translate(each.tree.machine, at, each.tree.regime, stages="1").steps
        if steps and not _PAGE_STATE(steps[-1].descriptor):
            output = hit.output + (0 if hit.constant else at - hit.start)
            yield output, output + min(step, hit.end - at)


def host_reaches_guest(world: World) -> Iterator[Finding]:
    """The stage 2 that a host is behind leads to a VM's memory."""
    reached = union(r for each in world.host_stage2 for r in each.map.covered(is_memory))
    for each in world.vms:
        ranges = world.in_memory(intersection(each.map.covered(is_memory), reached))
        protected = world.vm(_number(each)).protected
        if ranges and protected is not False:
            yield about_memory(
                "host-reaches-guest",
                "critical" if protected else "note",
                f"the host reaches memory of {each.tree.owner}"
                + (", which is protected," if protected else "")
                + " through its own stage 2",
                ranges,
                world.evidence_at([*world.host_stage2, each], ranges[0][0], is_memory),
                vms=[_number(each)],
                explanation=""
                if protected
                else "right for a VM that is not protected; whether this one is, is not known",
            )


RULES = (
    Rule(
        "vm-shared-memory",
        "high",
        "memory that two VMs reach",
        "What one VM writes, the other reads: a channel between VMs, or a way into the other one.",
        _ISOLATION,
        vm_shared_memory,
        _needs_two_vms,
    ),
    Rule(
        "vm-reaches-hypervisor",
        "critical",
        "a VM that reaches the hypervisor's own memory",
        "A guest that writes the hypervisor's memory controls EL2, one that reads it learns its secrets.",
        _ISOLATION,
        vm_reaches_hypervisor,
        _needs_vm,
    ),
    Rule(
        "vm-reaches-tables",
        "critical",
        "a VM that reaches translation tables",
        "A guest that writes a descriptor of stage 2 or of EL2 gives itself any memory.",
        _ISOLATION,
        vm_reaches_tables,
        _needs_vm,
    ),
    Rule(
        "host-reaches-hypervisor",
        "critical",
        "a host behind stage 2 that reaches the hypervisor's memory",
        "pKVM takes its own memory away from the host, so that a host that is broken into does not break EL2.",
        _ISOLATION,
        host_reaches_hypervisor,
        _needs_host_stage2,
    ),
    Rule(
        "host-reaches-guest",
        "critical",
        "a host behind stage 2 that reaches a VM's memory",
        "The memory of a protected VM must not be the host's too, but for what the VM shares itself.",
        _ISOLATION,
        host_reaches_guest,
        _needs_host_stage2,
    ),
)
