"""Where QEMU's AT instructions may leave another PAR_EL1 than the engine, and why.

Each entry is either a defect of QEMU, judged by the architecture (the source names the function of Arm's ASL, v9.4,
or the Arm ARM's field), or a choice that the architecture leaves to the implementation. It explains a difference

* by ``as_if``: it changes the case into what QEMU makes of it, and the engine then has to give QEMU's answer
  exactly; or
* by ``covers``: a predicate on both answers, where no change of the case does that.

``ignore`` are bits of a successful PAR_EL1 that may differ besides. Entries are tried alone first, then together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from .machine import Case

Version = tuple[int, ...]

SH, ATTR = 3 << 7, 0xFF << 56

HCR_VM, HCR_PTW, HCR_DC, HCR_TGE, HCR_CD, HCR_E2H, HCR_NV1, HCR_FWB = (
    1 << b for b in (0, 2, 12, 27, 32, 34, 43, 46)
)
SCR_NS, SCR_EEL2 = 1 << 0, 1 << 18
SCTLR_C, SCTLR_EE = 1 << 2, 1 << 25


class Ours(NamedTuple):
    """The engine's answer: PAR_EL1, whether it is an exception instead, or why there is none.

    ``reads`` are the physical addresses of the descriptors that the walk read, in order; ``strayed`` says that one is
    where the run itself writes.
    """

    par: int
    exception: bool
    error: str
    strayed: bool
    reads: tuple[int, ...]


class Difference(NamedTuple):
    """A case and both answers; a ``par`` of QEMU that stands for an exception has only F, FST and PTW."""

    case: Case
    regs: dict[str, int]
    version: Version
    model: str
    par: int
    exception: bool
    ours: Ours

    @property
    def op(self) -> str:
        return str(self.case["op"])

    @property
    def el10(self) -> bool:
        """Whether the EL1&0 regime is asked for."""
        return not self.op.startswith("S1E2") and not (self.op.startswith("S1E") and self.host)

    @property
    def host(self) -> bool:
        return self.regs["HCR_EL2"] & (HCR_E2H | HCR_TGE) == HCR_E2H | HCR_TGE

    @property
    def upper(self) -> bool:
        return bool(int(self.case["va"], 16) >> 55 & 1)


@dataclass
class Retry:
    """The case once more: entries change ``op``, ``regs``, and ``patches``: descriptors by physical address."""

    difference: Difference
    op: str
    regs: dict[str, int]
    patches: dict[int, bytes]
    ours: Ours
    memory: bytearray

    def order(self, stage: int) -> Literal["little", "big"]:
        name = "SCTLR_EL1" if stage == 1 and self.difference.el10 else "SCTLR_EL2"
        return "big" if self.regs[name] & SCTLR_EE else "little"

    def descriptor(self, address: int, stage: int) -> int:
        raw = self.patches.get(address, bytes(self.memory[address : address + 8]))
        return int.from_bytes(raw, self.order(stage))

    def patch(self, address: int, stage: int, word: int) -> None:
        self.patches[address] = word.to_bytes(8, self.order(stage))


class Known(NamedTuple):
    """A reason to differ: ``versions`` is the half-open range of QEMU versions that it concerns."""

    name: str
    versions: tuple[Version, Version]
    source: str
    reason: str
    as_if: Callable[[Retry], bool] | None = None
    covers: Callable[[Retry], bool] | None = None
    ignore: int = 0
    late: bool = False
    """Looks at the engine's answer after the other changes, not at the case alone."""


ALL: Version = (0,)
NEVER: Version = (999,)


def faults(par: int) -> bool:
    return bool(par & 1)


def kind(par: int) -> str:
    """Return the kind of the fault in a PAR_EL1, or "" for a success."""
    if not par & 1:
        return ""
    fst = par >> 1 & 0x3F
    if fst == 0x29:
        return "address size"
    if fst == 0x2B:
        return "translation"
    return {
        0: "address size",
        1: "translation",
        2: "access flag",
        3: "permission",
        5: "abort",
        4: "abort",
    }.get(fst >> 2, "")


