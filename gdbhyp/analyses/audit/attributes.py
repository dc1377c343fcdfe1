"""Rules about memory attributes of aliases: one physical address, mapped in different ways.

Compared are stage 1 of EL2 and of the host, whose outputs are physical and whose attributes are final, with each
other; and stage 2 of a VM, which only bounds what a guest's stage 1 may choose, where it forces Device or forbids it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations

from gdbhyp.analyses.audit.findings import Finding, Rule, Severity, about_memory
from gdbhyp.analyses.audit.world import World, is_device, reachable
from gdbhyp.analyses.reach import Indexed
from gdbhyp.engine.map import MappedRange
from gdbhyp.engine.ranges import Ranges, intersection, union

_MISMATCHED = "Arm ARM (DDI 0487), Mismatched memory attributes"
_DEVICE, _UNCACHED = "Device", "Non-cacheable"


def _type_of(kind: MappedRange) -> str:
    """Return what has to agree about the memory type: Device of whatever kind, or the cacheability."""
    if is_device(kind):
        return _DEVICE
    for word in ("Non-cacheable", "Write-Through", "Write-Back"):
        if word in kind.memory:
            return word
    return kind.memory


def _mapped(kind: MappedRange) -> bool:
    return bool(kind.page_size) and reachable(kind)


def _final(world: World) -> tuple[Indexed, ...]:
    """The trees whose attributes are final: stage 1 with no stage 2 behind it."""
    return tuple(e for e in (*world.el2, *world.host) if e.tree.stages == "1")


def _values(trees: tuple[Indexed, ...], of: Callable[[MappedRange], str | None]) -> dict[str, Ranges]:
    """Return the physical ranges by what ``of`` says of their mappings; None leaves a mapping out."""
    words = {of(kind) for each in trees for kind in each.map.shapes if _mapped(kind)} - {None}

    def with_word(word: str) -> Ranges:
        parts = (each.map.covered(lambda k: _mapped(k) and of(k) == word) for each in trees)
        return union(r for part in parts for r in part)

    return {word: with_word(word) for word in sorted(w for w in words if w is not None)}


def alias_types(world: World) -> Iterator[Finding]:
    """One physical address with two memory types."""
    trees = _final(world)
    for (first, one), (second, other) in combinations(_values(trees, _type_of).items(), 2):
        ranges = intersection(one, other)
        if not ranges:
            continue
        device = _DEVICE in (first, second)
        yield _alias(
            world,
            trees,
            "alias-memory-type",
            "medium" if device else "low",
            f"mapped {first} in one place and {second} in another",
            ranges,
            _type_of,
            "" if device else _COHERENT,
        )


_COHERENT = "Linux maps buffers of devices that do not see the caches Non-cacheable beside its linear map"


def alias_shareability(world: World) -> Iterator[Finding]:
    """One physical address, cacheable, with two shareabilities."""
    trees = _final(world)

    def shareability(kind: MappedRange) -> str | None:
        return kind.shareability if _type_of(kind) not in (_DEVICE, _UNCACHED) else None

    for (first, one), (second, other) in combinations(_values(trees, shareability).items(), 2):
        ranges = intersection(one, other)
        if ranges:
            what = f"mapped {first} in one place and {second} in another"
            yield _alias(world, trees, "alias-shareability", "low", what, ranges, shareability, "")


def _alias(
    world: World,
    trees: tuple[Indexed, ...],
    rule: str,
    severity: Severity,
    what: str,
    ranges: Ranges,
    of: Callable[[MappedRange], str | None],
    explanation: str,
) -> Finding:
    """Return the finding, with one mapping of each value as evidence."""
    seen = set()
    evidence = []
    for each in trees:
        for hit in each.map.find(ranges[0][0], ranges[0][0] + 1):
            if of(hit) is not None and of(hit) not in seen:
                seen.add(of(hit))
                evidence.append(world.evidence(each.tree, hit))
    return about_memory(
        rule, severity, f"the same memory is {what}", ranges, evidence, explanation=explanation
    )


def stage2_type(world: World) -> Iterator[Finding]:
    """A VM has memory as Device that others cache, or may cache what others have as Device."""
    trees = _final(world)
    values = _values(trees, _type_of)
    cached = union(r for word, part in values.items() if word.startswith("Write-") for r in part)
    device = values.get(_DEVICE, [])

    def forced_cacheable(kind: MappedRange) -> bool:
        return _mapped(kind) and "forced" in kind.memory

    def forced_device(kind: MappedRange) -> bool:
        return _mapped(kind) and is_device(kind)

    for each in world.vms:
        pairs = (
            (forced_device, cached, "has as Device memory what is mapped cacheable elsewhere"),
            (forced_cacheable, device, "is forced to cache what is mapped as Device memory elsewhere"),
        )
        for wanted, elsewhere, words in pairs:
            ranges = intersection(each.map.covered(wanted), elsewhere)
            if ranges:
                first = ranges[0][0]
                yield about_memory(
                    "alias-stage2-type",
                    "medium",
                    f"{each.tree.owner} {words}",
                    ranges,
                    [*world.evidence_at([each], first, wanted), *world.evidence_at(trees, first, _mapped)],
                    vms=each.tree.vms,
                )


RULES = (
    Rule(
        "alias-memory-type",
        "medium",
        "one address with two memory types",
        "Accesses by mismatched aliases lose coherency and order; a Device access may hit a dirty line.",
        _MISMATCHED,
        alias_types,
    ),
    Rule(
        "alias-shareability",
        "low",
        "one address with two shareabilities",
        "Caches keep only accesses of the same shareability domain coherent.",
        _MISMATCHED,
        alias_shareability,
    ),
    Rule(
        "alias-stage2-type",
        "medium",
        "a memory type of stage 2 that no other mapping has",
        "What a VM and its hypervisor share, they must access alike.",
        _MISMATCHED,
        stage2_type,
        lambda world: "" if world.vms else "no VM is known",
    ),
)
