"""How QEMU differs from the architecture, as code: what ``known_differences`` names and gives reasons for.

A function that takes a ``Retry`` and returns a truth value is either an action, which changes the case into what QEMU
makes of it and says whether it could, or a predicate on both answers.
"""

from __future__ import annotations

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

    @property
    def el10(self) -> bool:
        """Whether the EL1&0 regime is asked for."""
        return not self.op.startswith("S1E2") and not (self.op.startswith("S1E") and self.host)

    @property
    def e2h(self) -> bool:
        """Whether HCR_EL2.E2H counts: it is RES0 without FEAT_VHE."""
        return bool(self.regs["HCR_EL2"] & HCR_E2H and self.regs["ID_AA64MMFR1_EL1"] >> 8 & 15)

    @property
    def host(self) -> bool:
        return self.e2h and bool(self.regs["HCR_EL2"] & HCR_TGE)

    def order(self, stage: int) -> Literal["little", "big"]:
        name = "SCTLR_EL1" if stage == 1 and self.el10 else "SCTLR_EL2"
        return "big" if self.regs[name] & SCTLR_EE else "little"

    def descriptor(self, address: int, stage: int) -> int:
        raw = self.patches.get(address, bytes(self.memory[address : address + 8]))
        return int.from_bytes(raw, self.order(stage))

    def patch(self, address: int, stage: int, word: int) -> None:
        self.patches[address] = word.to_bytes(8, self.order(stage))


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
    """Return S and PTW of a fault: 2 stage 2, 3 stage 2 on a stage-1 walk, 0 stage 1 or no fault."""
    return par >> 8 & 3 if faults(par) else 0


# Stage 1 and 2 controls, as far as the entries need them -----------------------------------------------


def tcr_name(retry: Retry) -> str:
    return "TCR_EL1" if retry.el10 else "TCR_EL2"


class Layout(NamedTuple):
    """How a stage is laid out: log2 of its granule, DS, the PS code, input bits, levels above 3, base register."""

    granule: int
    ds: bool
    ps: int
    size: int
    levels: int
    base: str

    @property
    def high64(self) -> bool:
        """Whether descriptors may hold address bits [51:48] in [15:12]."""
        return self.granule == 16

    @property
    def root_bits(self) -> int:
        """Log2 of the size of the first table."""
        return max(self.size - self.levels * (self.granule - 3) - self.granule, 0) + 3

    @property
    def wide(self) -> bool:
        """Whether TTBR[5:2] are address bits [51:48]."""
        return self.ds or self.ps >= 6


def layouts(retry: Retry, stage: int) -> list[Layout]:
    """Return the layout of stage 1, or those of stage 2: two in Secure state, one for each IPA space."""
    if stage == 1:
        return [stage1_layout(retry)]
    controls = [("VTCR_EL2", "VTTBR_EL2")]
    if not retry.regs["SCR_EL3"] & SCR_NS:
        controls.append(("VSTCR_EL2", "VSTTBR_EL2"))
    return [stage2_layout(retry.regs, *names) for names in controls]