def stages(par: int) -> int:
    """Return S and PTW of a fault: 0 stage 1, 2 stage 2, 3 stage 2 on a stage-1 walk."""
    return par >> 8 & 3


# Stage 1 and 2 controls, as far as the entries need them -----------------------------------------------


def tcr_name(d: Difference) -> str:
    return "TCR_EL1" if d.el10 else "TCR_EL2"


class Layout(NamedTuple):
    """The descriptor format of a stage: log2 of its granule, whether DS is set, its PS code."""

    granule: int
    ds: bool
    ps: int


def layout(retry: Retry, stage: int) -> Layout:
    regs, d = retry.regs, retry.difference
    if stage == 2:
        tcr, tg, ds_bit, ps = regs["VTCR_EL2"], regs["VTCR_EL2"] >> 14 & 3, 32, regs["VTCR_EL2"] >> 16 & 7
        return Layout(GRANULE[tg], bool(tcr >> ds_bit & 1), ps)
    tcr = regs[tcr_name(d)]
    if not d.el10 and not regs["HCR_EL2"] & HCR_E2H:
        return Layout(GRANULE[tcr >> 14 & 3], bool(tcr >> 32 & 1), tcr >> 16 & 7)
    tg = GRANULE_UPPER[tcr >> 30 & 3] if d.upper else GRANULE[tcr >> 14 & 3]
    return Layout(tg, bool(tcr >> 59 & 1), tcr >> 32 & 7)


OUTPUT_SIZES = (32, 36, 40, 42, 44, 48, 52, 56)
GRANULE = {0: 12, 1: 16, 2: 14, 3: 12}
GRANULE_UPPER = {0: 12, 1: 14, 2: 12, 3: 16}


# The entries' actions ----------------------------------------------------------------------------------


def without_tge(retry: Retry) -> bool:
    """EL1&0 stage 1 stays on although TGE is 1."""
    d = retry.difference
    if not d.el10 or d.host or not retry.regs["HCR_EL2"] & HCR_TGE:
        return False
    retry.regs["HCR_EL2"] &= ~(HCR_TGE | HCR_PTW)  # as TGE does, PTW counts for nothing
    return True


def stage1_of_host(retry: Retry) -> bool:
    """AT S12E* is AT S1E* of the EL2&0 regime."""
    if not retry.op.startswith("S12") or not retry.difference.host:
        return False
    retry.op = "S1" + retry.op[3:]
    return True


def without_pan(retry: Retry) -> bool:
    """AT S1E1RP, S1E1WP of the EL2&0 regime do not look at PSTATE.PAN while NV1 is 1."""
    if not retry.op.endswith("P") or retry.difference.el10 or not retry.regs["HCR_EL2"] & HCR_NV1:
        return False
    retry.op = retry.op[:-1]
    return True


def with_el2(retry: Retry) -> bool:
    """HCR_EL2 counts in Secure EL1&0 although EL2 is disabled there."""
    if not disabled_el2(retry):
        return False
    retry.regs["SCR_EL3"] |= SCR_EEL2
    set_field(retry, "ID_AA64PFR0_EL1", 36, 1, 15)
    return True


def disabled_el2(retry: Retry) -> bool:
    has_secure_el2 = retry.regs["ID_AA64PFR0_EL1"] >> 36 & 15
    scr = retry.regs["SCR_EL3"]
    return retry.difference.el10 and not scr & SCR_NS and not (has_secure_el2 and scr & SCR_EEL2)


def stage2_of_disabled_el2(retry: Retry) -> bool:
    d = retry.difference
    stage2 = stages(d.par) & (1 if d.exception else 2)
    return (
        disabled_el2(retry)
        and faults(d.par)
        and bool(stage2)
        and bool(retry.regs["HCR_EL2"] & (HCR_VM | HCR_DC))
    )


