"""Stage 2: walk parameters from the registers, and the fields of stage-2 descriptors.

Source: Arm ARM (DDI 0487) D8.2, D8.3 and the descriptions of VTCR_EL2, VSTCR_EL2, VTTBR_EL2, VSTTBR_EL2;
Arm's ASL v9.4 ``AArch64_NSS2TTWParams``, ``AArch64_SS2TTWParams``, ``AArch64_S2InvalidSL``,
``AArch64_S2InconsistentSL``, ``AArch64_S2MinTxSZ``, ``AArch64_S2TTBaseAddress``. VTCR_EL2 fields as in
AARCHMRS 2026-03.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gdbhyp.arch.attributes import Stage2Memory
from gdbhyp.arch.controls import Controls
from gdbhyp.arch.features import PA_SIZES, Features
from gdbhyp.arch.fields import Bits, bit, ones
from gdbhyp.arch.granules import (
    FINAL_LEVEL,
    TG0_GRANULE,
    Format,
    Level,
    address_format,
    levels,
    max_txsz,
    stride,
    table_base,
)
from gdbhyp.arch.regimes import Space
from gdbhyp.arch.stage1 import SCTLR_EE, output_size
from gdbhyp.errors import Unsupported

# Stage-2 descriptors.
MEM_ATTR = Bits(5, 2)
S2AP = Bits(7, 6)
S2AP_READ = bit(6)
S2DIRTY = bit(7)
SH = Bits(9, 8)
AF = bit(10)
DBM = bit(51)
CONTIGUOUS = bit(52)
XN = Bits(54, 53)
NS = bit(55)
ASSURED_ONLY = bit(58)
S2PO_INDEX = Bits(62, 59)

# VTCR_EL2, and VSTCR_EL2 where both have the field.
T0SZ = Bits(5, 0)
SL0 = Bits(7, 6)
SH0 = Bits(13, 12)
TG0 = Bits(15, 14)
PS = Bits(18, 16)
VS = bit(19)
HA = bit(21)
HD = bit(22)
W = bit(29)  # VTCR_EL2.NSW, VSTCR_EL2.SW
A = bit(30)  # VTCR_EL2.NSA, VSTCR_EL2.SA
DS = bit(32)
SL2 = bit(33)
VTCR_ASSURED_ONLY = bit(34)
TL1 = bit(35)
S2PIE = bit(36)
S2POE = bit(37)
D128 = bit(38)
TL0 = bit(41)
HAFT = bit(44)

# VTTBR_EL2
VMID = Bits(63, 48)

STAGE2_REGISTERS = ("VTTBR_EL2", "VTCR_EL2")
STAGE2_ALL_REGISTERS = (*STAGE2_REGISTERS, "VSTTBR_EL2", "VSTCR_EL2", "S2PIR_EL2", "S2POR_EL1", "SCTLR_EL2")

_START_4K = {0b000: 2, 0b001: 1, 0b010: 0, 0b011: 3, 0b100: -1}
"""Start level of the 4 KiB granule by SL2:SL0."""

_START_16K = {0b00: 3, 0b01: 2, 0b10: 1, 0b11: 0}
_START_64K = {0b00: 3, 0b01: 2, 0b10: 1}

_CONCATENATION_BITS = 4
"""Up to 2**4 first-level tables may stand one after the other."""


@dataclass(frozen=True, slots=True)
class Stage2Params:
    """The parameters of a stage-2 walk of one IPA space, by Arm's names.

    ``vm`` is HCR_EL2.VM or DC as it acts. ``misprogrammed`` says that T0SZ is out of range, or SL0 and SL2
    reserved or inconsistent with it: every access is then a level-0 translation fault. ``table_space`` is the
    physical space of the tables, ``output_space`` that of the output (a Realm's depends on the descriptor
    too). ``plain_walk`` says that a stage-1 table is readable by S2AP[0] alone: no indirection, no HCR_EL2.PTW,
    TL0 or TL1, and not a Realm's.
    """

    vm: bool
    tgx: int
    txsz: int
    start: int
    misprogrammed: bool
    ps: int
    oasize: int
    beyond: int
    sh: int
    ds: bool
    lpa: bool
    ha: bool
    hd: bool
    haft: bool
    ee: bool
    ptw: bool
    fwb: bool
    xnx: bool
    s2pie: bool
    s2pir: int
    s2poe: bool
    s2por: int
    assuredonly: bool
    tl0: bool
    tl1: bool
    realm: bool
    plain_walk: bool
    table_space: Space
    output_space: Space
    memory: Stage2Memory
    vttbr: int
    vmid: int
    base: int
    levels: tuple[Level, ...]
    format: Format

    @property
    def input_bits(self) -> int:
        """Bits of IPA that the tables translate."""
        return 64 - self.txsz

    def shareability(self, descriptor: int) -> int:
        """SH of a leaf: from the descriptor, or from VTCR_EL2 with DS, where the descriptor bits are address."""
        return self.sh if self.ds else SH(descriptor)

    def space_of(self, descriptor: int) -> Space:
        """The physical space of a leaf's output."""
        return Space.NON_SECURE if self.realm and NS(descriptor) else self.output_space

    def memory_is_device(self, descriptor: int) -> bool:
        """Whether stage 2 alone makes a leaf Device memory."""
        return not MEM_ATTR(descriptor) & (0b0100 if self.fwb else 0b1100)