def stage1_layout(retry: Retry) -> Layout:
    tcr, upper = retry.regs[tcr_name(retry)], retry.difference.upper
    if not two_halves(retry):
        granule, ds, ps, upper = GRANULE[tcr >> 14 & 3], bool(tcr >> 32 & 1), tcr >> 16 & 7, False
    else:
        granule = GRANULE_UPPER[tcr >> 30 & 3] if upper else GRANULE[tcr >> 14 & 3]
        ds, ps = bool(tcr >> 59 & 1), tcr >> 32 & 7
    size = 64 - (tcr >> (16 if upper else 0) & 63)
    base = ("TTBR1" if upper else "TTBR0") + ("_EL1" if retry.el10 else "_EL2")
    return Layout(granule, ds and granule != 16, ps, size, (size - 1 - granule) // (granule - 3), base)


def stage2_layout(regs: dict[str, int], control: str, base: str) -> Layout:
    shared, own = regs["VTCR_EL2"], regs[control]
    granule, sl0, sl2 = GRANULE[own >> 14 & 3], own >> 6 & 3, own >> 33 & 1
    ds = bool(shared >> 32 & 1) and granule != 16
    levels = sl0
    if granule == 12:
        levels = 4 if sl2 and ds else (sl0 + 1) % 4
    return Layout(granule, ds, shared >> 16 & 7, 64 - (own & 63), levels, base)


def two_halves(retry: Retry) -> bool:
    return retry.el10 or retry.e2h


def fault_stage(par: int) -> int:
    return 2 if stages(par) & 2 else 1


def set_ps(retry: Retry, stage: int, code: int) -> None:
    name = "VTCR_EL2" if stage == 2 else tcr_name(retry)
    set_field(retry, name, 32 if stage == 1 and two_halves(retry) else 16, code)


OUTPUT_SIZES = (32, 36, 40, 42, 44, 48, 52, 56)
GRANULE = {0: 12, 1: 16, 2: 14, 3: 12}
GRANULE_UPPER = {0: 12, 1: 14, 2: 12, 3: 16}


# The entries' actions ----------------------------------------------------------------------------------


def without_tge(retry: Retry) -> bool:
    """EL1&0 stage 1 stays on although TGE is 1."""
    if not retry.el10 or retry.host or not retry.regs["HCR_EL2"] & HCR_TGE:
        return False
    retry.regs["HCR_EL2"] &= ~(HCR_TGE | HCR_PTW)  # as TGE does, PTW counts for nothing
    return True


def stage1_of_host(retry: Retry) -> bool:
    """AT S12E* is AT S1E* of the EL2&0 regime."""
    if not retry.op.startswith("S12") or not retry.host:
        return False
    retry.op = "S1" + retry.op[3:]
    return True


def without_pan(retry: Retry) -> bool:
    """AT S1E1RP, S1E1WP of the EL2&0 regime do not look at PSTATE.PAN while NV1 is 1."""
    if not retry.op.endswith("P") or retry.el10 or not retry.regs["HCR_EL2"] & HCR_NV1:
        return False
    retry.op = retry.op[:-1]
    return True


def with_el2(retry: Retry) -> bool:
    """HCR_EL2 counts in Secure EL1&0 although EL2 is disabled there."""
    if not disabled_el2(retry):
        return False
    retry.regs["SCR_EL3"] |= SCR_EEL2
    retry.regs["HCR_EL2"] &= ~(HCR_VM | HCR_DC)
    set_field(retry, "ID_AA64PFR0_EL1", 36, 1, 15)
    return True


def disabled_el2(retry: Retry) -> bool:
    has_secure_el2 = retry.regs["ID_AA64PFR0_EL1"] >> 36 & 15
    scr = retry.regs["SCR_EL3"]
    return retry.el10 and not scr & SCR_NS and not (has_secure_el2 and scr & SCR_EEL2)


def stage2_of_disabled_el2(retry: Retry) -> bool:
    """Whether a stage 2 that must not be there may have moved the stage-1 tables: then nothing can be foretold."""
    return disabled_el2(retry) and bool(retry.regs["HCR_EL2"] & (HCR_VM | HCR_DC))


def without_cd(retry: Retry) -> bool:
    hcr = retry.regs["HCR_EL2"]
    if not hcr & HCR_FWB or not hcr & HCR_CD:
        return False
    retry.regs["HCR_EL2"] &= ~HCR_CD
    return True


def cacheable(retry: Retry) -> bool:
    name = "SCTLR_EL1" if retry.el10 else "SCTLR_EL2"
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


def last_address_size(retry: Retry) -> int:
    """Return the stage of the engine's Address size fault, if it has one after it read a descriptor, else 0."""
    if retry.ours.error or kind(retry.ours.par) != "address size" or not retry.ours.reads:
        return 0
    return fault_stage(retry.ours.par)


def without_high_bits(retry: Retry) -> bool:
    """Descriptor address bits [51:48] (64 KiB) or [51:50] (DS) are not there while PS is at most 48 bits."""
    stage = last_address_size(retry)
    if not stage:
        return False
    word = retry.descriptor(retry.ours.reads[-1], stage)
    for form in sorted(layouts(retry, stage), key=lambda form: _last_read_of_root(retry, form), reverse=True):
        field = 0xF000 if form.high64 else 0x300 if form.ds else 0
        if form.ps <= 5 and word & field:
            retry.patch(retry.ours.reads[-1], stage, word & ~field)
            return True
    return False


def _last_read_of_root(retry: Retry, form: Layout) -> int:
    """Return which read was the last of the first table of a layout, -1 if none was: the last walk began with it."""
    root = retry.regs[form.base] & (1 << 48) - (1 << form.root_bits)
    return max(
        (n for n, read in enumerate(retry.ours.reads) if read >> form.root_bits == root >> form.root_bits),
        default=-1,
    )


def with_larger_output(retry: Retry) -> bool:
    """Only the block's own address is held against PS, not the bits that come from the input address."""
    stage = last_address_size(retry)
    if not stage:
        return False
    word = retry.descriptor(retry.ours.reads[-1], stage)
    code = layouts(retry, stage)[0].ps
    if word & 3 != 1 or code >= 5 or (word & 0xFFFF_FFFF_0000) >> OUTPUT_SIZES[code]:
        return False
    set_ps(retry, stage, 5)
    return True


def low_t0sz(retry: Retry) -> bool:
    """Stage 2's T0SZ may be as small as for 48 bits, whatever PARange is."""
    code = retry.regs["ID_AA64MMFR0_EL1"] & 15
    size = 64 - (retry.regs["VTCR_EL2"] & 63)
    if code >= 5 or not OUTPUT_SIZES[code] < size <= 48:
        return False
    set_field(retry, "ID_AA64MMFR0_EL1", 0, 5, 15)
    set_field(retry, "VTCR_EL2", 16, min(retry.regs["VTCR_EL2"] >> 16 & 7, code))
    set_field(retry, "TCR_EL1", 32, min(retry.regs["TCR_EL1"] >> 32 & 7, code))
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
    if faults(retry.ours.par) and stages(retry.ours.par) != 2:
        return False
    address = retry.ours.reads[-1]
    word = retry.descriptor(address, 2)
    if word >> 2 & 15 in (0, 1, 2, 3, 5, 6, 7):
        return False
    retry.patch(address, 2, word & ~(15 << 2))
    retry.regs[
        "HCR_EL2"
    ] &= ~HCR_PTW  # the walk got here: where it uses the same page, PTW looks at the raw encoding
    return True


def set_field(retry: Retry, name: str, lsb: int, value: int, mask: int = 7) -> None:
    retry.regs[name] = retry.regs[name] & ~(mask << lsb) | value << lsb


def reserved_ps(retry: Retry) -> bool:
    """PS = 0b111 is 0b110."""
    changed = [stage for stage in (1, 2) if layouts(retry, stage)[0].ps == 7]
    for stage in changed:
        set_ps(retry, stage, 6)
    return bool(changed)


def without_high_base(retry: Retry) -> bool:
    """TTBR bits [5:2], address bits [51:48], are not there while PS is at most 48 bits."""
    names = [form.base for stage in (1, 2) for form in layouts(retry, stage) if form.ds and form.ps <= 5]
    changed = any(retry.regs[name] & 0x3E for name in names)
    for name in names:
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
    return ptw_fault(retry) and retry.el10 and not d.regs["HCR_EL2"] & (HCR_VM | HCR_DC)


PTW_LEVEL_0 = 0xB19


def attributes_only(retry: Retry, mask: int = ATTR) -> bool:
    theirs, mine = retry.difference.par, retry.ours.par
    return not faults(theirs | mine) and not (theirs ^ mine) & ~mask


def device_type(retry: Retry) -> bool:
    both_device = not retry.difference.par >> 60 and not retry.ours.par >> 60
    two_stages = retry.el10 and retry.op.startswith("S12")
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
    mair = retry.regs["MAIR_EL1" if retry.el10 else "MAIR_EL2"].to_bytes(8, "little")
    has_xs = bool(retry.regs["ID_AA64ISAR1_EL1"] >> 56 & 15)
    return (
        has_xs
        and attributes_only(retry, ATTR | SH)
        and any(byte in (0x40, 0xA0, 1, 5, 9, 13) for byte in mair)
    )


def sets_dirty_state(retry: Retry) -> bool:
    """Whether an AT for a write met a stage-2 Permission fault on a walk, and hardware may set dirty state."""
    d = retry.difference
    hardware = d.regs[tcr_name(retry)] >> 39 & 3 == 3
    return retry.el10 and "W" in d.op and hardware and kind(d.par) == "permission" and stages(d.par) == 3


def reserved_bits_checked(retry: Retry) -> bool:
    """Whether QEMU has an Address size fault, and a block was read whose RES0 bits would be beyond the size."""
    d = retry.difference
    if kind(d.par) != "address size" or kind(retry.ours.par) == "address size":
        return False
    stage = fault_stage(d.par)
    size = OUTPUT_SIZES[layouts(retry, stage)[0].ps]
    words = (retry.descriptor(address, stage) for address in retry.ours.reads)
    return any(word & 3 == 1 and (word & 0xFFFF_FFFF_F000) >> size for word in words)


def small_wide_table(retry: Retry) -> bool:
    """Whether a first table of less than 64 bytes has address bits in TTBR[5:2] that QEMU takes for two things."""
    forms = (form for stage in (1, 2) for form in layouts(retry, stage))
    return any(f.wide and f.root_bits < 6 and retry.regs[f.base] & 0x3C & -(1 << f.root_bits) for f in forms)


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
    needs = {(12, 3): 44, (14, 2): 42, (16, 2): 44}
    return any(
        max(form.size, needs.get((form.granule, form.levels), 0)) > OUTPUT_SIZES[form.ps]
        for form in layouts(retry, 2)
    )


def block_level(retry: Retry) -> bool:
    """Whether ours is a Translation fault at a block, which no other rule makes one."""
    if kind(retry.ours.par) != "translation" or not retry.ours.reads:
        return False
    return retry.descriptor(retry.ours.reads[-1], fault_stage(retry.ours.par)) & 3 == 1


def start_level_with_ds(retry: Retry) -> bool:
    """Whether stage 2 has a Translation fault in QEMU, and starts at a level that exists only with DS."""
    d = retry.difference
    if kind(d.par) != "translation" or not stages(d.par) & 2:
        return False
    return any(form.ds and (form.levels, form.granule) in ((4, 12), (3, 14)) for form in layouts(retry, 2))