def without_cd(retry: Retry) -> bool:
    hcr = retry.regs["HCR_EL2"]
    if not hcr & HCR_FWB or not hcr & HCR_CD:
        return False
    retry.regs["HCR_EL2"] &= ~HCR_CD
    return True


def cacheable(retry: Retry) -> bool:
    name = "SCTLR_EL1" if retry.difference.el10 else "SCTLR_EL2"
    if retry.regs[name] & SCTLR_C:
        return False
    retry.regs[name] |= SCTLR_C
    return True


def with_hpd(retry: Retry) -> bool:
    """HPD counts without FEAT_HPDS."""
    if retry.regs["ID_AA64MMFR1_EL1"] >> 12 & 15:
        return False
    set_field(retry, "ID_AA64MMFR1_EL1", 12, 1, 15)
    return True


def without_xs(retry: Retry) -> bool:
    if not retry.regs["ID_AA64ISAR1_EL1"] >> 56 & 15:
        return False
    retry.regs["ID_AA64ISAR1_EL1"] &= ~(15 << 56)
    return True


def without_high_bits(retry: Retry) -> bool:
    """Descriptor address bits [51:48] (64 KiB) or [51:50] (DS) are not there while PS is at most 48 bits."""
    if retry.ours.error or kind(retry.ours.par) != "address size" or not retry.ours.reads:
        return False
    stage = 2 if stages(retry.ours.par) & 2 else 1
    form = layout(retry, stage)
    if form.ps > 5 or not (form.granule == 16 or form.ds):
        return False
    word = retry.descriptor(retry.ours.reads[-1], stage)
    field = 0xF000 if form.granule == 16 else 0x300
    if not word & field:
        return False
    retry.patch(retry.ours.reads[-1], stage, word & ~field)
    return True


def with_larger_output(retry: Retry) -> bool:
    """Only the block's own address is held against PS, not the bits that come from the input address."""
    if retry.ours.error or kind(retry.ours.par) != "address size" or not retry.ours.reads:
        return False
    stage = 2 if stages(retry.ours.par) & 2 else 1
    form = layout(retry, stage)
    word = retry.descriptor(retry.ours.reads[-1], stage)
    if word & 3 != 1 or form.ps >= 5 or (word & 0xFFFF_FFFF_0000) >> OUTPUT_SIZES[form.ps]:
        return False
    if stage == 2:
        set_field(retry, "VTCR_EL2", 16, 5)
    else:
        name = tcr_name(retry.difference)
        set_field(retry, name, 32 if name == "TCR_EL1" or retry.regs["HCR_EL2"] & HCR_E2H else 16, 5)
    return True


def reserved_memattr(retry: Retry) -> bool:
    hcr = retry.regs["HCR_EL2"]
    if (
        not hcr & HCR_FWB
        or not hcr & (HCR_VM | HCR_DC)
        or not retry.op.startswith("S12")
        or not retry.ours.reads
    ):
        return False
    address = retry.ours.reads[-1]
    word = retry.descriptor(address, 2)
    if word >> 2 & 15 in (0, 1, 2, 3, 5, 6, 7):
        return False
    retry.patch(address, 2, word & ~(15 << 2))
    return True


def set_field(retry: Retry, name: str, lsb: int, value: int, mask: int = 7) -> None:
    retry.regs[name] = retry.regs[name] & ~(mask << lsb) | value << lsb


def reserved_ps(retry: Retry) -> bool:
    """PS = 0b111 is 0b110."""
    changed = False
    for stage in (1, 2):
        if layout(retry, stage).ps == 7:
            name = "VTCR_EL2" if stage == 2 else tcr_name(retry.difference)
            wide = name == "TCR_EL1" or (stage == 1 and retry.regs["HCR_EL2"] & HCR_E2H)
            set_field(retry, name, 32 if wide else 16, 6)
            changed = True
    return changed


