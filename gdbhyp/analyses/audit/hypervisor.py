"""Rules about the memory that EL2 itself runs in. Rights are as the walk gives them: after WXN, PAN and overlays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gdbhyp.analyses.audit.findings import Finding, Rule, Severity, about_memory, about_registers
from gdbhyp.analyses.audit.world import (
    Wanted,
    World,
    is_device,
    is_memory,
    is_process,
    register_evidence,
    say_unknown,
)
from gdbhyp.analyses.reach import Indexed
from gdbhyp.arch.regimes import Regime
from gdbhyp.engine.map import MappedRange
from gdbhyp.engine.ranges import Range, Ranges, difference, intersection, union

_PERMISSIONS = "Arm ARM (DDI 0487), Memory access control"


def _needs_el2(world: World) -> str:
    return "" if world.el2 else "the translation tables of EL2 are not known"


def _with_el0(world: World) -> list[Indexed]:
    """The trees of EL2&0 that EL0 runs by too: those of a VHE host.

    Without TGE, EL0 is in the EL1&0 regime, and what EL2&0 gives it (hVHE) is nobody's.
    """
    return [e for e in world.reach.indexed if e.tree.regime is Regime.EL20 and e.tree.who == "host"]


def _needs_el0(world: World) -> str:
    return "" if _with_el0(world) else "EL0 does not run by the tables of EL2: there is no VHE host"


def _writes_and_executes(kind: MappedRange) -> bool:
    return bool(kind.page_size) and kind.write and kind.execute


def translation_off(world: World) -> Iterator[Finding]:
    """SCTLR_EL2.M is 0: there is nothing that the other rules could judge."""
    for cpu in world.cpus:
        sctlr = cpu.optional("SCTLR_EL2")
        if sctlr is not None and not sctlr & 1:
            yield about_registers(
                "hyp-translation-off",
                "medium",
                f"CPU {cpu.cpu}: EL2 runs without translation, so that nothing is read-only or not executable for it",
                [register_evidence(cpu, "SCTLR_EL2", "M = 0")],
                explanation="right before EL2 is set up, and where nothing uses EL2",
            )
    say_unknown(world.not_shown("SCTLR_EL2"))


def _covered(
    world: World,
    each: Indexed,
    rule: str,
    severity: Severity,
    words: str,
    wanted: Wanted,
    *,
    but: Sequence[Range] = (),
    explanation: str = "",
) -> Iterator[Finding]:
    """Yield the finding about all that a tree maps in the ``wanted`` way outside the ranges ``but``, if it does."""
    ranges = difference(each.map.covered(wanted), but)
    if ranges:
        yield about_memory(
            rule,
            severity,
            f"{each.tree.label} {words}",
            ranges,
            world.evidence_at([each], ranges[0][0], wanted),
            vms=each.tree.vms,
            explanation=explanation,
        )


def writable_executable(world: World) -> Iterator[Finding]:
    """EL2 may write and execute the same mapping."""
    for each in world.el2:
        words = "maps memory writable and executable for EL2"
        yield from _covered(world, each, "hyp-writable-executable", "high", words, _writes_and_executes)


def writable_text(world: World) -> Iterator[Finding]:
    """EL2 may execute a page by one mapping and write it by another."""
    executed = union(r for e in world.el2 for r in e.map.covered(lambda k: bool(k.page_size) and k.execute))
    both = union(r for e in world.el2 for r in e.map.covered(_writes_and_executes))
    direct = _written_directly(world)
    for each in world.el2:
        written = each.map.covered(lambda k: bool(k.page_size) and k.write)
        ranges = difference(intersection(executed, written), both)
        for through_direct in (False, True):
            part = intersection(ranges, direct) if through_direct else difference(ranges, direct)
            if part:
                yield _text_written(world, each, part, through_direct)


def _written_directly(world: World) -> Ranges:
    """Return what EL2 may write through a direct map and through no other mapping."""
    direct: list[tuple[int, int]] = []
    otherwise: list[tuple[int, int]] = []
    for each in world.el2:
        for distance, ranges in each.map.offsets(lambda k: is_memory(k) and k.write).items():
            (direct if distance in world.direct_maps[each.tree.key] else otherwise).extend(ranges)
    return difference(union(direct), union(otherwise))


def _text_written(world: World, each: Indexed, ranges: Ranges, direct: bool) -> Finding:
    first = ranges[0][0]
    return about_memory(
        "hyp-text-writable",
        "low" if direct else "high",
        f"EL2 executes pages that {each.tree.label} also maps writable"
        + (", in its direct map of all memory" if direct else ""),
        ranges,
        [
            *world.evidence_at(world.el2, first, lambda k: k.execute),
            *world.evidence_at([each], first, lambda k: k.write),
        ],
        explanation="Xen's direct map covers its own text; a Linux kernel makes this alias read-only"
        if direct
        else "",
    )


def user_accessible(world: World) -> Iterator[Finding]:
    """EL0 may use what belongs to EL2."""
    for each in _with_el0(world):
        if is_process(each.tree):
            continue
        written = each.map.covered(lambda k: _for_el0(k) and bool(k.el0_write))
        severity: Severity = "critical" if written else "high"
        words = "lets EL0 use mappings of EL2"
        yield from _covered(world, each, "hyp-user-accessible", severity, words, _for_el0)


def _for_el0(kind: MappedRange) -> bool:
    return bool(kind.page_size) and bool(kind.el0_read or kind.el0_write or kind.el0_execute)


def executes_user_pages(world: World) -> Iterator[Finding]:
    """EL2 may execute what EL0 may use."""

    def executes(kind: MappedRange) -> bool:
        return _for_el0(kind) and kind.execute

    for each in _with_el0(world):
        words = "lets EL2 execute pages that EL0 may use: PXN is 0"
        yield from _covered(world, each, "hyp-executes-user-pages", "high", words, executes)


def device_executable(world: World) -> Iterator[Finding]:
    """Device memory that may be executed: instruction fetches from it are speculative reads of a device."""

    def executes(kind: MappedRange) -> bool:
        return is_device(kind) and (kind.execute or bool(kind.el0_execute)) and bool(kind.page_size)

    for each in (*world.el2, *world.host_stage2, *world.vms):
        severity: Severity = "low" if each.tree.stages == "2" else "medium"
        words = "maps Device memory executable"
        why = _STAGE1_XN if each.tree.stages == "2" else ""
        yield from _covered(world, each, "device-executable", severity, words, executes, explanation=why)


_STAGE1_XN = "harmless where every stage 1 behind it maps the same addresses execute-never"


def device_cacheable(world: World) -> Iterator[Finding]:
    """Addresses that are no memory, mapped cacheable: a device's registers in a cache."""

    def cacheable(kind: MappedRange) -> bool:
        """A stage 2 that forces nothing (no FWB) leaves the choice to stage 1."""
        final = kind.input_space == "VA" or "forced" in kind.memory
        return is_memory(kind) and final and "Write-" in kind.memory

    for each in (*world.el2, *world.host_stage2, *world.vms):
        words, why = "maps addresses cacheable at which the machine has no memory", "right for a ROM or flash"
        yield from _covered(
            world, each, "device-cacheable", "medium", words, cacheable, but=world.ram, explanation=why
        )


