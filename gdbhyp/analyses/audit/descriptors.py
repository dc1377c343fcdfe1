"""Rules about single descriptors: encodings and hints that do not mean what somebody meant."""

from __future__ import annotations

from collections.abc import Iterator

from gdbhyp.analyses.audit.findings import Finding, Rule, about_memory, about_registers
from gdbhyp.analyses.audit.world import World, descriptor_evidence, is_el2
from gdbhyp.analyses.reach import Indexed
from gdbhyp.arch import stage1, stage2
from gdbhyp.arch.granules import CONTIGUOUS_BITS
from gdbhyp.arch.permissions import EXECUTE, stage1_rights
from gdbhyp.arch.regimes import Regime
from gdbhyp.arch.stage1 import Stage1Params
from gdbhyp.arch.stage2 import Stage2Params
from gdbhyp.engine.census import Kind
from gdbhyp.engine.map import MappedRange
from gdbhyp.engine.ranges import Ranges, union
from gdbhyp.engine.walk import walker

_FORMATS = "Arm ARM (DDI 0487), Translation table descriptor formats"
_SHOWN = 8


def _first(each: Indexed) -> Stage1Params:
    return walker(each.tree.machine, each.tree.regime).first(1 << 55 if each.tree.upper else 0)


def _second(each: Indexed) -> Stage2Params:
    found = walker(each.tree.machine, each.tree.regime, force_stage2=True).second
    assert found is not None
    return found


def _about_kinds(
    rule: Rule, each: Indexed, kinds: list[Kind], words: str, explanation: str = ""
) -> Iterator[Finding]:
    if not kinds:
        return
    count = sum(kind.count for kind in kinds)
    space = each.census.space
    evidence = [
        descriptor_evidence(
            each.tree,
            f"{kind.descriptor:#x} at {space} {kind.address:#x}",
            kind.start,
            kind.address,
            kind.descriptor,
            space,
        )
        for kind in kinds[:_SHOWN]
    ]
    yield about_registers(
        rule.name,
        rule.severity,
        f"{each.tree.label} has {count} descriptor{'s' if count > 1 else ''} {words}",
        evidence,
        vms=each.tree.vms,
        explanation=explanation,
    )


def global_user_pages(world: World) -> Iterator[Finding]:
    """Pages of a process that match every ASID."""
    for each in world.audited:
        if each.tree.stages == "2" or each.tree.upper is not False or each.tree.who != "host":
            continue
        params = _first(each)

        def shared(kind: Kind, params: Stage1Params = params) -> bool:
            user = stage1_rights(params, kind.descriptor, kind.tables, params.space)[1]
            return bool(user.both) and not stage1.NG(kind.descriptor)

        kinds = [kind for kind in each.census.kinds if not kind.reserved and shared(kind)]
        words = f"for EL0 with nG = 0, on CPU {each.tree.cpu}: the TLB uses them for every other process too"
        yield from _about_kinds(GLOBAL, each, kinds, words)


def access_flag(world: World) -> Iterator[Finding]:
    """Mappings of EL2 that fault at the first access, because nobody sets the access flag."""
    for each in world.el2:
        if _first(each).ha:
            continue
        kinds = [k for k in each.census.kinds if not k.reserved and not stage1.AF(k.descriptor)]
        words = "with AF = 0 while TCR_EL2.HA = 0: an access of EL2 faults"
        yield from _about_kinds(ACCESS_FLAG, each, kinds, words)


def execute_never(world: World) -> Iterator[Finding]:
    """UXN where PXN was meant, in a regime of EL2 that no EL0 runs by (hVHE).

    What EL2 is meant to execute has to have PXN = 0 too. Where that has UXN = 0, as in the EL2 regime, UXN tells it
    from what is not; where all of it has UXN = 1, UXN is set as it should be and tells nothing.
    """
    for each in world.el2:
        if each.tree.who != "hypervisor" or each.tree.regime is not Regime.EL20:
            continue
        params = _first(each)

        def executed(kind: Kind, params: Stage1Params = params) -> bool:
            own = stage1_rights(params, kind.descriptor, kind.tables, params.space)[0]
            return bool(own.both & EXECUTE)

        kinds = [
            kind for kind in each.census.kinds if not kind.reserved and not params.pie and executed(kind)
        ]
        never = [kind for kind in kinds if stage1.UXN(kind.descriptor)]
        if len(never) < len(kinds):
            words = (
                "with UXN = 1 and PXN = 0: execute-never for an EL0 that is not there, and executable for EL2"
            )
            yield from _about_kinds(EXECUTE_NEVER, each, never, words, _HVHE)


_HVHE = "Linux did this to the read-only data of hVHE before 6.19; SCTLR_EL2.WXN covers what is writable"


def dirty_bit(world: World) -> Iterator[Finding]:
    """DBM where the processor does not update descriptors."""
    for each in world.audited:
        if each.tree.stages == "2":
            second = _second(each)
            off, dbm = not (second.ha and second.hd) and not second.s2pie, stage2.DBM
        elif is_el2(each.tree) and each.tree.who == "hypervisor":
            first = _first(each)
            off, dbm = not (first.ha and first.hd) and not first.pie, stage1.DBM
        else:
            # A Linux kernel keeps its own dirty state there, whether or not the processor helps.
            continue
        kinds = [k for k in each.census.kinds if off and not k.reserved and dbm(k.descriptor)]
        words = "with DBM = 1 while hardware management of dirty state is off: the bit does nothing"
        yield from _about_kinds(DIRTY_BIT, each, kinds, words)