def without_high_base(retry: Retry) -> bool:
    """TTBR bits [5:2], address bits [51:48], are not there while PS is at most 48 bits."""
    changed = False
    for stage in (1, 2):
        form = layout(retry, stage)
        if form.granule == 16 or not form.ds or form.ps > 5:
            continue
        d = retry.difference
        half = "TTBR1" if d.upper else "TTBR0"
        name = "VTTBR_EL2" if stage == 2 else half + ("_EL1" if d.el10 else "_EL2")
        changed |= bool(retry.regs[name] & 0x3E)
        retry.regs[name] &= ~0x3E
    return changed


def ptw_fault(retry: Retry) -> bool:
    """Whether QEMU reports what HCR_EL2.PTW makes: at level 0, or before version 8 at the level of stage 1."""
    d = retry.difference
    level_0 = d.par == PTW_LEVEL_0 or (
        d.version < (8,) and kind(d.par) == "permission" and stages(d.par) == 3
    )
    return bool(d.regs["HCR_EL2"] & HCR_PTW) and level_0


def ptw_level(retry: Retry) -> bool:
    return ptw_fault(retry) and kind(retry.ours.par) == "permission" and stages(retry.ours.par) == 3


def ptw_without_stage2(retry: Retry) -> bool:
    d = retry.difference
    return ptw_fault(retry) and d.el10 and not d.regs["HCR_EL2"] & (HCR_VM | HCR_DC)


PTW_LEVEL_0 = 0xB19


def attributes_only(retry: Retry, mask: int = ATTR) -> bool:
    theirs, mine = retry.difference.par, retry.ours.par
    return not faults(theirs | mine) and not (theirs ^ mine) & ~mask


def device_type(retry: Retry) -> bool:
    both_device = not retry.difference.par >> 60 and not retry.ours.par >> 60
    two_stages = retry.difference.el10 and retry.op.startswith("S12")
    return two_stages and both_device and attributes_only(retry)


def transient(retry: Retry) -> bool:
    """Whether the answers differ only in that QEMU has a non-transient Write-Through for a transient one."""
    if not attributes_only(retry):
        return False
    for shift in (56, 60):
        theirs, mine = retry.difference.par >> shift & 15, retry.ours.par >> shift & 15
        if theirs != mine and not (mine & 3 and mine < 4 and theirs == mine | 8):
            return False
    return True


def xs_attribute(retry: Retry) -> bool:
    """Whether only attributes differ, FEAT_XS is there, and MAIR has one of the encodings that it adds."""
    mair = retry.regs["MAIR_EL1" if retry.difference.el10 else "MAIR_EL2"].to_bytes(8, "little")
    has_xs = bool(retry.regs["ID_AA64ISAR1_EL1"] >> 56 & 15)
    return (
        has_xs
        and attributes_only(retry, ATTR | SH)
        and any(byte in (0x40, 0xA0, 1, 5, 9, 13) for byte in mair)
    )


def sets_dirty_state(retry: Retry) -> bool:
    """Whether an AT for a write met a stage-2 Permission fault on a walk, and hardware may set dirty state."""
    d = retry.difference
    hardware = d.regs[tcr_name(d)] >> 39 & 3 == 3
    return d.el10 and "W" in d.op and hardware and kind(d.par) == "permission" and stages(d.par) == 3


def reserved_bits_checked(retry: Retry) -> bool:
    """Whether QEMU has an Address size fault, and a block was read whose RES0 bits would be beyond the size."""
    d = retry.difference
    if kind(d.par) != "address size" or kind(retry.ours.par) == "address size":
        return False
    stage = 2 if stages(d.par) & 2 else 1
    size = OUTPUT_SIZES[layout(retry, stage).ps]
    words = (retry.descriptor(address, stage) for address in retry.ours.reads)
    return any(word & 3 == 1 and (word & 0xFFFF_FFFF_F000) >> size for word in words)


def small_wide_table(retry: Retry) -> bool:
    """Whether a first table of less than 64 bytes has address bits in TTBR[5:2] that QEMU takes for two things."""
    for stage in (1, 2):
        table = first_table(retry, stage)
        if table.wide and table.size < 6 and retry.regs[table.register] & 0x3C & -(1 << table.size):
            return True
    return False


