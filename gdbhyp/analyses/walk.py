"""One translation, level by level, from whatever stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import ClassVar

from gdbhyp.arch.regimes import Regime
from gdbhyp.arch.worlds import Hcr
from gdbhyp.engine.machine import Machine, Registers
from gdbhyp.engine.results import Access, Translation
from gdbhyp.engine.stop import Stop
from gdbhyp.engine.translate import current_regime, explicit, registers_needed, translate, undecided
from gdbhyp.engine.walk import setup
from gdbhyp.errors import RegisterUnavailable, UsageError


@dataclass(frozen=True)
class WalkReport(Translation):
    """A translation with its whole walk; ``verbose`` asks for the stage-2 walks of stage-1 tables in text.

    ``assumed`` says what was taken for granted because the target does not show it, None where nothing was.
    """

    kind: ClassVar[str] = "walk"
    csv_rows: ClassVar[str] = "steps"

    assumed: str | None = None
    verbose: bool = field(default=False, metadata={"json": False})


def report_of(translation: Translation, *, verbose: bool = False) -> WalkReport:
    """Return the report of a translation."""
    values = {f.name: getattr(translation, f.name) for f in fields(Translation)}
    return WalkReport(**values, verbose=verbose)


@dataclass(frozen=True)
class Roots:
    """Explicit values in place of the CPU's registers; None leaves the register as it is.

    ``ttbr`` stands for the TTBR that the address selects by its bit 55, ``ttbr1`` for that of the upper range. Giving
    a register of a stage turns that stage on.
    """

    ttbr: int | None = None
    ttbr1: int | None = None
    tcr: int | None = None
    vttbr: int | None = None
    vtcr: int | None = None

    @property
    def any(self) -> bool:
        return self != NO_ROOTS


NO_ROOTS = Roots()


@dataclass(frozen=True)
class Question:
    """What to walk: ``regime`` None is the current one; ``stages`` is "both", "1" or "2" (the address is an IPA)."""

    address: int
    regime: Regime | None = None
    stages: str = "both"
    access: Access | None = None
    roots: Roots = NO_ROOTS
    verbose: bool = False


def walk(stop: Stop, question: Question) -> WalkReport:
    """Answer ``question`` for a stopped CPU.

    :raises RegisterUnavailable: if the target lacks a register that the walk starts from.
    :raises UsageError: for a stage-2 root in a regime without stage 2.
    """
    regime = question.regime or (Regime.EL10 if question.stages == "2" else regime_of(stop))
    upper = bool(question.address >> 55 & 1)
    machine = machine_for(stop.machine, regime, question.stages, question.roots, upper=upper)
    found = translate(machine, question.address, regime, stages=question.stages, access=question.access)
    report = report_of(found, verbose=question.verbose)
    current = question.regime is None and question.stages != "2" and not question.roots.any
    said = (assumed_regime(stop) if current else None, assumed_features(machine, regime, question.stages))
    report = replace(report, assumed="; ".join(filter(None, said)) or None)
    if found.input_space == "VA" and machine.missing([mair_name(regime)]):
        return replace(report, attributes=None)
    return report


def regime_of(stop: Stop) -> Regime:
    """Return the regime that translates the CPU's own accesses; EL1&0 where nothing says in which level it is.

    A dump can have CPSR and no system register: then HCR_EL2.E2H, which chooses EL2's regime, is not known.
    """
    if assumed_regime(stop):
        return Regime.EL10
    return current_regime(stop.machine.registers, stop.el)


def assumed_regime(stop: Stop) -> str | None:
    """Return in a sentence why the current regime is taken to be EL1&0, None where the registers say which it is."""
    missing = stop.machine.missing(("CPSR", "HCR_EL2"))
    if not missing:
        return None
    return f"the target does not show {missing[0]}, so the EL1&0 regime was taken: --regime says another"


def assumed_features(machine: Machine, regime: Regime, stages: str = "both") -> str | None:
    """Return in a sentence which features were assumed for a walk, None where ID registers say what matters to it."""

    def parameters(registers: Registers) -> object:
        return setup(registers.get, regime, stages == "2").parameters(stages)

    return features_sentence(undecided(machine.registers, parameters))


def features_sentence(names: Sequence[str]) -> str | None:
    """Return what is assumed without these ID registers, None without any."""
    if not names:
        return None
    shown = ", ".join(names[:-1]) + " and " * (len(names) > 1) + names[-1]
    return f"the target does not show {shown}, so every feature was taken to be there that the registers make use of"


def machine_for(
    machine: Machine, regime: Regime, stages: str, roots: Roots = NO_ROOTS, *, upper: bool = False
) -> Machine:
    """Return ``machine`` with explicit roots, after a check that it shows the registers a walk cannot do without.

    :raises RegisterUnavailable: naming the first that is missing.
    :raises UsageError: for a stage-2 root in a regime without stage 2.
    """
    if (roots.vttbr is not None or roots.vtcr is not None) and regime is not Regime.EL10:
        raise UsageError(f"the {regime.value} regime has no stage 2: use --stage2 or --regime EL1")
    chosen = _with_roots(machine, regime, roots, upper) if roots.any else machine
    # Stage 1 of EL1&0 finds its tables through stage 2 where that is on.
    needed = "both" if stages == "1" and _stage2_on(chosen) else stages
    missing = set(chosen.missing(registers_needed(regime, needed))) - _dispensable(regime, roots)
    if missing:
        raise RegisterUnavailable(min(missing), "without it, a walk would be a guess")
    return chosen


def _stage2_on(machine: Machine) -> bool:
    hcr = Hcr(machine.registers.get("HCR_EL2") or 0)
    return hcr.stage2 and not hcr.tge


def mair_name(regime: Regime) -> str:
    """Return the register that gives stage 1 of ``regime`` its memory types."""
    return f"MAIR_{_SUFFIX.get(regime, 'EL2')}"


_SUFFIX = {Regime.EL10: "EL1", Regime.EL3: "EL3"}


def _dispensable(regime: Regime, roots: Roots) -> set[str]:
    """Return the registers that an explicit stage-1 root makes unnecessary: the other root's, and the memory types."""
    if roots.ttbr is None and roots.ttbr1 is None:
        return set()
    suffix = _SUFFIX.get(regime, "EL2")
    return {f"TTBR0_{suffix}", f"TTBR1_{suffix}", mair_name(regime), "HCR_EL2"}


def _with_roots(machine: Machine, regime: Regime, roots: Roots, upper: bool) -> Machine:
    high = upper and regime.has_unprivileged
    return explicit(
        machine,
        regime,
        ttbr=None if high else roots.ttbr,
        ttbr1=roots.ttbr if high and roots.ttbr1 is None else roots.ttbr1,
        tcr=roots.tcr,
        vttbr=roots.vttbr,
        vtcr=roots.vtcr,
    )
