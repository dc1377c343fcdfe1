"""One translation, told in full: every step, the output or the fault, permissions and attributes.

>>> translate(machine, 0xffff_8000_1000_0000, Regime.EL10).output
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gdbhyp.arch import faults, permissions, stage1, stage2
from gdbhyp.arch.attributes import (
    NORMAL_WB,
    TAGGED,
    DEVICE_nGnRnE,
    combine,
    memory_words,
    par_shareability,
    shareability_words,
    stage2_memory_words,
    uncached,
)
from gdbhyp.arch.controls import DC, TGE, VM, controls
from gdbhyp.arch.features import ID_REGISTERS, features
from gdbhyp.arch.fields import Bits
from gdbhyp.arch.granules import CONTIGUOUS_BITS, FINAL_LEVEL, leaf_bits
from gdbhyp.arch.regimes import Regime, Space
from gdbhyp.arch.spaces import IPA, PA, Address, Word
from gdbhyp.arch.stage1 import SCTLR_C, SCTLR_I, SCTLR_M, stage1_registers
from gdbhyp.arch.stage2 import STAGE2_REGISTERS
from gdbhyp.engine.machine import Machine, Reader, Registers
from gdbhyp.engine.results import Access, Attributes, Fault, Permissions, Step, Translation
from gdbhyp.engine.walk import Fetch, Found, Leaf1, Leaf2, Walker, WalkFault, walker
from gdbhyp.errors import MemoryUnavailable, NoTarget, UsageError

__all__ = [
    "Access",
    "Attributes",
    "Fault",
    "Permissions",
    "Regime",
    "Stage2Reader",
    "Step",
    "Translation",
    "current_regime",
    "explicit",
    "registers_needed",
    "translate",
    "undecided",
    "with_registers",
]

BOTH, STAGE1, STAGE2 = "both", "1", "2"
"""The stages that a translation can be asked for."""

_BLOCK_TYPE = Bits(1, 0)

_NO_EL2 = "EL2 is not enabled in Secure state (SCR_EL3.EEL2 = 0), so there is no stage 2"


def registers_needed(regime: Regime, stages: str = BOTH, *, upper: bool | None = None) -> tuple[str, ...]:
    """The registers without which an answer about these stages of a regime would be a guess.

    ``upper`` asks for one VA range of stage 1, which does without the root of the other; None is for both ranges.
    Those of optional features are not among them: where they are missing, so is the feature. Nor are ID registers,
    without which every feature is assumed.
    """
    names: tuple[str, ...] = ()
    if stages != STAGE2:
        other = "" if upper is None else f"TTBR{int(not upper)}_{'EL1' if regime is Regime.EL10 else 'EL2'}"
        names += tuple(name for name in stage1_registers(regime) if name != other)
    if regime is not Regime.EL3:
        names += ("HCR_EL2",)
    if regime is Regime.EL10 and stages != STAGE1:
        names += STAGE2_REGISTERS
    return names


def current_regime(registers: Registers, el: int) -> Regime:
    """The regime that translates accesses of Exception level ``el`` (0 to 3) as the registers are now.

    EL2 is in the EL2&0 regime by HCR_EL2.E2H alone, whatever TGE says; EL0 only with {E2H,TGE} = {1,1}.
    """

    def register(name: str) -> int:
        return registers.get(name) or 0

    return controls(register, registers.get("SCR_EL3"), features(registers.get)).regime_of(el)


def with_registers(machine: Machine, values: Mapping[str, int]) -> Machine:
    """Return the same machine with some registers replaced; memory and PSTATE stay."""
    return Machine(_Overlay(machine.registers, values), machine.memory, machine.pstate)


class _Overlay:
    """Registers with some of them replaced."""

    def __init__(self, below: Registers, values: Mapping[str, int]) -> None:
        self._below = below
        self._values = dict(values)

    def get(self, name: str, /) -> int | None:
        value = self._values.get(name)
        return self._below.get(name) if value is None else value


def undecided(registers: Registers, answer: Callable[[Registers], object]) -> tuple[str, ...]:
    """Return the ID registers that are not shown and on which ``answer`` depends.

    Of those, every feature is assumed; ``answer`` is also asked of registers where one of them denies them all.

    :raises Unsupported: if ``answer`` does.
    """
    missing = [name for name in ID_REGISTERS if registers.get(name) is None]
    assumed = answer(registers) if missing else None
    return tuple(name for name in missing if answer(_Overlay(registers, {name: 0})) != assumed)


def explicit(
    machine: Machine,
    regime: Regime = Regime.EL10,
    *,
    ttbr: int | None = None,
    ttbr1: int | None = None,
    tcr: int | None = None,
    mair: int | None = None,
    vttbr: int | None = None,
    vtcr: int | None = None,
) -> Machine:
    """Return the machine with the given table registers in place of its own, and their stages switched on.

    Stage 1 counts as enabled when any of its registers is given (SCTLR_ELx.M = 1, HCR_EL2.{TGE,DC} = 0 for
    EL1&0), stage 2 when ``vttbr`` or ``vtcr`` is (HCR_EL2.VM = 1, TGE = 0).
    """
    suffix = {Regime.EL10: "EL1", Regime.EL3: "EL3"}.get(regime, "EL2")
    own = {f"TTBR0_{suffix}": ttbr, f"TTBR1_{suffix}": ttbr1, f"TCR_{suffix}": tcr, f"MAIR_{suffix}": mair}
    values = {name: value for name, value in own.items() if value is not None}
    get = machine.registers.get
    hcr = get("HCR_EL2") or 0
    if values:
        sctlr = f"SCTLR_{suffix}"
        # A root alone says nothing of caches, so Normal memory is shown as its descriptors say: as with
        # caches on.
        own_sctlr = get(sctlr)
        caches = SCTLR_C.in_place | SCTLR_I.in_place
        values[sctlr] = (caches if own_sctlr is None else own_sctlr) | SCTLR_M.in_place
        if regime is Regime.EL10:
            hcr &= ~(TGE.in_place | DC.in_place)
    second = {"VTTBR_EL2": vttbr, "VTCR_EL2": vtcr}
    given = {name: value for name, value in second.items() if value is not None}
    if given:
        hcr = hcr & ~TGE.in_place | VM.in_place
        values.update(given)
    values["HCR_EL2"] = hcr
    return with_registers(machine, values)


def translate(
    machine: Machine,
    address: int,
    regime: Regime,
    *,
    stages: str = BOTH,
    access: Access | None = None,
) -> Translation:
    """Translate ``address``: a VA, or with ``stages`` "2" an IPA, which is walked also while HCR_EL2.VM = 0.

    With ``access`` None the question is what is mapped there: permissions are not checked, and hardware
    updates of descriptors are not considered.

    :raises Unsupported: if a feature is in use that is not modelled.
    :raises UsageError: if the regime has no stage 2, or ``stages`` is not "both", "1" or "2".
    :raises NoTarget: if stage 2 is asked for in Secure state without EL2.
    """
    if stages not in (BOTH, STAGE1, STAGE2):
        raise UsageError(f"stages are both, 1 or 2, not {stages}")
    if stages == STAGE2 and regime is not Regime.EL10:
        raise UsageError(f"the {regime.value} regime has no stage 2")
    walk = walker(machine, regime, force_stage2=stages == STAGE2)
    if stages == STAGE2 and walk.second is None:
        raise NoTarget(_NO_EL2)
    fetches: list[Fetch] = []
    found = _find(walk, address, stages, access, fetches)
    physical = stages != STAGE1 or walk.second is None
    if isinstance(found, Found) and access is not None and physical:
        found = _protected(walk, found) or found
    return report(walk, address, stages, found, fetches, access)


def _find(
    walk: Walker, address: int, stages: str, access: Access | None, fetches: list[Fetch]
) -> Found | WalkFault:
    """Walk the stages asked for."""
    if stages == BOTH:
        return walk.resolve(address, access, fetches)
    if stages == STAGE1:
        first = walk.stage1(address, access, fetches)
        return first if isinstance(first, WalkFault) else Found(first.output, first.space, first, None)
    second = walk.stage2(address, walk.space, access, fetches)
    return second if isinstance(second, WalkFault) else Found(second.output, second.space, None, second)


def _protected(walk: Walker, found: Found) -> WalkFault | None:
    """Return the granule protection fault of an access to what was found, if it has one."""
    violation = None if walk.gpt is None else walk.gpt.check(found.output, found.space)
    if violation is None:
        return None
    kind, level = faults.GRANULE_PROTECTION, violation.level
    return WalkFault(kind, 1, level, address=found.output, violation=violation, on_walk=False)


def report(
    walk: Walker,
    address: int,
    stages: str,
    found: Found | WalkFault,
    fetches: list[Fetch],
    access: Access | None,
) -> Translation:
    """Put the outcome of a walk in words; the arguments are those of the walk."""
    two = walk.regime is Regime.EL10 and walk.controls.el2_enabled
    first = walk.first(address)
    fault = _fault(walk, found, address, stages, access) if isinstance(found, WalkFault) else None
    leaf = None if isinstance(found, WalkFault) else found.second or found.first
    return Translation(
        input=Address(address),
        input_space="IPA" if stages == STAGE2 else "VA",
        output=None if isinstance(found, WalkFault) else Address(found.output),
        output_space="IPA" if stages == STAGE1 and two else "PA",
        ipa=_intermediate(found),
        regime=walk.regime,
        stages=stages,
        fault=fault,
        steps=tuple(_step(walk, fetch, first) for fetch in fetches),
        permissions=None if isinstance(found, WalkFault) else permissions_of(found),
        attributes=None if isinstance(found, WalkFault) else attributes_of(found),
        level=None if leaf is None else leaf.level,
        page_size=0 if isinstance(found, WalkFault) else page_size(found),
        contiguous=leaf is not None and _contiguous(leaf),
        space="" if leaf is None else leaf.space.value,
        ns=leaf is not None and leaf.space is Space.NON_SECURE,
        asid=None if stages == STAGE2 else first.asid,
        vmid=None if walk.second is None else walk.second.vmid,
    )


def _intermediate(found: Found | WalkFault) -> IPA | None:
    """The IPA between the stages: not one that stage 1 only looked for its own tables at."""
    if isinstance(found, WalkFault):
        return None if found.ipa is None or found.s1ptw else IPA(found.ipa)
    if found.first is None or found.second is None:
        return None
    return IPA(found.first.output)


def page_size(found: Found) -> int:
    """The size in bytes of the smallest block or page over the stages, 0 when no table was walked."""
    sizes = [
        1 << leaf_bits(leaf.params.tgx, leaf.level)
        for leaf in (found.first, found.second)
        if leaf is not None and leaf.level is not None
    ]
    return min(sizes, default=0)


def _contiguous(leaf: Leaf1 | Leaf2) -> bool:
    if leaf.descriptor is None or leaf.level is None:
        return False
    if isinstance(leaf, Leaf1) and leaf.params.pnch:
        return False
    return (leaf.params.tgx, leaf.level) in CONTIGUOUS_BITS and bool(stage1.CONTIGUOUS(leaf.descriptor))


def stage1_memory(first: Leaf1, *, execute: bool = False) -> tuple[int, int]:
    """Attribute byte and SH that stage 1 gives; SCTLR_ELx.C = 0 makes Normal memory Non-cacheable."""
    p = first.params
    if first.descriptor is None:
        if p.dc:
            return TAGGED if p.dct else NORMAL_WB, 0
        return DEVICE_nGnRnE, 2
    attr = p.attribute(first.descriptor)
    sh = p.shareability(first.descriptor)
    if not (p.icached if execute else p.cached):
        attr = uncached(attr, p.xs)
    return attr, sh


def memory_of(found: Found) -> tuple[int, int]:
    """Attribute byte and SH of the whole translation, as PAR_EL1 reports them."""
    if found.first is None:
        raise ValueError("stage 2 alone has no attribute byte")
    attr, sh = stage1_memory(found.first)
    second = found.second
    if second is None:
        return attr, par_shareability(attr, sh)
    p = second.params
    d = second.descriptor
    return combine(attr, sh, stage2.MEM_ATTR(d), p.shareability(d), p.memory)


def attributes_of(found: Found) -> Attributes:
    """Memory type and shareability in words; of stage 2 alone when there was no stage 1."""
    if found.first is not None:
        attr, sh = memory_of(found)
        return Attributes(memory_words(attr), attr, shareability_words(sh))
    assert found.second is not None
    p, d = found.second.params, found.second.descriptor
    memattr = stage2.MEM_ATTR(d)
    return Attributes(stage2_memory_words(memattr, p.fwb), memattr, shareability_words(p.shareability(d)))


def permissions_of(found: Found) -> Permissions:
    """What both stages allow together."""
    privileged = unprivileged = permissions.RWX
    has_unprivileged = True
    first, second = found.first, found.second
    if first is not None:
        has_unprivileged = first.params.regime.has_unprivileged
        if first.descriptor is not None:
            own, user = permissions.stage1_rights(first.params, first.descriptor, first.tables, first.space)
            privileged, unprivileged = own.both, user.both
    if second is not None:
        base = permissions.stage2_base(second.params, second.descriptor)
        overlay = permissions.stage2_overlay(second.params, second.descriptor)
        privileged &= base.privileged
        unprivileged &= base.unprivileged
        if overlay is not None:
            privileged &= overlay.privileged
            unprivileged &= overlay.unprivileged
    return permissions_report(privileged, unprivileged if has_unprivileged else None)


def permissions_report(privileged: int, unprivileged: int | None) -> Permissions:
    """Turn sets of rights into the record; None where there is no EL0."""
    text = permissions.words(privileged)
    if unprivileged is not None:
        text += "/" + permissions.words(unprivileged)
    return Permissions(
        read=bool(privileged & permissions.READ),
        write=bool(privileged & permissions.WRITE),
        execute=bool(privileged & permissions.EXECUTE),
        el0_read=None if unprivileged is None else bool(unprivileged & permissions.READ),
        el0_write=None if unprivileged is None else bool(unprivileged & permissions.WRITE),
        el0_execute=None if unprivileged is None else bool(unprivileged & permissions.EXECUTE),
        text=text,
    )


def _step(walk: Walker, fetch: Fetch, first: stage1.Stage1Params) -> Step:
    params: stage1.Stage1Params | stage2.Stage2Params
    if fetch.stage == 1:
        params, space = first, "IPA" if walk.second is not None else "PA"
    else:
        params, space = walk.second_of(fetch.space), "PA"
    geometry = next(entry for entry in params.levels if entry.level == fetch.level)
    descriptor = fetch.descriptor
    output: int | None
    if _BLOCK_TYPE(descriptor) == 0b11 and fetch.level != FINAL_LEVEL:
        kind, output = "table", params.format.address(descriptor)
    elif _BLOCK_TYPE(descriptor) == 0b11 or (_BLOCK_TYPE(descriptor) == 0b01 and geometry.block):
        kind = "page" if fetch.level == FINAL_LEVEL else "block"
        output = params.format.address(descriptor) & ~geometry.offset_mask
    else:
        kind, output = "invalid", None
    return Step(
        stage=fetch.stage,
        level=fetch.level,
        table=Address(fetch.table),
        table_space=space,
        index=(fetch.address - fetch.table) // 8,
        descriptor_address=Address(fetch.address),
        descriptor=Word(descriptor),
        kind=kind,
        output=None if output is None else Address(output),
        note=_note(kind, descriptor, fetch, params),
        nested=tuple(_step(walk, nested, first) for nested in fetch.nested),
    )


def _note(kind: str, descriptor: int, fetch: Fetch, params: stage1.Stage1Params | stage2.Stage2Params) -> str:
    """What is worth a word about a descriptor."""
    if kind == "invalid":
        reserved = descriptor & 1
        return "reserved encoding" if reserved else ("" if descriptor == 0 else "invalid, not zero")
    notes = []
    if kind == "table":
        if fetch.stage == 1 and isinstance(params, stage1.Stage1Params):
            limits = _table_limits(descriptor, params)
            if limits:
                notes.append(limits)
        return ", ".join(notes)
    if not stage1.AF(descriptor):
        notes.append("AF=0")
    if stage1.CONTIGUOUS(descriptor) and (params.tgx, fetch.level) in CONTIGUOUS_BITS:
        notes.append("contiguous")
    if params.ha and params.hd and stage1.DBM(descriptor):
        notes.append("DBM")
    return ", ".join(notes)


def _table_limits(descriptor: int, p: stage1.Stage1Params) -> str:
    limits = []
    if stage1.AP_TABLE(descriptor):
        limits.append(f"APTable={stage1.AP_TABLE(descriptor):02b}")
    if stage1.XN_TABLE(descriptor):
        limits.append("UXNTable" if p.regime.has_unprivileged else "XNTable")
    if stage1.PXN_TABLE(descriptor) and p.regime.has_unprivileged:
        limits.append("PXNTable")
    text = " ".join(limits)
    return text if p.hierarchical or not text else f"{text} (ignored)"


FAULT_WORDS = {
    faults.TRANSLATION: "translation fault",
    faults.ACCESS_FLAG: "access flag fault",
    faults.PERMISSION: "permission fault",
    faults.ADDRESS_SIZE: "address size fault",
    faults.EXTERNAL_ABORT: "external abort on the table walk",
    faults.GRANULE_PROTECTION: "granule protection fault",
}


_OWN_EL = {Regime.EL10: 1, Regime.EL3: 3}


def _fault(walk: Walker, stop: WalkFault, address: int, stages: str, access: Access | None) -> Fault:
    access = access or Access(el=_OWN_EL.get(walk.regime, 2))
    fst = faults.status_code(stop.kind, stop.level, on_walk=stop.on_walk)
    valid = faults.hpfar_valid(stop.kind, stop.stage, stop.s1ptw)
    secure = walk.controls.space is Space.SECURE
    hpfar = None
    if valid and stop.ipa is not None:
        hpfar = Word(faults.hpfar_el2(stop.ipa, secure and stop.ipa_space is Space.NON_SECURE))
    text = f"stage {stop.stage} level {stop.level} {FAULT_WORDS[stop.kind]}"
    if stop.s1ptw:
        text += " on a stage 1 table walk"
    denied = stop.denied
    return Fault(
        kind=stop.kind,
        stage=stop.stage,
        level=stop.level,
        s1ptw=stop.s1ptw,
        fst=fst,
        ipa=None if stop.ipa is None else IPA(stop.ipa),
        address=None if stop.address is None else Address(stop.address),
        text=text,
        esr_el2=Word(
            faults.esr_el2(
                fst,
                execute=access.kind == "execute",
                write=access.kind == "write",
                s1ptw=stop.s1ptw,
                same_el=access.el >= 2,
                denied=denied,
            )
        ),
        far_el2=None if stages == STAGE2 else Word(address),
        hpfar_el2=hpfar,
        hpfar_valid=valid,
        dirty_bit=denied is not None and denied.dirty_bit,
        overlay=denied is not None and denied.overlay,
        top_level=denied is not None and denied.top_level,
        assured_only=denied is not None and denied.assured_only,
    )


class Stage2Reader:
    """IPA space as a reader: stage 2 of the machine over its physical memory, also while HCR_EL2.VM = 0.

    :raises NoTarget: if there is no EL2 in this Security state.
    """

    def __init__(self, machine: Machine) -> None:
        self._walk = walker(machine, Regime.EL10, force_stage2=True)
        if self._walk.second is None:
            raise NoTarget(_NO_EL2)
        self._memory: Reader = machine.memory

    def physical(self, ipa: int) -> PA | None:
        """Return where stage 2 puts an IPA; None where it does not."""
        found = self._walk.stage2(ipa, self._walk.space)
        return None if isinstance(found, WalkFault) else PA(found.output)

    def read(self, address: int, size: int, /) -> bytes:
        """Return exactly ``size`` bytes from an IPA on, over as many pages as they span.

        :raises MemoryUnavailable: for "IPA" when stage 2 does not map a part, or the memory behind it is
        missing.
        """
        parts = []
        at, end = address, address + size
        while at < end:
            found = self._walk.stage2(at, self._walk.space)
            if isinstance(found, WalkFault):
                reason = f"stage 2 has a {FAULT_WORDS[found.kind]} at level {found.level}"
                raise MemoryUnavailable("IPA", address, size, reason, at)
            page = 1 << leaf_bits(found.params.tgx, found.level)
            count = min(end - at, page - at % page)
            try:
                parts.append(self._memory.read(found.output, count))
            except MemoryUnavailable as error:
                bad = at + error.first_bad - found.output
                reason = f"it is PA {error.first_bad:#x}, {error.reason}"
                raise MemoryUnavailable("IPA", address, size, reason, bad, unsaved=error.unsaved) from error
            at += count
        return b"".join(parts)