class FirstTable(NamedTuple):
    """Where a stage starts: its base register, log2 of the table's size, and whether BADDR has bits [51:48]."""

    register: str
    size: int
    wide: bool


def first_table(retry: Retry, stage: int) -> FirstTable:
    d, form = retry.difference, layout(retry, stage)
    if stage == 2:
        name, size, levels = "VTTBR_EL2", 64 - (retry.regs["VTCR_EL2"] & 63), stage2_levels(retry)
    else:
        name = ("TTBR1" if d.upper else "TTBR0") + ("_EL1" if d.el10 else "_EL2")
        two_halves = d.el10 or retry.regs["HCR_EL2"] & HCR_E2H
        size = 64 - (retry.regs[tcr_name(d)] >> (16 if d.upper and two_halves else 0) & 63)
        levels = (size - 1 - form.granule) // (form.granule - 3)
    bits = max(size - levels * (form.granule - 3) - form.granule, 0) + 3
    return FirstTable(name, bits, form.ds or form.ps >= 6)


def stage2_levels(retry: Retry) -> int:
    """Return how many levels of stage 2 are above level 3, by VTCR_EL2.{SL2,SL0}."""
    form, vtcr = layout(retry, 2), retry.regs["VTCR_EL2"]
    sl0, sl2 = vtcr >> 6 & 3, vtcr >> 33 & 1
    if form.granule != 12:
        return sl0
    return 4 if sl2 and form.ds else (sl0 + 1) % 4


def plain_shareability(retry: Retry) -> bool:
    """Whether only SH differs, and ours is Outer Shareable, as one stage's Device or Non-cacheable memory makes it."""
    return attributes_only(retry, SH) and retry.ours.par & SH == 2 << 7


def stage1_level(retry: Retry) -> bool:
    """Whether the answers differ only in the level of a stage-2 fault on a stage-1 walk."""
    theirs, mine = retry.difference.par, retry.ours.par
    if retry.difference.exception or retry.ours.exception:
        walk = retry.difference.exception and retry.ours.exception and theirs & mine & 0x100
        return bool(walk) and kind(theirs) == kind(mine)
    return stages(theirs) == stages(mine) == 3 and kind(theirs) == kind(mine)


def input_size_against_ps(retry: Retry) -> bool:
    """Whether stage 2 has a Translation fault in QEMU, and its input is larger than VTCR_EL2.PS."""
    d = retry.difference
    if kind(d.par) != "translation" or not stages(d.par) & 2:
        return False
    form = layout(retry, 2)
    size = OUTPUT_SIZES[form.ps]
    smallest = {(12, 3): 44, (14, 2): 42, (16, 2): 44}.get((form.granule, stage2_levels(retry)), 0)
    return max(64 - (d.regs["VTCR_EL2"] & 63), smallest) > size


def block_level(retry: Retry) -> bool:
    """Whether ours is a Translation fault at a block, which no other rule makes one."""
    if kind(retry.ours.par) != "translation" or not retry.ours.reads:
        return False
    stage = 2 if stages(retry.ours.par) & 2 else 1
    return retry.descriptor(retry.ours.reads[-1], stage) & 3 == 1


def start_level_with_ds(retry: Retry) -> bool:
    """Whether stage 2 has a Translation fault in QEMU, and starts at a level that exists only with DS."""
    d = retry.difference
    if kind(d.par) != "translation" or not stages(d.par) & 2:
        return False
    form = layout(retry, 2)
    return form.ds and (stage2_levels(retry), form.granule) in ((4, 12), (3, 14))