def reserved_types(world: World) -> Iterator[Finding]:
    """Valid descriptors that are none of their level, or point beyond the output address size."""
    for each in world.audited:
        kinds = [kind for kind in each.census.kinds if kind.reserved]
        yield from _about_kinds(
            RESERVED, each, kinds, "whose type is reserved at their level: an access faults"
        )
        beyond = [problem for problem in each.map.problems if problem.kind == "address_size"]
        if beyond:
            evidence = [
                descriptor_evidence(
                    each.tree,
                    f"{p.start:#x} to {p.end:#x}: {p.text}",
                    p.start,
                    p.address,
                    p.descriptor,
                    p.address_space,
                )
                for p in beyond[:_SHOWN]
            ]
            yield about_registers(
                RESERVED.name,
                RESERVED.severity,
                f"{each.tree.label} has {len(beyond)} descriptor{'s' if len(beyond) > 1 else ''} with an address "
                "beyond the output address size: an access faults",
                evidence,
                vms=each.tree.vms,
            )


def reserved_attributes(world: World) -> Iterator[Finding]:
    """Memory types and shareabilities that are reserved."""

    def is_reserved(kind: MappedRange) -> bool:
        return bool(kind.page_size) and "reserved" in f"{kind.memory} {kind.shareability}"

    for each in world.audited:
        ranges = each.map.covered(is_reserved)
        if ranges:
            yield about_memory(
                ATTRIBUTES.name,
                ATTRIBUTES.severity,
                f"{each.tree.label} has mappings with a reserved memory type or shareability",
                ranges,
                world.evidence_at([each], ranges[0][0], is_reserved),
                vms=each.tree.vms,
            )


def contiguous(world: World) -> Iterator[Finding]:
    """Contiguous bits in runs that are not the same all through."""
    for each in world.audited:
        if each.tree.stages == "both":
            continue
        granule = (_second(each) if each.tree.stages == "2" else _first(each)).tgx
        broken: list[MappedRange] = []
        for found in each.map.ranges(lambda kind: kind.contiguous and kind.level is not None):
            assert found.level is not None
            run = found.page_size << CONTIGUOUS_BITS[granule, found.level]
            if found.constant or found.start % run or found.end % run or found.output % run:
                broken.append(found)
        if broken:
            ranges: Ranges = union((f.output, f.output + f.end - f.start) for f in broken)
            yield about_memory(
                CONTIGUOUS.name,
                CONTIGUOUS.severity,
                f"{each.tree.label} sets the contiguous bit in {len(broken)} run{'s' if len(broken) > 1 else ''} that "
                "are not whole, aligned and uniform",
                ranges,
                [world.evidence(each.tree, found) for found in broken[:_SHOWN]],
                vms=each.tree.vms,
            )


GLOBAL = Rule(
    "global-user-pages",
    "medium",
    "a process's pages in every process's TLB",
    "A TLB entry with nG = 0 matches any ASID, so that another process reaches the page.",
    "Arm ARM (DDI 0487), Translation Lookaside Buffers: global and non-global entries",
    global_user_pages,
)
ACCESS_FLAG = Rule(
    "hyp-access-flag",
    "low",
    "mappings of EL2 without the access flag",
    "EL2 takes a fault at an address that it means to have mapped.",
    "Arm ARM (DDI 0487), Hardware updates to the translation tables: access flag",
    access_flag,
)
EXECUTE_NEVER = Rule(
    "hyp-execute-never",
    "medium",
    "execute-never that is not for EL2",
    "With HCR_EL2.E2H = 1 bit 54 is UXN and bit 53 PXN: data that has bit 54 alone is code for EL2.",
    "Arm ARM (DDI 0487), Translation table descriptor formats: XN, UXN and PXN",
    execute_never,
)
DIRTY_BIT = Rule(
    "dirty-bit",
    "low",
    "DBM without hardware management",
    "A writable-clean page is read-only when the processor does not update descriptors.",
    "Arm ARM (DDI 0487), Hardware updates to the translation tables: dirty state",
    dirty_bit,
)
RESERVED = Rule(
    "reserved-descriptor",
    "low",
    "descriptors that the architecture does not have",
    "Valid, and not what the level allows: damaged, or of another format.",
    _FORMATS,
    reserved_types,
)
ATTRIBUTES = Rule(
    "reserved-attribute",
    "medium",
    "reserved memory types",
    "What a reserved encoding does is UNPREDICTABLE or differs between processors.",
    "Arm ARM (DDI 0487), MAIR_ELx; Memory region attributes",
    reserved_attributes,
)
CONTIGUOUS = Rule(
    "contiguous-not-uniform",
    "medium",
    "the contiguous bit on what is not contiguous",
    "The TLB may keep the whole run as one entry, and give some of its addresses another one's mapping.",
    "Arm ARM (DDI 0487), the Contiguous bit of translation table descriptors",
    contiguous,
)

RULES = (GLOBAL, ACCESS_FLAG, EXECUTE_NEVER, DIRTY_BIT, RESERVED, ATTRIBUTES, CONTIGUOUS)
