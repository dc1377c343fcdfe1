"""Which IPA faulted: from HPFAR_EL2 where the architecture makes it valid, else by a stage-1 walk of FAR_EL2.

HPFAR_EL2 is valid for stage-2 translation, access-flag and address-size faults, and for every stage-2 fault on a
stage-1 table walk (S1PTW). For a stage-2 permission fault it is UNKNOWN (Arm ARM, HPFAR_EL2; ASL ``IPAValid``), and a
hypervisor has to translate FAR_EL2 itself: AT S1E1R and PAR_EL1, as the first KVM/arm64 world switch did. Here the
stage-1 walk is done by the engine, without a change to the target.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from gdbhyp.analyses.exception import context_of
from gdbhyp.analyses.guest import stage1_walk
from gdbhyp.analyses.walk import WalkReport, machine_for, report_of
from gdbhyp.analyses.world import at_exception_entry, world_of
from gdbhyp.arch.regimes import Regime
from gdbhyp.arch.spaces import IPA, VA, Word
from gdbhyp.arch.syndrome import Abort, Syndrome, decode_esr
from gdbhyp.arch.worlds import Hcr, vmid_of
from gdbhyp.engine.results import Translation
from gdbhyp.engine.stop import Stop
from gdbhyp.engine.translate import translate
from gdbhyp.errors import GdbhypError

Method = Literal["hpfar", "stage1_walk"]

# HPFAR_EL2.FIPA [47:4] holds IPA[55:12]; [63] NS.
_FIPA = 0x0000_FFFF_FFFF_FFF0
_PAGE = 0xFFF


@dataclass(frozen=True)
class IpaReport:
    """The faulting IPA, how it was found and why that way.

    ``ipa`` is None if it cannot be recovered; ``reason`` says why it can, or cannot. ``ipa_page_only`` says that the
    offset in the page is not known. ``hpfar_ipa`` is the page that HPFAR_EL2 happens to hold, valid or not, and
    ``hpfar_agrees`` whether a stage-1 walk leads to the same page (None if there was no walk). ``stage1`` and
    ``stage2`` are the walks as the tables are now. ``certain`` is False when the EL1 registers may no
    longer be the guest's.
    """

    kind: ClassVar[str] = "ipa"

    ipa: IPA | None
    method: Method | None
    hpfar_valid: bool
    reason: str
    ipa_page_only: bool
    certain: bool
    syndrome: str | None
    is_abort: bool
    esr: Word | None
    far: VA | None
    hpfar: Word | None
    hpfar_ipa: IPA | None
    hpfar_agrees: bool | None
    s1ptw: bool
    vmid: int | None
    stage1: WalkReport | None
    stage2: WalkReport | None
    verbose: bool = field(default=False, metadata={"json": False})


def of_last_fault(stop: Stop, *, verbose: bool = False) -> IpaReport:
    """Answer for the last exception that was taken to EL2.

    :raises RegisterUnavailable: if ESR_EL2, FAR_EL2, HPFAR_EL2 or a register of the walk is not shown.
    """
    syndrome = decode_esr(stop.register("ESR_EL2"), context=context_of(stop))
    far, hpfar = stop.register("FAR_EL2"), stop.register("HPFAR_EL2")
    abort = syndrome.abort
    if abort is None or syndrome.ec.value not in _ABORTS_FROM_BELOW:
        finding = _Finding(
            None, None, "the last exception taken to EL2 is no abort from a lower exception level"
        )
    else:
        finding = _find(stop, abort, far, hpfar)
    return _report(stop, syndrome, finding, far, hpfar, verbose)


def of_address(stop: Stop, address: int, *, verbose: bool = False) -> IpaReport:
    """Answer for any VA of the EL1&0 regime, by the stage-1 walk alone."""
    far, hpfar = stop.register("FAR_EL2"), stop.register("HPFAR_EL2")
    finding = _by_walk(stop, address, "the stage-1 tables map it there")
    return _report(stop, None, finding, far, hpfar, verbose)


_ABORTS_FROM_BELOW = (0x20, 0x24)


@dataclass(frozen=True)
class _Finding:
    """What one way of finding the IPA gave."""

    ipa: int | None
    method: Method | None
    reason: str
    page_only: bool = False
    certain: bool = True
    stage1: Translation | None = None


def _find(stop: Stop, abort: Abort, far: int, hpfar: int) -> _Finding:
    if Hcr(stop.register("HCR_EL2")).tge and at_exception_entry(stop):
        return _Finding(None, None, "HCR_EL2.TGE is 1: the fault is of the host's stage 1 and has no IPA")
    if abort.hpfar_valid:
        return _by_hpfar(stop, abort, far, hpfar)
    if abort.kind != "permission":
        kind = abort.kind.replace("_", " ")
        return _Finding(
            None, None, f"HPFAR_EL2 is not valid for this fault ({kind}), and there is no IPA to find"
        )
    if abort.fnv:
        return _Finding(None, None, "neither HPFAR_EL2 (permission fault) nor FAR_EL2 (FnV is 1) is valid")
    return _by_walk(stop, far, "HPFAR_EL2 is UNKNOWN for a permission fault that is not on a stage-1 walk")


def _by_hpfar(stop: Stop, abort: Abort, far: int, hpfar: int) -> _Finding:
    page = (hpfar & _FIPA) << 8
    if not abort.s1ptw:
        kind = f"a stage-2 {abort.kind.replace('_', ' ')} fault"
        if abort.fnv:
            return _Finding(page, "hpfar", f"HPFAR_EL2 is valid for {kind}; FAR_EL2 is not (FnV is 1)", True)
        return _Finding(page | far & _PAGE, "hpfar", f"HPFAR_EL2 is valid for {kind}; FAR_EL2 gives [11:0]")
    reason = (
        "HPFAR_EL2 is valid for a stage-2 fault on a stage-1 walk (S1PTW): the IPA of a stage-1 descriptor"
    )
    walk = stage1_walk(stop, far)
    fault = walk.fault if walk else None
    if fault and fault.s1ptw and fault.ipa is not None and fault.ipa & ~_PAGE == page:
        return _Finding(fault.ipa, "hpfar", f"{reason}; the walk of FAR_EL2 gives [11:0]", stage1=walk)
    return _Finding(page, "hpfar", f"{reason}; its place in the page is not known", True, stage1=walk)


def _by_walk(stop: Stop, address: int, why: str) -> _Finding:
    doubt = _whose_registers(stop)
    if not doubt.usable:
        return _Finding(None, None, f"{why}, and a stage-1 walk is not possible: {doubt.text}", certain=False)
    walk = stage1_walk(stop, address)
    if walk is None:
        return _Finding(None, None, f"{why}, and the guest's stage-1 tables cannot be walked")
    if walk.output is None:
        text = walk.fault.text if walk.fault else "a fault"
        return _Finding(None, None, f"{why}, and stage 1 no longer maps {address:#x}: {text}", stage1=walk)
    reason = f"{why}, so stage 1 was walked" + (f"; {doubt.text}" if doubt.text else "")
    return _Finding(walk.output, "stage1_walk", reason, certain=not doubt.text, stage1=walk)


@dataclass(frozen=True)
class _Doubt:
    """Whether the EL1 registers can be those of the code that faulted, and what speaks against it."""

    usable: bool
    text: str = ""


def _whose_registers(stop: Stop) -> _Doubt:
    """Judge the EL1 registers: they are the interrupted world's at the vector, and may be switched after it."""
    if stop.el == 2 and at_exception_entry(stop):
        return _Doubt(True)
    world, _ = world_of(stop)
    if world == "guest":
        return _Doubt(True, "a guest has run since the fault: the walk is of the guest that is loaded now")
    loaded = stop.register("VTTBR_EL2") != 0
    if world == "hypervisor" and loaded:
        return _Doubt(True, "the hypervisor has run since the vector; VTTBR_EL2 is still the guest's")
    if world == "host" and stop.el == 2 and loaded:
        return _Doubt(True, "the VHE host runs; the EL1 registers are of the vCPU that was loaded last")
    return _Doubt(False, "the EL1 registers belong to the host by now; stop at the EL2 vector instead")