def start_level(granule: int, sl0: int, sl2: int, ds: bool, features: Features) -> int | None:
    """The start level, or None when the SL fields are reserved for this granule and processor."""
    pamax = features.pamax
    if granule == 12:
        code = sl2 << 2 | sl0
        level = _START_4K.get(code)
        if (level == 0 and pamax < 44) or (level == 3 and not features.ttst):
            return None
        return level
    if granule == 14:
        level = _START_16K.get(sl0)
        if (level == 0 and not ds) or (level == 1 and pamax < 42):
            return None
        return level
    level = _START_64K.get(sl0)
    return None if level == 1 and pamax < 44 else level


def start_level_fits(granule: int, start: int, input_bits: int) -> bool:
    """Whether an input size goes with a start level: at least two entries, at most 16 concatenated tables."""
    smallest = (FINAL_LEVEL - start) * stride(granule) + granule + 1
    return smallest <= input_bits <= smallest + stride(granule) - 1 + _CONCATENATION_BITS


def stage2_params(
    register: Callable[[str], int], ipa_space: Space, control: Controls, features: Features
) -> Stage2Params:
    """Compute the parameters for IPAs of ``ipa_space``; ``register`` gives values by name, 0 for a missing
    one.

    :raises Unsupported: if 128-bit descriptors (FEAT_D128) are in use.
    """
    vtcr = register("VTCR_EL2")
    if features.d128 and D128(vtcr):
        raise Unsupported("VTCR_EL2.D128 = 1 (128-bit descriptors, FEAT_D128)")
    secure_state = control.space is Space.SECURE
    secure = secure_state and ipa_space is Space.SECURE
    own = register("VSTCR_EL2") if secure else vtcr
    vttbr = register("VTTBR_EL2")
    ttbr = register("VSTTBR_EL2") if secure else vttbr

    granules = features.stage2
    tgx = granules.or_smallest(TG0_GRANULE.get(TG0(own)))
    lpa2 = tgx in granules.lpa2
    ds = lpa2 and bool(DS(vtcr))
    lpa = features.lpa and tgx == 16
    txsz = T0SZ(own)
    widest = min(features.pamax, 52 if ds or tgx == 16 or not features.lpa else 48)
    sl2 = SL2(own) if ds and tgx == 12 else 0
    start = start_level(tgx, SL0(own), sl2, ds, features)
    misprogrammed = (
        not 64 - widest <= txsz <= max_txsz(tgx, features.ttst)
        or start is None
        or not start_level_fits(tgx, start, 64 - txsz)
    )
    ps = PS(vtcr)
    oasize = output_size(ps, tgx, lpa2, features)
    if misprogrammed or start is None:
        walk: tuple[Level, ...] = ()
        base = 0
    else:
        walk = levels(tgx, start, 64 - txsz, ds, lpa)
        base = table_base(ttbr, tgx, start, 64 - txsz, ds or (lpa and PA_SIZES[ps] == 52))

    if secure_state:
        # VSTCR_EL2.SW and SA put Secure IPAs, VTCR_EL2.NSW and NSA Non-secure ones, in Non-secure memory; SW
        # or SA take the Non-secure IPAs with them.
        vstcr = register("VSTCR_EL2")
        secure_out = not W(vstcr) and not A(vstcr)
        if not secure:
            secure_out = secure_out and not W(vtcr) and not A(vtcr)
        table_space = Space.NON_SECURE if W(own) else Space.SECURE
        output_space = Space.SECURE if secure_out else Space.NON_SECURE
    else:
        table_space = output_space = control.space or Space.NON_SECURE
    ha = features.haf and bool(HA(vtcr))
    fwb = control.fwb
    realm = control.space is Space.REALM
    s2pie = features.s2pie and bool(S2PIE(vtcr))
    tl0 = features.the and bool(TL0(vtcr))
    tl1 = features.the and bool(TL1(vtcr))
    vmid = VMID(vttbr)
    return Stage2Params(
        vm=control.el2_enabled and (control.vm or control.dc),
        tgx=tgx,
        txsz=txsz,
        start=0 if start is None else start,
        misprogrammed=misprogrammed,
        ps=ps,
        oasize=oasize,
        beyond=~ones(oasize),
        sh=SH0(vtcr),
        ds=ds,
        lpa=lpa,
        ha=ha,
        hd=features.hdbs and bool(HD(vtcr)),
        haft=features.haft and ha and bool(HAFT(vtcr)),
        ee=bool(SCTLR_EE(register("SCTLR_EL2"))),
        ptw=control.ptw,
        fwb=fwb,
        xnx=features.xnx,
        s2pie=s2pie,
        s2pir=register("S2PIR_EL2") if features.s2pie else 0,
        s2poe=s2pie and features.s2poe and bool(S2POE(vtcr)),
        s2por=register("S2POR_EL1") if features.s2poe else 0,
        assuredonly=features.the and bool(VTCR_ASSURED_ONLY(vtcr)),
        tl0=tl0,
        tl1=tl1,
        realm=realm,
        plain_walk=not (s2pie or control.ptw or tl0 or tl1 or realm),
        table_space=table_space,
        output_space=output_space,
        memory=Stage2Memory(fwb, control.cd, features.mte2, features.mte_perm, features.xs),
        vttbr=ttbr,
        vmid=vmid if features.vmid16 and VS(vtcr) else vmid & ones(8),
        base=base,
        levels=walk,
        format=address_format(tgx, ds, lpa),
    )
