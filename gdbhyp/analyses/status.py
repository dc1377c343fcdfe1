"""One screen about a stopped CPU: where it is, whose world it is, and why EL2 was last entered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from gdbhyp.analyses.esr import EsrReport
from gdbhyp.analyses.exception import last_exception
from gdbhyp.analyses.walk import features_sentence, regime_of
from gdbhyp.analyses.world import world_of
from gdbhyp.arch.regimes import Regime
from gdbhyp.arch.registers import trapped_by
from gdbhyp.arch.spaces import PA, VA, Word
from gdbhyp.arch.worlds import Hcr, World, vmid_of
from gdbhyp.engine.machine import Registers
from gdbhyp.engine.stop import Stop
from gdbhyp.engine.translate import current_regime, registers_needed, undecided
from gdbhyp.engine.walk import setup
from gdbhyp.hypervisors.identify import Identity, identify


@dataclass(frozen=True)
class Stage2Status:
    """The stage-2 translation that the registers describe; ``on`` says whether it is in force now."""

    on: bool
    vttbr: Word
    vtcr: Word
    vmid: int
    root: PA | None
    start_level: int | None
    ipa_bits: int | None
    granule: int | None


@dataclass(frozen=True)
class StatusReport:
    """The state of one CPU; the keys of the JSON contract, and the reasons for what is inferred.

    ``memory`` says in words how physical memory is read, None where there is only one way or nobody asked. ``assumed``
    says what was taken for granted because the target does not show it, None where nothing was.
    """

    kind: ClassVar[str] = "status"

    el: int
    regime: Regime
    e2h: bool
    tge: bool
    world: World
    world_reason: str
    vmid: int | None
    hypervisor: str
    identity: Identity
    cpu: int
    cpus: int
    pc: VA
    symbol: str | None
    aarch32: bool
    stage2: Stage2Status
    last_exception: EsrReport | None
    exception_from: VA | None
    exception_from_symbol: str | None
    traps: tuple[str, ...]
    memory: str | None
    assumed: str | None
    verbose: bool = field(default=False, metadata={"json": False})


def status(stop: Stop, *, verbose: bool = False) -> StatusReport:
    """Describe a stopped CPU.

    :raises RegisterUnavailable: if the target does not show CPSR, HCR_EL2, VTTBR_EL2 or VTCR_EL2.
    """
    hcr_value = stop.register("HCR_EL2")
    hcr = Hcr(hcr_value)
    world, reason = world_of(stop)
    pc = stop.register("PC")
    identity = identify(stop)
    stage2 = _stage2(stop, hcr)
    elr = stop.optional("ELR_EL2")
    return StatusReport(
        el=stop.el,
        regime=regime_of(stop),
        e2h=hcr.e2h,
        tge=hcr.tge,
        world=world,
        world_reason=reason,
        vmid=_vmid(world, stage2),
        hypervisor=identity.name,
        identity=identity,
        cpu=stop.cpu,
        cpus=stop.count_cpus(),
        pc=VA(pc),
        symbol=stop.symbol(pc),
        aarch32=stop.aarch32,
        stage2=stage2,
        last_exception=last_exception(stop) if stop.optional("ESR_EL2") else None,
        exception_from=None if elr is None else VA(elr),
        exception_from_symbol=None if elr is None else stop.symbol(elr),
        traps=tuple(trapped_by("HCR_EL2", hcr_value)),
        memory=(stop.memory_way() or None) if verbose else None,
        assumed=_assumed(stop),
        verbose=verbose,
    )


def _stage2(stop: Stop, hcr: Hcr) -> Stage2Status:
    vttbr, vtcr = stop.register("VTTBR_EL2"), stop.register("VTCR_EL2")
    known = not stop.machine.missing(registers_needed(Regime.EL10, "2"))
    params = setup(stop.machine.registers.get, Regime.EL10, force_stage2=True).second if known else None
    walkable = params is not None and not params.misprogrammed
    return Stage2Status(
        on=hcr.stage2 and not hcr.tge and stop.el < 2,
        vttbr=Word(vttbr),
        vtcr=Word(vtcr),
        vmid=vmid_of(vttbr, vtcr),
        root=PA(params.base) if params else None,
        start_level=params.start if params and walkable else None,
        ipa_bits=params.input_bits if params and walkable else None,
        granule=1 << params.tgx if params and walkable else None,
    )


def _assumed(stop: Stop) -> str | None:
    """Return in a sentence which features were assumed for the regime and for a stage 2 that there is."""

    def answer(registers: Registers) -> object:
        second = (
            setup(registers.get, Regime.EL10, force_stage2=True).second
            if registers.get("VTTBR_EL2")
            else None
        )
        return current_regime(registers, stop.el), second

    return features_sentence(undecided(stop.machine.registers, answer))


def _vmid(world: World, stage2: Stage2Status) -> int | None:
    """Return the VMID that is in force, or that the hypervisor has loaded; a VHE host's VTTBR_EL2 is stale."""
    loaded = world == "hypervisor" and stage2.vttbr != 0
    return stage2.vmid if stage2.on or loaded else None