KNOWN: tuple[Known, ...] = (
    Known(
        "defect: HCR_EL2.PTW fault at level 0",
        (ALL, NEVER),
        "AArch64_S2CheckPermissions",
        "a stage-1 walk that hits Device memory is reported with level 0, not the stage-2 level",
        covers=ptw_level,
    ),
    Known(
        "defect: HCR_EL2.PTW without stage 2",
        (ALL, NEVER),
        "AArch64_S2Translate (returns before any check while VM = 0)",
        "with stage 2 off every stage-1 walk is taken for one that hits Device memory",
        covers=ptw_without_stage2,
    ),
    Known(
        "defect: HCR_EL2.TGE leaves stage 1 on",
        (ALL, NEVER),
        "AArch64_S1Enabled",
        "AT S1E0*, S1E1*, S12E* walk EL1's tables although TGE makes SCTLR_EL1.M act as 0",
        as_if=without_tge,
    ),
    Known(
        "defect: SCTLR_ELx.C ignored",
        (ALL, NEVER),
        "AArch64_S1Translate (NormalNCMemAttr when not AArch64_S1DCacheEnabled)",
        "Normal memory is reported with its MAIR attributes while the data cache is off",
        as_if=cacheable,
    ),
    Known(
        "defect: XS ignored",
        (ALL, NEVER),
        "AArch64_EncodePARAttrs, S1DecodeMemAttrs",
        "the XS attribute (MAIR 0x40, 0xa0, FnXS) is not tracked, though ID_AA64ISAR1_EL1.XS says it is",
        as_if=without_xs,
        ignore=SH,
    ),
    Known(
        "defect: XS encodings of MAIR",
        (ALL, NEVER),
        "S1DecodeMemAttrs",
        "MAIR 0x40 is not made Outer Shareable, 0xa0 combines as if its inner attribute were reserved",
        covers=xs_attribute,
    ),
    Known(
        "defect: RES0 bits of a block checked as address",
        (ALL, NEVER),
        "AArch64_LeafBase",
        "bits of a block descriptor below its address are held against the output address size",
        covers=reserved_bits_checked,
    ),
    Known(
        "choice: reserved MemAttr with FWB",
        (ALL, NEVER),
        "AArch64_S2ApplyFWBMemAttrs; MemAttr 0b0100 and 0b1xxx",
        "QEMU takes them for Device-nGnRnE",
        as_if=reserved_memattr,
        late=True,
    ),
    Known(
        "defect: SH of Device and Non-cacheable",
        (ALL, (8,)),
        "PAREncodeShareability",
        "SH is the descriptor's (or 0 while the MMU is off), not 0b10",
        covers=plain_shareability,
    ),
    Known(
        "defect: stage-1 level of a stage-2 fault",
        (ALL, (8,)),
        "AArch64_S1Walk returns the FaultRecord of AArch64_S2Translate",
        "a stage-2 fault on a stage-1 walk is reported with the level of stage 1",
        covers=stage1_level,
    ),
    Known(
        "defect: IPA size held against VTCR_EL2.PS",
        (ALL, (8,)),
        "AArch64_S2MinTxSZ, AArch64_S2InvalidSL (AArch64_PAMax)",
        "a stage-2 input or a start level too large for VTCR_EL2.PS, not for PARange, is a Translation fault",
        covers=input_size_against_ps,
    ),
    Known(
        "defect: blocks at every level",
        (ALL, (8,)),
        "AArch64_BlockDescSupported",
        "level 0 (4 KiB), level 1 (16 KiB) may hold blocks without DS, and level 0 (16 KiB) with it",
        covers=block_level,
    ),
    Known(
        "defect: start levels of DS refused",
        (ALL, (8,)),
        "AArch64_S2InvalidSL",
        "4 KiB level -1 and 16 KiB level 0 are Translation faults",
        covers=start_level_with_ds,
    ),
    Known(
        "defect: Device type of two stages",
        (ALL, NEVER),
        "S2CombineS1Device, AArch64_S2ApplyFWBMemAttrs",
        "with FWB a stage-2 Device type replaces a stricter one of stage 1; without, the low nibble of a Normal "
        "attribute (4 in Non-cacheable) counts as if it were a Device type",
        covers=device_type,
    ),
    Known(
        "defect: transient hint lost",
        (ALL, NEVER),
        "S2CombineS1AttrHints",
        "where stage 2 makes Write-Back Write-Through, the transient hint of stage 1 is dropped",
        covers=transient,
    ),
    Known(
        "defect: HCR_EL2.CD ignored with FWB",
        (ALL, NEVER),
        "AArch64_S2Translate (NormalNCMemAttr when HCR_EL2.CD)",
        "Normal memory stays cacheable",
        as_if=without_cd,
    ),
    Known(
        "defect: PAN ignored with NV1 in EL2&0",
        (ALL, NEVER),
        "AArch64_S1DirectBasePermissions",
        "NV1 switches PAN off in the EL1&0 regime only",
        as_if=without_pan,
    ),
    Known(
        "defect: AT sets dirty state",
        (ALL, NEVER),
        "AArch64_S1Translate (SettingDirtyStatePermitted, not for AccessType_AT)",
        "an AT for a write sets dirty state, and fails where stage 2 maps the table read-only",
        covers=sets_dirty_state,
    ),
    Known(
        "defect: TTBR[5:2] of a small table used twice",
        (ALL, NEVER),
        "AArch64_S1TTBaseAddress, AArch64_S2TTBaseAddress (at least 64 bytes)",
        "where TTBR[5:2] are address bits [51:48], bits [5:4] count as address bits [5:4] besides",
        covers=small_wide_table,
    ),
    Known(
        "defect: input bits of a block's output address not checked",
        (ALL, NEVER),
        "AArch64_S1Walk, AArch64_S2Walk (AArch64_OAOutOfRange of StageOA)",
        "a block larger than the output address size maps addresses beyond it",
        as_if=with_larger_output,
        late=True,
    ),
    Known(
        "choice: AT S12E* with {E2H,TGE} = {1,1}",
        (ALL, NEVER),
        "AArch64_AT",
        "QEMU takes it for AT S1E* of the EL2&0 regime",
        as_if=stage1_of_host,
    ),
    Known(
        "choice: reserved PS",
        (ALL, NEVER),
        "TCR_EL1.IPS, TCR_EL2.PS, VTCR_EL2.PS",
        "0b111 is 0b110 in QEMU, also for where TTBR has its address bits",
        as_if=reserved_ps,
    ),
    Known(
        "defect: descriptor address bits above 47 ignored",
        (ALL, NEVER),
        "AArch64_LeafBase, AArch64_NextTableBase, AArch64_OAOutOfRange",
        "descriptor address bits [51:48] (64 KiB) or [51:50] (DS) do not count while PS is at most 48 bits",
        as_if=without_high_bits,
        late=True,
    ),
    Known(
        "defect: HCR_EL2 while EL2 is disabled",
        (ALL, NEVER),
        "AArch64_S1TTWParamsEL10, AArch64_S1Walk (EL2Enabled)",
        "NV1 counts for Secure EL1&0 although Secure EL2 is disabled",
        as_if=with_el2,
    ),
    Known(
        "defect: stage 2 while EL2 is disabled",
        (ALL, NEVER),
        "AArch64_S1Walk (EL2Enabled)",
        "HCR_EL2.VM or DC switches stage 2 on for Secure EL1&0 although Secure EL2 is disabled",
        covers=stage2_of_disabled_el2,
    ),
    Known(
        "defect: HPD without FEAT_HPDS",
        (ALL, NEVER),
        "AArch64_S1TTWParamsEL10, AArch64_S1TTWParamsEL2 (AArch64_HaveHPDExt)",
        "TCR_ELx.HPD disables hierarchical permissions although ID_AA64MMFR1_EL1.HPDS is 0",
        as_if=with_hpd,
    ),
    Known(
        "defect: TTBR address bits above 47 ignored",
        (ALL, NEVER),
        "AArch64_S1TTBaseAddress, AArch64_S2TTBaseAddress",
        "with DS, TTBR bits [5:2] do not count while PS is 48 bits or less",
        as_if=without_high_base,
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