def _needs_ram(world: World) -> str:
    return "" if world.ram else "where the machine has memory is not known"


RULES = (
    Rule(
        "hyp-translation-off",
        "medium",
        "EL2 without translation",
        "With SCTLR_EL2.M = 0 all memory is readable, writable and executable for EL2.",
        "Arm ARM (DDI 0487), SCTLR_EL2.M",
        translation_off,
    ),
    Rule(
        "hyp-writable-executable",
        "high",
        "memory that EL2 may write and execute",
        "A write that goes wrong becomes code of EL2. SCTLR_EL2.WXN = 1 would take the right to execute away.",
        _PERMISSIONS + "; SCTLR_EL2.WXN",
        writable_executable,
        _needs_el2,
    ),
    Rule(
        "hyp-text-writable",
        "high",
        "text of EL2 with a writable alias",
        "Text that can be written by another address is as good as writable; WXN does not see it.",
        _PERMISSIONS,
        writable_text,
        _needs_el2,
    ),
    Rule(
        "hyp-user-accessible",
        "critical",
        "mappings of EL2 that EL0 may use",
        "In the EL2&0 regime AP[1] opens a page to EL0, and so a hypervisor to a process.",
        _PERMISSIONS,
        user_accessible,
        _needs_el0,
    ),
    Rule(
        "hyp-executes-user-pages",
        "high",
        "pages of EL0 that EL2 may execute",
        "A process chooses what is in its pages: a jump of EL2 that goes astray runs it.",
        _PERMISSIONS,
        executes_user_pages,
        _needs_el0,
    ),
    Rule(
        "device-executable",
        "medium",
        "Device memory that may be executed",
        "Instructions are fetched speculatively, also from Device memory that is not execute-never: a read that a "
        "device may act upon.",
        "Arm ARM (DDI 0487), Memory types and attributes: Device memory must be execute-never",
        device_executable,
    ),
    Rule(
        "device-cacheable",
        "medium",
        "no memory, mapped cacheable",
        "Accesses to a device are then speculative, merged, and held back in a cache.",
        "Arm ARM (DDI 0487), Memory types and attributes",
        device_cacheable,
        _needs_ram,
    ),
)