def _report(
    stop: Stop, syndrome: Syndrome | None, finding: _Finding, far: int, hpfar: int, verbose: bool
) -> IpaReport:
    abort = syndrome.abort if syndrome else None
    walked = finding.stage1.output if finding.stage1 and finding.method == "stage1_walk" else None
    held = (hpfar & _FIPA) << 8
    return IpaReport(
        ipa=None if finding.ipa is None else IPA(finding.ipa),
        method=finding.method,
        hpfar_valid=bool(abort and abort.hpfar_valid),
        reason=finding.reason,
        ipa_page_only=finding.page_only,
        certain=finding.certain,
        syndrome=syndrome.summary if syndrome else None,
        is_abort=abort is not None,
        esr=syndrome.esr if syndrome else None,
        far=VA(far),
        hpfar=Word(hpfar),
        hpfar_ipa=IPA(held),
        hpfar_agrees=None if walked is None else walked & ~_PAGE == held,
        s1ptw=bool(abort and abort.s1ptw),
        vmid=_vmid(stop),
        stage1=report_of(finding.stage1) if finding.stage1 else None,
        stage2=_stage2_walk(stop, finding),
        verbose=verbose,
    )


def _vmid(stop: Stop) -> int | None:
    vttbr = stop.register("VTTBR_EL2")
    return vmid_of(vttbr, stop.optional("VTCR_EL2")) if vttbr else None


def _stage2_walk(stop: Stop, finding: _Finding) -> WalkReport | None:
    """Return what stage 2 maps at the IPA now; None with no IPA or no stage-2 root."""
    if finding.ipa is None or not stop.register("VTTBR_EL2"):
        return None
    try:
        machine = machine_for(stop.machine, Regime.EL10, "2")
        return report_of(translate(machine, finding.ipa, Regime.EL10, stages="2"))
    except GdbhypError:
        return None
