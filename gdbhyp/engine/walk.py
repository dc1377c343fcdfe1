"""The walk itself: one loop a stage, over parameters computed once and a ``read`` function.

This is the part that has to be fast, so it deals in ints and tuples; ``translate``, ``at`` and ``map`` put
words on what it returns. Order of checks and levels of faults are those of Arm's ASL v9.4
``AArch64_S1Translate``, ``AArch64_S1Walk``, ``AArch64_S2Translate`` and ``AArch64_S2Walk``.

Choices where the architecture leaves one to the processor, here and in what the walk is made of:

* TxSZ out of its range is a level-0 translation fault, never clamped. * A reserved TG field, or one that
selects an absent granule, acts as the smallest granule there is. * The contiguous bit is a hint: it changes
no output address and, misplaced, faults nothing. nT faults nothing. * HCR_EL2.{NV,NV1} = {0,1} acts as {0,0}.
* With {E2H,TGE} = {1,1}, HCR_EL2.VM, DC, CD, ID and PTW act as 0 for AT S12E* too. * A reserved MAIR byte and
SH = 0b01 are reported as they are; a reserved stage-2 inner cacheability is
  Write-Back.
* Setting the access flag of a stage-1 descriptor needs the right to write in stage 2, for AT as for an
access. * Fetching an instruction from Device memory is not a permission fault of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from gdbhyp.arch import faults, stage1, stage2
from gdbhyp.arch.controls import CONTROL_REGISTERS, controls
from gdbhyp.arch.features import ID_REGISTERS, features
from gdbhyp.arch.permissions import (
    Denied,
    mostly_read_only,
    stage1_denies,
    stage1_rights,
    stage2_base,
    stage2_denies,
    stage2_denies_walk,
    stage2_overlay,
)
from gdbhyp.arch.regimes import Regime, Space
from gdbhyp.arch.stage1 import Stage1Params, stage1_all_registers, stage1_params
from gdbhyp.arch.stage2 import STAGE2_ALL_REGISTERS, Stage2Params, stage2_params
from gdbhyp.engine.gpt import GranuleTable, Violation, granule_table
from gdbhyp.engine.machine import Machine
from gdbhyp.engine.results import Access
from gdbhyp.errors import MemoryUnavailable

_S1_AF = stage1.AF.in_place
_S1_NS_TABLE = stage1.NS_TABLE.in_place
_S1_PROTECTED = stage1.PROTECTED.in_place
_S1_AMEC = stage1.AMEC.in_place
_S2_AF = stage2.AF.in_place
_S2_READ = stage2.S2AP_READ.in_place
_UPPER = stage1.VA_RANGE.in_place
_FINAL = 3
_TYPE = 0b11
_TABLE = 0b11
_PAGE = 0b11
_BLOCK = 0b01


class WalkFault(NamedTuple):
    """A fault: what the walk ended with instead of an address.

    ``ipa`` is what stage 2 was asked for, ``ipa_space`` its space; ``address`` is the physical address of a
    descriptor that cannot be read or is protected; ``denied`` qualifies a permission fault, ``violation`` a
    granule protection fault, which is ``on_walk`` unless it is the output address that is protected.
    """

    kind: str
    stage: int
    level: int
    s1ptw: bool = False
    ipa: int | None = None
    ipa_space: Space | None = None
    address: int | None = None
    denied: Denied | None = None
    violation: Violation | None = None
    on_walk: bool = True


class Fetch(NamedTuple):
    """One descriptor fetch: ``table`` and ``address`` are IPAs of ``space`` where stage 2 is on for stage 1,
    else PAs; ``space`` is for stage 2 that of the IPA asked for. ``nested`` are the stage-2 fetches that
    found it."""

    stage: int
    level: int
    table: int
    address: int
    descriptor: int
    space: Space
    nested: tuple[Fetch, ...]


class Leaf1(NamedTuple):
    """The end of a stage-1 walk. ``tables`` is the OR of the table descriptors; with stage 1 off
    ``descriptor`` and ``level`` are None and ``output`` is the input."""

    output: int
    space: Space
    params: Stage1Params
    descriptor: int | None
    level: int | None
    tables: int
    assured: bool


class Leaf2(NamedTuple):
    """The end of a stage-2 walk."""

    output: int
    space: Space
    params: Stage2Params
    descriptor: int
    level: int


class Found(NamedTuple):
    """An output address, and the leaves that led there; ``first`` is None for stage 2 alone."""

    output: int
    space: Space
    first: Leaf1 | None
    second: Leaf2 | None


class Walker:
    """Walks the tables of one regime of one CPU; made anew when a register changes.

    ``read(address, size)`` is physical memory, ``gpt`` the granule protection check if there is one, ``pan``
    is PSTATE.PAN. ``second`` are the stage-2 parameters for IPAs of the current Security state's own space,
    and ``second_ns`` those for Non-secure IPAs (the same, except in Secure state); None where there is no
    stage 2.
    """

    __slots__ = (
        "_setup",
        "controls",
        "features",
        "gpt",
        "pan",
        "read",
        "regime",
        "second",
        "second_ns",
        "space",
    )

    def __init__(
        self,
        own: Setup,
        read: Callable[[int, int], bytes],
        gpt: GranuleTable | None = None,
        pan: bool = False,
    ) -> None:
        self._setup = own
        self.regime = own.regime
        self.features = own.features
        self.controls = own.controls
        self.space = own.space
        self.second, self.second_ns = own.stage2()
        self.read = read
        self.gpt = gpt
        self.pan = pan

    def first(self, va: int) -> Stage1Params:
        """The stage-1 parameters that apply to a VA."""
        return self._setup.half(bool(va & _UPPER))

    def second_of(self, space: Space) -> Stage2Params:
        """The stage-2 parameters that apply to IPAs of a space; only where stage 2 is on."""
        found = self.second if space is self.space else self.second_ns
        assert found is not None
        return found

    def resolve(
        self, address: int, access: Access | None = None, fetches: list[Fetch] | None = None
    ) -> Found | WalkFault:
        """Translate a VA through every stage that the regime has; ``fetches`` collects the descriptors."""
        first = self.stage1(address, access, fetches)
        if isinstance(first, WalkFault):
            return first
        if self.second is None:
            return Found(first.output, first.space, first, None)
        second = self.stage2(first.output, first.space, access, fetches, first.assured)
        if isinstance(second, WalkFault):
            return second
        return Found(second.output, second.space, first, second)

    def stage1(
        self, va: int, access: Access | None = None, fetches: list[Fetch] | None = None
    ) -> Leaf1 | WalkFault:
        """Walk stage 1: a VA to an IPA, or to a PA where the regime has no stage 2."""
        p = self._setup.half(va & _UPPER != 0)
        check = p.va_check if access is None or access.kind != "execute" else p.va_check_fetch
        if not p.enabled:
            if va & check:
                return WalkFault(faults.ADDRESS_SIZE, 1, 0)
            return Leaf1(va & ((1 << p.pamax) - 1), p.space, p, None, None, 0, False)
        if p.txsz_faults or va & check != p.va_expected & check or p.epd:
            return WalkFault(faults.TRANSLATION, 1, 0)
        if p.e0pd and access is not None and access.el == 0:
            return WalkFault(faults.TRANSLATION, 1, 0)

        read = self.read
        order: Literal["big", "little"] = "big" if p.ee else "little"
        second, second_ns = self.second, self.second_ns
        gpt = self.gpt
        beyond = p.beyond
        in_place, high, high_shift = p.format
        own = space = p.space
        table = p.base
        tables = 0
        above = 0
        assured = p.pnch
        top: bool | None = va & _UPPER != 0
        walked: Leaf2 | None = None
        nested: list[Fetch] | None = None
        for lookup in p.levels:
            level, shift, index_mask, block, _, _ = lookup
            address = table | va >> shift & index_mask
            if address & beyond:
                return WalkFault(faults.ADDRESS_SIZE, 1, above)
            physical = address
            table_space = space
            if second is not None and second_ns is not None:
                nested = None if fetches is None else []
                located = self.locate(second if space is own else second_ns, address, space, top, nested)
                if isinstance(located, WalkFault):
                    if fetches is not None:
                        fetches += nested or ()
                    return located
                walked = located
                physical = located.output
                table_space = located.space
            if gpt is not None:
                violation = gpt.check(physical, table_space)
                if violation is not None:
                    kind = faults.GRANULE_PROTECTION
                    return WalkFault(kind, 1, level, address=physical, violation=violation)
            try:
                descriptor = int.from_bytes(read(physical, 8), order)
            except MemoryUnavailable as error:
                if error.unsaved:
                    raise
                return WalkFault(faults.EXTERNAL_ABORT, 1, level, address=physical)
            if fetches is not None:
                fetches.append(Fetch(1, level, table, address, descriptor, space, tuple(nested or ())))
            form = descriptor & _TYPE
            if assured:
                assured = _still_assured(walked, descriptor)
            if form == _TABLE and level != _FINAL:
                if p.haft and access is not None and not descriptor & _S1_AF:
                    denied = self._update_denied(walked, address, space)
                    if denied is not None:
                        return denied
                tables |= descriptor
                table = descriptor & in_place | (descriptor & high) << high_shift
                if descriptor & _S1_NS_TABLE and space is Space.SECURE:
                    space = Space.NON_SECURE
                above = level
                top = None
                continue
            if form == _PAGE or (form == _BLOCK and block):
                break
            return WalkFault(faults.TRANSLATION, 1, level)

        output = descriptor & lookup.leaf_mask | (descriptor & high) << high_shift | va & lookup.offset_mask
        leaf_space = space if space is Space.NON_SECURE else stage1.leaf_space(p, space, descriptor)
        leaf = Leaf1(output, leaf_space, p, descriptor, level, tables, assured)
        if p.amec_faults and leaf_space is Space.REALM and descriptor & _S1_AMEC:
            return WalkFault(faults.TRANSLATION, 1, level)
        if output & beyond:
            return WalkFault(faults.ADDRESS_SIZE, 1, level)
        if not descriptor & _S1_AF and not p.ha:
            return WalkFault(faults.ACCESS_FLAG, 1, level)
        if access is None:
            return leaf
        return self._refused(leaf, access, walked, address, space) or leaf

    def _refused(
        self, leaf: Leaf1, access: Access, walked: Leaf2 | None, address: int, space: Space
    ) -> WalkFault | None:
        """Return the fault of an access to a stage-1 leaf, whose descriptor is at ``address`` of ``space``."""
        p, descriptor = leaf.params, leaf.descriptor
        assert descriptor is not None
        assert leaf.level is not None
        rights = stage1_rights(p, descriptor, leaf.tables, leaf.space, pan=access.pan and self.pan)
        denied = stage1_denies(p, descriptor, rights[0 if access.el else 1], access.kind)
        if denied is not None:
            return WalkFault(faults.PERMISSION, 1, leaf.level, denied=denied)
        return None if descriptor & _S1_AF else self._update_denied(walked, address, space)

    def locate(
        self, p: Stage2Params, ipa: int, space: Space, top: bool | None, fetches: list[Fetch] | None
    ) -> Leaf2 | WalkFault:
        """Find a stage-1 descriptor in physical memory; ``top`` is as in ``stage2_denies_walk``."""
        found = self._stage2(p, ipa, space, fetches, True)
        if isinstance(found, WalkFault) or (p.plain_walk and found.descriptor & _S2_READ):
            return found
        device = p.memory_is_device(found.descriptor)
        denied = stage2_denies_walk(
            p, found.descriptor, write=False, top=top, device=device, space=found.space
        )
        if denied is None:
            return found
        return WalkFault(faults.PERMISSION, 2, found.level, True, ipa, space, None, denied)

    def stage2(
        self,
        ipa: int,
        space: Space,
        access: Access | None = None,
        fetches: list[Fetch] | None = None,
        assured: bool = False,
    ) -> Leaf2 | WalkFault:
        """Walk stage 2: an IPA of ``space`` to a PA."""
        p = self.second_of(space)
        found = self._stage2(p, ipa, space, fetches, False)
        if isinstance(found, WalkFault) or access is None:
            return found
        denied = stage2_denies(
            p, found.descriptor, access.kind, access.el, assured=assured, space=found.space
        )
        if denied is None:
            return found
        return WalkFault(faults.PERMISSION, 2, found.level, False, ipa, space, None, denied)

    def _stage2(
        self, p: Stage2Params, ipa: int, ipa_space: Space, fetches: list[Fetch] | None, s1ptw: bool
    ) -> Leaf2 | WalkFault:
        """Find the leaf of an IPA, with no regard to permissions."""
        if p.misprogrammed or ipa >> (64 - p.txsz):
            return WalkFault(faults.TRANSLATION, 2, 0, s1ptw, ipa, ipa_space)
        read = self.read
        order: Literal["big", "little"] = "big" if p.ee else "little"
        gpt = self.gpt
        beyond = p.beyond
        in_place, high, high_shift = p.format
        table = p.base
        above = 0
        for lookup in p.levels:
            level, shift, index_mask, block, _, _ = lookup
            address = table | ipa >> shift & index_mask
            if address & beyond:
                return WalkFault(faults.ADDRESS_SIZE, 2, above, s1ptw, ipa, ipa_space)
            if gpt is not None:
                violation = gpt.check(address, p.table_space)
                if violation is not None:
                    kind = faults.GRANULE_PROTECTION
                    return WalkFault(kind, 2, level, s1ptw, ipa, ipa_space, address, None, violation)
            try:
                descriptor = int.from_bytes(read(address, 8), order)
            except MemoryUnavailable as error:
                if error.unsaved:
                    raise
                return WalkFault(faults.EXTERNAL_ABORT, 2, level, s1ptw, ipa, ipa_space, address)
            if fetches is not None:
                fetches.append(Fetch(2, level, table, address, descriptor, ipa_space, ()))
            form = descriptor & _TYPE
            if form == _TABLE and level != _FINAL:
                table = descriptor & in_place | (descriptor & high) << high_shift
                above = level
                continue
            if form == _PAGE or (form == _BLOCK and block):
                break
            return WalkFault(faults.TRANSLATION, 2, level, s1ptw, ipa, ipa_space)

        output = descriptor & lookup.leaf_mask | (descriptor & high) << high_shift | ipa & lookup.offset_mask
        if output & beyond:
            return WalkFault(faults.ADDRESS_SIZE, 2, level, s1ptw, ipa, ipa_space)
        if not descriptor & _S2_AF and not p.ha:
            return WalkFault(faults.ACCESS_FLAG, 2, level, s1ptw, ipa, ipa_space)
        return Leaf2(output, p.space_of(descriptor) if p.realm else p.output_space, p, descriptor, level)

    def _update_denied(self, walked: Leaf2 | None, address: int, space: Space) -> WalkFault | None:
        """Return the stage-2 fault of a hardware update (access flag) of a stage-1 descriptor, if it has one."""
        if walked is None:
            return None
        p = walked.params
        denied = stage2_denies_walk(
            p,
            walked.descriptor,
            write=True,
            top=None,
            device=p.memory_is_device(walked.descriptor),
            space=walked.space,
        )
        if denied is None:
            return None
        return WalkFault(faults.PERMISSION, 2, walked.level, True, address, space, None, denied)


def _still_assured(walked: Leaf2 | None, descriptor: int) -> bool:
    """Whether stage 1 stays "assured" below a descriptor: protected, and in a table only the MMU may write."""
    if walked is None or not descriptor & _S1_PROTECTED:
        return False
    p = walked.params
    return mostly_read_only(stage2_base(p, walked.descriptor), stage2_overlay(p, walked.descriptor))


class Setup:
    """Everything that the registers say about one regime; each part is computed when it is first asked for."""

    __slots__ = (
        "_force_stage2",
        "_halves",
        "_register",
        "_second",
        "controls",
        "features",
        "regime",
        "space",
    )

    def __init__(self, file: Mapping[str, int | None], regime: Regime, force_stage2: bool) -> None:
        def register(name: str) -> int:
            return file.get(name) or 0

        self._register = register
        self._force_stage2 = force_stage2
        self._halves: list[Stage1Params | None] = [None, None]
        self._second: tuple[Stage2Params | None, Stage2Params | None] | None = None
        self.regime = regime
        self.features = features(file.get)
        self.controls = controls(register, file.get("SCR_EL3"), self.features)
        self.space = self.controls.space or Space.NON_SECURE

    def stage2(self) -> tuple[Stage2Params | None, Stage2Params | None]:
        """The stage-2 parameters for IPAs of the own space and for Non-secure ones; None where there is none."""
        if self._second is None:
            control = self.controls
            on = control.vm or control.dc or self._force_stage2
            if self.regime is not Regime.EL10 or not control.el2_enabled or not on:
                self._second = None, None
            else:
                own = other = stage2_params(self._register, self.space, control, self.features)
                if self.space is Space.SECURE:
                    other = stage2_params(self._register, Space.NON_SECURE, control, self.features)
                self._second = own, other
        return self._second

    @property
    def second(self) -> Stage2Params | None:
        """The stage-2 parameters for IPAs of the own space."""
        return self.stage2()[0]

    def half(self, upper: bool) -> Stage1Params:
        """The stage-1 parameters of VAs with bit 55 clear or set; the same where the regime has one range."""
        found = self._halves[upper]
        if found is None:
            upper_range = upper and self.regime.has_unprivileged
            found = stage1_params(self._register, self.regime, upper_range, self.controls, self.features)
            self._halves[upper] = found
        return found

    def parameters(self, stages: str) -> tuple[object, ...]:
        """Everything that decides a walk of ``stages``, to be compared: "2" leaves stage 1 out."""
        el = {Regime.EL10: 0, Regime.EL3: 3}.get(self.regime, 2)
        first = () if stages == "2" else (self.half(False), self.half(True), self.controls.regime_of(el))
        return (*first, *self.stage2())


_SETUP_LIMIT = 64
_setups: dict[tuple[object, ...], Setup] = {}
_names: dict[str, tuple[str, ...]] = {}


def setup_registers(regime: Regime) -> tuple[str, ...]:
    """Every register that a regime's translation depends on."""
    names = _names.get(regime.value)
    if names is None:
        own = stage1_all_registers(regime)
        second = STAGE2_ALL_REGISTERS if regime is Regime.EL10 else ()
        mec = ("SCTLR2_EL2",) if regime in (Regime.EL2, Regime.EL20) else ()
        names = ("SCR_EL3", *CONTROL_REGISTERS, *ID_REGISTERS, *own, *second, *mec)
        names = _names[regime.value] = tuple(dict.fromkeys(names))
    return names


def setup(get: Callable[[str], int | None], regime: Regime, force_stage2: bool = False) -> Setup:
    """Compute a regime's parameters, or return those computed before from the same register values.

    ``get`` gives a register by name or None; ``force_stage2`` takes HCR_EL2.VM as 1.

    :raises Unsupported: if a feature is in use that is not modelled.
    """
    names = setup_registers(regime)
    values = tuple(map(get, names))
    key = (regime.value, force_stage2, values)
    found = _setups.get(key)
    if found is None:
        if len(_setups) >= _SETUP_LIMIT:
            _setups.clear()
        found = _setups[key] = Setup(dict(zip(names, values, strict=True)), regime, force_stage2)
    return found


def walker(machine: Machine, regime: Regime, *, force_stage2: bool = False) -> Walker:
    """Return a walker for the registers as they are now.

    :raises Unsupported: if a feature is in use that is not modelled.
    """
    get = machine.registers.get
    own = setup(get, regime, force_stage2)
    gpt = granule_table(get, machine.memory.read) if own.features.rme else None
    return Walker(own, machine.memory.read, gpt, bool(machine.pstate.get("PAN")))
