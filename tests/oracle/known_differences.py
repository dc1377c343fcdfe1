"""Where QEMU's AT instructions may leave another PAR_EL1 than the engine, and why.

Each entry is either a defect of QEMU, judged by the architecture (the source names the function of Arm's ASL, v9.4,
or the Arm ARM's field), or a choice that the architecture leaves to the implementation. It explains a difference

* by ``as_if``: it changes the case into what QEMU makes of it, and the engine then has to give QEMU's answer
  exactly; or
* by ``covers``: a predicate on both answers, where no change of the case does that.

Entries are tried alone first, then together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from . import quirks
from .machine import Case
from .quirks import Retry, Version, kind, stages


class Known(NamedTuple):
    """A reason to differ: ``versions`` is the half-open range of QEMU versions that it concerns."""

    name: str
    versions: tuple[Version, Version]
    source: str
    reason: str
    as_if: Callable[[Retry], bool] | None = None
    covers: Callable[[Retry], bool] | None = None
    late: bool = False
    """Looks at the engine's answer after the other changes, not at the case alone."""


ALL: Version = (0,)
NEVER: Version = (999,)


KNOWN: tuple[Known, ...] = (
    Known(
        "defect: HCR_EL2.PTW fault at level 0",
        (ALL, NEVER),
        "AArch64_S2CheckPermissions",
        "a stage-1 walk that hits Device memory is reported with level 0, not the stage-2 level",
        covers=quirks.ptw_level,
    ),
    Known(
        "defect: HCR_EL2.PTW without stage 2",
        (ALL, NEVER),
        "AArch64_S2Translate (returns before any check while VM = 0)",
        "with stage 2 off every stage-1 walk is taken for one that hits Device memory",
        covers=quirks.ptw_without_stage2,
    ),
    Known(
        "defect: HCR_EL2.TGE leaves stage 1 on",
        (ALL, NEVER),
        "AArch64_S1Enabled",
        "AT S1E0*, S1E1*, S12E* walk EL1's tables although TGE makes SCTLR_EL1.M act as 0",
        as_if=quirks.without_tge,
    ),
    Known(
        "defect: SCTLR_ELx.C ignored",
        (ALL, NEVER),
        "AArch64_S1Translate (NormalNCMemAttr when not AArch64_S1DCacheEnabled)",
        "Normal memory is reported with its MAIR attributes while the data cache is off",
        as_if=quirks.cacheable,
    ),
    Known(
        "defect: XS encodings of MAIR",
        (ALL, NEVER),
        "S1DecodeMemAttrs",
        "MAIR 0x40 is not made Outer Shareable, 0xa0 combines as if its inner attribute were reserved",
        covers=quirks.xs_attribute,
    ),
    Known(
        "defect: RES0 bits of a block checked as address",
        (ALL, NEVER),
        "AArch64_LeafBase",
        "bits of a block descriptor below its address are held against the output address size",
        covers=quirks.reserved_bits_checked,
    ),
    Known(
        "choice: reserved MemAttr with FWB",
        (ALL, NEVER),
        "AArch64_S2ApplyFWBMemAttrs; MemAttr 0b0100 and 0b1xxx",
        "QEMU takes them for Device-nGnRnE",
        as_if=quirks.reserved_memattr,
        late=True,
    ),
    Known(
        "defect: SH of Device and Non-cacheable",
        (ALL, (8,)),
        "PAREncodeShareability",
        "SH is the descriptor's (or 0 while the MMU is off), not 0b10",
        covers=quirks.plain_shareability,
    ),
    Known(
        "defect: stage-1 level of a stage-2 fault",
        (ALL, (8,)),
        "AArch64_S1Walk returns the FaultRecord of AArch64_S2Translate",
        "a stage-2 fault on a stage-1 walk is reported with the level of stage 1",
        covers=quirks.stage1_level,
    ),
    Known(
        "defect: IPA size held against VTCR_EL2.PS",
        (ALL, (8,)),
        "AArch64_S2MinTxSZ, AArch64_S2InvalidSL (AArch64_PAMax)",
        "a stage-2 input or a start level too large for VTCR_EL2.PS, not for PARange, is a Translation fault",
        covers=quirks.input_size_against_ps,
    ),
    Known(
        "defect: blocks at every level",
        (ALL, (8,)),
        "AArch64_BlockDescSupported",
        "level 0 (4 KiB), level 1 (16 KiB) may hold blocks without DS, and level 0 (16 KiB) with it",
        covers=quirks.block_level,
    ),
    Known(
        "defect: start levels of DS refused",
        (ALL, (8,)),
        "AArch64_S2InvalidSL",
        "4 KiB level -1 and 16 KiB level 0 are Translation faults",
        covers=quirks.start_level_with_ds,
    ),
    Known(
        "defect: Device type of two stages",
        (ALL, NEVER),
        "S2CombineS1Device, AArch64_S2ApplyFWBMemAttrs",
        "with FWB a stage-2 Device type replaces a stricter one of stage 1; without, the low nibble of a Normal "
        "attribute (4 in Non-cacheable) counts as if it were a Device type",
        covers=quirks.device_type,
    ),
    Known(
        "defect: transient hint lost",
        (ALL, NEVER),
        "S2CombineS1AttrHints",
        "where stage 2 makes Write-Back Write-Through, the transient hint of stage 1 is dropped",
        covers=quirks.transient,
    ),
    Known(
        "defect: HCR_EL2.CD ignored with FWB",
        (ALL, NEVER),
        "AArch64_S2Translate (NormalNCMemAttr when HCR_EL2.CD)",
        "Normal memory stays cacheable",
        as_if=quirks.without_cd,
    ),
    Known(
        "defect: PAN ignored with NV1 in EL2&0",
        (ALL, NEVER),
        "AArch64_S1DirectBasePermissions",
        "NV1 switches PAN off in the EL1&0 regime only",
        as_if=quirks.without_pan,
    ),
    Known(
        "defect: AT sets dirty state",
        (ALL, NEVER),
        "AArch64_S1Translate (SettingDirtyStatePermitted, not for AccessType_AT)",
        "an AT for a write sets dirty state, and fails where stage 2 maps the table read-only",
        covers=quirks.sets_dirty_state,
    ),
    Known(
        "defect: TTBR[5:2] of a small table used twice",
        (ALL, NEVER),
        "AArch64_S1TTBaseAddress, AArch64_S2TTBaseAddress (at least 64 bytes)",
        "where TTBR[5:2] are address bits [51:48], bits [5:4] count as address bits [5:4] besides",
        covers=quirks.small_wide_table,
    ),
    Known(
        "defect: input bits of a block's output address not checked",
        (ALL, NEVER),
        "AArch64_S1Walk, AArch64_S2Walk (AArch64_OAOutOfRange of StageOA)",
        "a block larger than the output address size maps addresses beyond it",
        as_if=quirks.with_larger_output,
        late=True,
    ),
    Known(
        "choice: AT S12E* with {E2H,TGE} = {1,1}",
        (ALL, NEVER),
        "AArch64_AT",
        "QEMU takes it for AT S1E* of the EL2&0 regime",
        as_if=quirks.stage1_of_host,
    ),
    Known(
        "choice: stage-2 T0SZ below the minimum",
        (ALL, NEVER),
        "AArch64_S2TxSZFaults",
        "without 52-bit addresses it need not fault, and QEMU takes it as it is down to 16",
        as_if=quirks.low_t0sz,
    ),
    Known(
        "choice: reserved PS",
        (ALL, NEVER),
        "TCR_EL1.IPS, TCR_EL2.PS, VTCR_EL2.PS",
        "0b111 is 0b110 in QEMU, also for where TTBR has its address bits",
        as_if=quirks.reserved_ps,
    ),
    Known(
        "defect: descriptor address bits above 47 ignored",
        (ALL, NEVER),
        "AArch64_LeafBase, AArch64_NextTableBase, AArch64_OAOutOfRange",
        "descriptor address bits [51:48] (64 KiB) or [51:50] (DS) do not count while PS is at most 48 bits",
        as_if=quirks.without_high_bits,
        late=True,
    ),
    Known(
        "defect: HCR_EL2 while EL2 is disabled",
        (ALL, NEVER),
        "AArch64_S1TTWParamsEL10, AArch64_S1Walk (EL2Enabled)",
        "NV1 counts for Secure EL1&0 although Secure EL2 is disabled",
        as_if=quirks.with_el2,
    ),
    Known(
        "defect: stage 2 while EL2 is disabled",
        (ALL, NEVER),
        "AArch64_S1Walk (EL2Enabled)",
        "with HCR_EL2.VM or DC the walks of Secure EL1&0 go through stage 2 although Secure EL2 is disabled",
        covers=quirks.stage2_of_disabled_el2,
    ),
    Known(
        "defect: HPD without FEAT_HPDS",
        (ALL, NEVER),
        "AArch64_S1TTWParamsEL10, AArch64_S1TTWParamsEL2 (AArch64_HaveHPDExt)",
        "TCR_ELx.HPD disables hierarchical permissions although ID_AA64MMFR1_EL1.HPDS is 0",
        as_if=quirks.with_hpd,
    ),
    Known(
        "defect: TTBR address bits above 47 ignored",
        (ALL, NEVER),
        "AArch64_S1TTBaseAddress, AArch64_S2TTBaseAddress",
        "with DS, TTBR bits [5:2] do not count while PS is 48 bits or less",
        as_if=quirks.without_high_base,
    ),
)


def entries(version: Version) -> list[Known]:
    return [entry for entry in KNOWN if entry.versions[0] <= version < entry.versions[1]]


def kills(version: Version, case: Case, our_par: int) -> bool:
    """Whether QEMU ends on an assertion: 10.0 at an AT S12E* whose result is a stage-2 Permission fault."""
    return (
        version[:2] == (10, 0)
        and case["op"].startswith("S12")
        and kind(our_par) == "permission"
        and stages(our_par) == 2
    )
