"""Rules about where translation tables are, how they are walked, and by which identifiers the TLB tells them apart."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from gdbhyp.analyses.audit.findings import Evidence, Finding, Rule, about_memory, about_registers
from gdbhyp.analyses.audit.world import (
    World,
    descriptor_evidence,
    is_memory,
    register_evidence,
)
from gdbhyp.analyses.reach import Indexed
from gdbhyp.analyses.trees import root_of
from gdbhyp.arch.fields import Bits, bit
from gdbhyp.arch.regimes import Regime
from gdbhyp.arch.worlds import Hcr, vmid_of
from gdbhyp.engine.census import Table
from gdbhyp.engine.ranges import difference, intersection, union
from gdbhyp.engine.stop import Stop
from gdbhyp.engine.walk import setup

_SHOWN = 8
_CNP = bit(0)
_WALKS = {
    False: ("IRGN0, ORGN0", Bits(9, 8), Bits(11, 10)),
    True: ("IRGN1, ORGN1", Bits(25, 24), Bits(27, 26)),
}
"""Cacheability of walks in VTCR_EL2 and TCR_EL2, by whether it is that of the upper range."""


def _table_evidence(each: Indexed, table: Table) -> Evidence:
    space = each.census.space
    text = f"level-{table.level} table at {space} {table.address:#x}, for {table.start:#x} on"
    return descriptor_evidence(
        each.tree, text, table.start, table.descriptor_address, table.descriptor, space
    )


def outside_memory(world: World) -> Iterator[Finding]:
    """Tables where the machine has no memory, or none that can be read."""
    for each in world.audited:
        if each.tree.stages == "both":
            continue
        unreadable = {table.address for table, _ in each.census.unreadable}
        bad = [
            table
            for table in each.census.tables
            if table.address in unreadable or (world.ram and difference(list(table.pieces), world.ram))
        ]
        if bad:
            yield about_memory(
                OUTSIDE.name,
                OUTSIDE.severity,
                f"{each.tree.label} has {len(bad)} table{'s' if len(bad) > 1 else ''} where there is no memory",
                union(piece for table in bad for piece in table.pieces),
                [_table_evidence(each, table) for table in bad[:_SHOWN]],
                vms=each.tree.vms,
            )


def two_levels(world: World) -> Iterator[Finding]:
    """One table used as tables of different levels, or by trees of different owners."""
    for each in world.audited:
        levels: dict[int, Table] = {}
        for table in each.census.tables:
            other = levels.setdefault(table.address, table)
            if other.level != table.level:
                yield about_memory(
                    TWO_LEVELS.name,
                    TWO_LEVELS.severity,
                    f"{each.tree.label} uses one table for level {other.level} and level {table.level}",
                    list(table.pieces),
                    [_table_evidence(each, one) for one in (other, table)],
                    vms=each.tree.vms,
                    explanation="a table that points to itself, to see the tables through it, does this on purpose",
                )
                break


def shared_tables(world: World) -> Iterator[Finding]:
    """Tables that two VMs, or a VM and somebody else, translate by."""
    for first, second in combinations(world.audited, 2):
        if first.tree.owner == second.tree.owner or "vm" not in (first.tree.who, second.tree.who):
            continue
        ranges = intersection(first.tables, second.tables)
        if ranges:
            at = ranges[0][0]
            yield about_memory(
                SHARED.name,
                SHARED.severity,
                f"{first.tree.label} and {second.tree.label} use the same tables",
                ranges,
                [
                    _table_evidence(each, table)
                    for each in (first, second)
                    for table in each.census.tables
                    if any(a <= at < b for a, b in table.pieces)
                ],
                vms=[*first.tree.vms, *second.tree.vms],
            )


def walk_cacheability(world: World) -> Iterator[Finding]:
    """The walk reads tables past the caches in which they were written."""
    written = union(
        r
        for each in (*world.el2, *world.host)
        for r in each.map.covered(lambda k: is_memory(k) and k.write and "Write-Back" in k.memory)
    )
    for each in (*world.el2, *world.host_stage2, *world.vms):
        tree = each.tree
        name = "VTCR_EL2" if tree.stages == "2" else "TCR_EL2"
        fields, inner, outer = _WALKS[bool(tree.upper)]
        value = tree.machine.registers.get(name) or 0
        if inner(value) and outer(value):
            continue
        ranges = intersection(each.tables, written)
        if ranges:
            cpu = next(cpu for cpu in world.cpus if cpu.cpu == tree.cpu)
            yield about_memory(
                WALK.name,
                WALK.severity,
                f"tables of {tree.label} are walked Non-cacheable ({name}.{fields}) and mapped Write-Back where "
                "they are written",
                ranges,
                [register_evidence(cpu, name), *world.evidence_at(world.el2, ranges[0][0])],
                vms=tree.vms,
                explanation="right where each change is cleaned to memory before it counts",
            )


def vmid_reused(world: World) -> Iterator[Finding]:
    """Two VMs with one VMID."""
    running = {root_of(vttbr): cpu for cpu, vttbr in world.guests()}
    for first, second in combinations(world.reach.trees.search.vms, 2):
        if first.vmid is None or first.vmid != second.vmid or root_of(first.vttbr) == root_of(second.vttbr):
            continue
        both = root_of(first.vttbr) in running and root_of(second.vttbr) in running
        yield about_registers(
            VMID.name,
            "high" if both else "low",
            f"VM {first.vm} and VM {second.vm} have VMID {first.vmid} and different stage-2 roots"
            + (", and both run now" if both else ""),
            [
                register_evidence(running[root_of(vm.vttbr)], "VTTBR_EL2")
                for vm in (first, second)
                if root_of(vm.vttbr) in running
            ],
            vms=[first.vm, second.vm],
            explanation=""
            if both
            else "a VM that has not run since VMIDs were given out anew keeps a stale one (KVM)",
        )


def common_not_private(world: World) -> Iterator[Finding]:
    """CPUs that promise the same tables by CnP, and have different ones."""
    for first, second in combinations(world.cpus, 2):
        for name, what in (*_stage1_pairs(first, second), *_stage2_pair(first, second)):
            yield about_registers(
                CNP.name,
                CNP.severity,
                f"CPU {first.cpu} and CPU {second.cpu} both set {name}.CnP, with {what} and different roots",
                [register_evidence(cpu, name) for cpu in (first, second)],
            )


def _stage1_pairs(first: Stop, second: Stop) -> Iterator[tuple[str, str]]:
    for name, upper in (("TTBR0_EL2", False), ("TTBR1_EL2", True)):
        one, other = first.optional(name), second.optional(name)
        if one is None or other is None or not (_CNP(one) and _CNP(other)):
            continue
        regimes = {
            Regime.EL20 if Hcr(c.optional("HCR_EL2") or 0).e2h else Regime.EL2 for c in (first, second)
        }
        if len(regimes) > 1 or (upper and Regime.EL2 in regimes):
            continue
        (regime,) = regimes
        halves = [setup(cpu.machine.registers.get, regime).half(upper) for cpu in (first, second)]
        if any(not half.enabled or half.epd for half in halves):
            continue
        if halves[0].asid == halves[1].asid and halves[0].base != halves[1].base:
            yield name, "the same ASID" if halves[0].asid is not None else "no ASID to tell them apart"


def _stage2_pair(first: Stop, second: Stop) -> Iterator[tuple[str, str]]:
    values = [cpu.optional("VTTBR_EL2") for cpu in (first, second)]
    hcrs = [Hcr(cpu.optional("HCR_EL2") or 0) for cpu in (first, second)]
    if None in values or not all(h.stage2 and not h.tge for h in hcrs):
        return
    one, other = (value or 0 for value in values)
    ids = [vmid_of(v, c.optional("VTCR_EL2")) for v, c in ((one, first), (other, second))]
    if _CNP(one) and _CNP(other) and ids[0] == ids[1] and root_of(one) != root_of(other):
        yield "VTTBR_EL2", f"VMID {ids[0]}"


OUTSIDE = Rule(
    "table-outside-memory",
    "medium",
    "translation tables that are no memory",
    "The walk reads a device, or takes an External abort.",
    "Arm ARM (DDI 0487), Translation process: External abort on a translation table walk",
    outside_memory,
)
TWO_LEVELS = Rule(
    "table-two-levels",
    "low",
    "one table at two levels",
    "Its descriptors are tables in one place and pages in the other: who can write one can make the other.",
    "Arm ARM (DDI 0487), Translation table descriptor formats",
    two_levels,
)
SHARED = Rule(
    "table-shared",
    "high",
    "tables in common",
    "What changes for one VM changes for the other one.",
    "Arm ARM (DDI 0487), Address translation: stage 2 is one tree a VM",
    shared_tables,
)
WALK = Rule(
    "walk-cacheability",
    "medium",
    "walks that do not see the caches",
    "The walk reads memory while the new descriptor is still in a cache: an old mapping, or garbage.",
    "Arm ARM (DDI 0487), IRGNn and ORGNn of VTCR_EL2 and TCR_EL2; Mismatched memory attributes",
    walk_cacheability,
)
VMID = Rule(
    "vmid-reused",
    "high",
    "one VMID for two VMs",
    "The TLB tells VMs apart by VMID alone: each runs with the other's translations.",
    "Arm ARM (DDI 0487), Translation Lookaside Buffers: VMID",
    vmid_reused,
)
CNP = Rule(
    "cnp-different-roots",
    "high",
    "CnP with different tables",
    "CPUs that set CnP may share TLB entries, so that one uses the other's translations.",
    "Arm ARM (DDI 0487), Translation Lookaside Buffers: Common not Private translations (FEAT_TTCNP)",
    common_not_private,
    lambda world: "" if len(world.cpus) > 1 else "there is one CPU",
)

RULES = (OUTSIDE, TWO_LEVELS, SHARED, WALK, VMID, CNP)
