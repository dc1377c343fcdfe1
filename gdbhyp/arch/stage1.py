"""Stage 1: walk parameters from the registers, and the fields of stage-1 descriptors.

Source: Arm ARM (DDI 0487) D8.2, D8.3 and the descriptions of TCR_ELx, TCR2_ELx, SCTLR_ELx, TTBRn_ELx; Arm's
ASL v9.4 ``AArch64_GetS1TTWParams``, ``AArch64_S1TTBaseAddress``, ``AArch64_PhysicalAddressSize``. TCR_EL2 has
two layouts, by HCR_EL2.E2H; none of the tables below is used for a register that it does not name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from gdbhyp.arch.controls import Controls
from gdbhyp.arch.features import PA_SIZES, Features
from gdbhyp.arch.fields import Bits, bit, ones
from gdbhyp.arch.granules import (
    TG0_GRANULE,
    TG1_GRANULE,
    Format,
    Level,
    address_format,
    levels,
    max_txsz,
    stage1_start_level,
    table_base,
)
from gdbhyp.arch.regimes import Regime, Space
from gdbhyp.errors import Unsupported

# Stage-1 descriptors.
ATTR_INDX = Bits(4, 2)
NS = bit(5)
AP = Bits(7, 6)
NDIRTY = bit(7)
SH = Bits(9, 8)
AF = bit(10)
NG = bit(11)
NSE = bit(11)
GP = bit(50)
DBM = bit(51)
CONTIGUOUS = bit(52)
PROTECTED = bit(52)
PXN = bit(53)
UXN = bit(54)
PO_INDEX = Bits(62, 60)
ATTR_INDX_3 = bit(59)
AMEC = bit(63)
# Table descriptors.
PXN_TABLE = bit(59)
XN_TABLE = bit(60)
AP_TABLE = Bits(62, 61)
NS_TABLE = bit(63)

# SCTLR_EL1, SCTLR_EL2, SCTLR_EL3: fields that all of them have at the same place (EPAN: EL1 and EL2 only).
SCTLR_M = bit(0)
SCTLR_C = bit(2)
SCTLR_I = bit(12)
SCTLR_WXN = bit(19)
SCTLR_EE = bit(25)
SCTLR_EPAN = bit(57)

# SCTLR2_EL2
SCTLR2_EMEC = bit(1)

# Virtual addresses.
VA_RANGE = bit(55)
_TBI_TOP = 56
_LOGICAL_TAG = Bits(59, 56)

# TTBRn_ELx
TTBR_ASID = Bits(63, 48)


class _Half(NamedTuple):
    """The TCR fields of one VA range."""

    txsz: Bits
    tg: Bits
    sh: Bits
    tbi: Bits
    tbid: Bits
    hpd: Bits
    mtx: Bits
    epd: Bits | None = None
    e0pd: Bits | None = None


class _Tcr(NamedTuple):
    """The TCR fields of the whole regime."""

    ps: Bits
    ha: Bits
    hd: Bits
    ds: Bits


# TCR_EL1, and TCR_EL2 with HCR_EL2.E2H = 1
_LOWER = _Half(
    txsz=Bits(5, 0),
    tg=Bits(15, 14),
    sh=Bits(13, 12),
    tbi=bit(37),
    tbid=bit(51),
    hpd=bit(41),
    mtx=bit(60),
    epd=bit(7),
    e0pd=bit(55),
)
_UPPER = _Half(
    txsz=Bits(21, 16),
    tg=Bits(31, 30),
    sh=Bits(29, 28),
    tbi=bit(38),
    tbid=bit(52),
    hpd=bit(42),
    mtx=bit(61),
    epd=bit(23),
    e0pd=bit(56),
)
_TWO_RANGES = _Tcr(ps=Bits(34, 32), ha=bit(39), hd=bit(40), ds=bit(59))
TCR_A1 = bit(22)
TCR_AS = bit(36)

# TCR_EL2 with HCR_EL2.E2H = 0, and TCR_EL3
_SINGLE = _Half(
    txsz=Bits(5, 0), tg=Bits(15, 14), sh=Bits(13, 12), tbi=bit(20), tbid=bit(29), hpd=bit(24), mtx=bit(33)
)
_ONE_RANGE = _Tcr(ps=Bits(18, 16), ha=bit(21), hd=bit(22), ds=bit(32))


class _Tcr2(NamedTuple):
    """The extended fields: in TCR2_EL1 and TCR2_EL2, or inside TCR_EL3."""

    pnch: Bits
    pie: Bits
    poe: Bits
    aie: Bits
    d128: Bits
    haft: Bits
    e0poe: Bits | None = None


_TCR2 = _Tcr2(pnch=bit(0), pie=bit(1), e0poe=bit(2), poe=bit(3), aie=bit(4), d128=bit(5), haft=bit(11))
_TCR3 = _Tcr2(pnch=bit(34), pie=bit(35), poe=bit(36), aie=bit(37), d128=bit(38), haft=bit(42))
TCR2_AMEC0 = bit(12)
TCR2_AMEC1 = bit(13)


class _Names(NamedTuple):
    """The registers of a regime."""

    sctlr: str
    tcr: str
    tcr2: str
    ttbr0: str
    ttbr1: str
    mair: str
    mair2: str
    pir: str
    pire0: str
    por: str


_NAMES = {
    Regime.EL10: _Names(
        "SCTLR_EL1",
        "TCR_EL1",
        "TCR2_EL1",
        "TTBR0_EL1",
        "TTBR1_EL1",
        "MAIR_EL1",
        "MAIR2_EL1",
        "PIR_EL1",
        "PIRE0_EL1",
        "POR_EL1",
    ),
    Regime.EL2: _Names(
        "SCTLR_EL2",
        "TCR_EL2",
        "TCR2_EL2",
        "TTBR0_EL2",
        "",
        "MAIR_EL2",
        "MAIR2_EL2",
        "PIR_EL2",
        "",
        "POR_EL2",
    ),
    Regime.EL20: _Names(
        "SCTLR_EL2",
        "TCR_EL2",
        "TCR2_EL2",
        "TTBR0_EL2",
        "TTBR1_EL2",
        "MAIR_EL2",
        "MAIR2_EL2",
        "PIR_EL2",
        "PIRE0_EL2",
        "POR_EL2",
    ),
    Regime.EL3: _Names(
        "SCTLR_EL3",
        "TCR_EL3",
        "",
        "TTBR0_EL3",
        "",
        "MAIR_EL3",
        "MAIR2_EL3",
        "PIR_EL3",
        "",
        "POR_EL3",
    ),
}


def stage1_registers(regime: Regime) -> tuple[str, ...]:
    """The registers without which nothing can be said about a regime's stage 1."""
    names = _NAMES[regime]
    needed = (names.sctlr, names.tcr, names.ttbr0, names.ttbr1, names.mair)
    return tuple(name for name in needed if name)


def stage1_all_registers(regime: Regime) -> tuple[str, ...]:
    """Every register that a regime's stage 1 depends on, those of optional features among them."""
    names = _NAMES[regime]
    optional = (names.tcr2, names.mair2, names.pir, names.pire0, names.por)
    extra = ("POR_EL0",) if regime.has_unprivileged else ()
    return stage1_registers(regime) + tuple(name for name in optional if name) + extra


@dataclass(frozen=True, slots=True)
class Stage1Params:
    """The parameters of a stage-1 walk of one regime and VA range, by Arm's names.

    ``enabled`` is SCTLR_ELx.M as it acts (0 with HCR_EL2.DC or TGE in EL1&0). ``oasize`` is the output size
    in bits, ``beyond`` the address bits above it. ``txsz_faults`` says that TxSZ is out of range: always a
    level-0 fault here, where the architecture also allows it to be clamped without FEAT_LVA. ``levels``,
    ``base`` and ``format`` are what the walk loop runs on; ``hierarchical`` is False when APTable and XNTable
    are ignored (HPD, PIE). A VA is in range when ``va & va_check == va_expected``; ``va_check_fetch`` is for
    instruction fetches (TBID). With stage 1 off these are the bits above the largest physical address, which
    must be 0.
    """

    regime: Regime
    upper: bool
    space: Space
    enabled: bool
    tgx: int
    txsz: int
    txsz_faults: bool
    ps: int
    oasize: int
    beyond: int
    sh: int
    ds: bool
    lpa: bool
    tbi: bool
    tbid: bool
    mtx: bool
    epd: bool
    e0pd: bool
    hierarchical: bool
    ha: bool
    hd: bool
    haft: bool
    ee: bool
    wxn: bool
    cached: bool
    icached: bool
    epan: bool
    pan: bool
    sif: bool
    nv1: bool
    dc: bool
    dct: bool
    pie: bool
    pir: int
    pire0: int
    poe: bool
    e0poe: bool
    por: int
    por_el0: int
    aie: bool
    mair: int
    mair2: int
    pnch: bool
    amec_faults: bool
    secure_state: bool
    xs: bool
    pamax: int
    ttbr: int
    asid: int | None
    base: int
    levels: tuple[Level, ...]
    format: Format
    va_check: int
    va_check_fetch: int
    va_expected: int

    @property
    def input_bits(self) -> int:
        """Bits of input address that the tables translate."""
        return 64 - self.txsz

    @property
    def va_base(self) -> int:
        """The lowest canonical address of the range."""
        return (1 << 64) - (1 << self.input_bits) if self.upper else 0

    def attribute(self, descriptor: int) -> int:
        """The MAIR attribute byte that a leaf descriptor selects."""
        index = ATTR_INDX(descriptor)
        mair = self.mair2 if self.aie and ATTR_INDX_3(descriptor) else self.mair
        return mair >> 8 * index & 0xFF

    def shareability(self, descriptor: int) -> int:
        """SH of a leaf: from the descriptor, or from TCR_ELx with DS, where the descriptor bits are address."""
        return self.sh if self.ds else SH(descriptor)


def output_size(ps: int, granule: int, lpa2: bool, features: Features) -> int:
    """The output address size in bits of a PS or IPS field: capped by PARange, and at 48 bits without 52-bit
    addresses for this granule (FEAT_LPA for 64 KiB, FEAT_LPA2 for the others)."""
    cap = 52 if (features.lpa if granule == 16 else lpa2) else 48
    return min(PA_SIZES[ps], cap, features.pamax)


def leaf_space(p: Stage1Params, space: Space, descriptor: int) -> Space:
    """The physical (or intermediate) space that a leaf points to from a table of ``space``."""
    ns = bool(NS(descriptor))
    if space is Space.NON_SECURE or (space is Space.REALM and p.regime is Regime.EL10):
        return space
    if space is not Space.ROOT:
        return Space.NON_SECURE if ns else space
    if NSE(descriptor):
        return Space.REALM if ns else Space.ROOT
    return Space.SECURE if p.secure_state and not ns else Space.NON_SECURE


def _upper_bits(input_bits: int, tbi: bool, mtx: bool) -> int:
    """The VA bits above ``input_bits`` that have to agree: not the top byte with TBI, nor the tag with MTX."""
    check = ones(_TBI_TOP if tbi else 64) & ~ones(input_bits)
    return check & ~_LOGICAL_TAG.in_place if mtx else check


def stage1_params(
    register: Callable[[str], int], regime: Regime, upper: bool, control: Controls, features: Features
) -> Stage1Params:
    """Compute the parameters; ``register`` gives values by name, 0 for a missing one.

    :raises Unsupported: if 128-bit descriptors (FEAT_D128) are in use.
    """
    names = _NAMES[regime]
    el10 = regime is Regime.EL10
    two_ranges = regime.has_unprivileged
    half = (_UPPER if upper else _LOWER) if two_ranges else _SINGLE
    whole = _TWO_RANGES if two_ranges else _ONE_RANGE
    sctlr = register(names.sctlr)
    tcr = register(names.tcr)

    if regime is Regime.EL3:
        extended, tcr2 = _TCR3, tcr
    else:
        extended = _TCR2
        tcr2_enabled = control.tcr2_el1 if el10 else control.tcr2_el2
        tcr2 = register(names.tcr2) if tcr2_enabled else 0
    if features.d128 and regime is not Regime.EL2 and extended.d128(tcr2):
        raise Unsupported(f"{names.tcr2 or names.tcr}.D128 = 1 (128-bit descriptors, FEAT_D128)")

    tg = half.tg(tcr)
    granules = features.stage1
    tgx = granules.or_smallest((TG1_GRANULE if upper and two_ranges else TG0_GRANULE).get(tg))
    lpa2 = tgx in granules.lpa2
    ds = lpa2 and bool(whole.ds(tcr))
    txsz = half.txsz(tcr)
    minimum = 12 if ds or (features.lva and tgx == 16) else 16
    txsz_faults = not minimum <= txsz <= max_txsz(tgx, features.ttst)
    ps = whole.ps(tcr)
    oasize = output_size(ps, tgx, lpa2, features)
    lpa = features.lpa and tgx == 16

    ttbr0 = register(names.ttbr0)
    ttbr1 = register(names.ttbr1) if two_ranges else 0
    ttbr = ttbr1 if upper and two_ranges else ttbr0
    if txsz_faults:
        walk: tuple[Level, ...] = ()
        base = 0
    else:
        start = stage1_start_level(tgx, 64 - txsz)
        walk = levels(tgx, start, 64 - txsz, ds, lpa)
        wide = ds or (lpa and PA_SIZES[ps] == 52)
        base = table_base(ttbr, tgx, start, 64 - txsz, wide)
    asid = None
    if two_ranges:
        asid = TTBR_ASID(ttbr1 if TCR_A1(tcr) else ttbr0)
        if not TCR_AS(tcr):
            asid &= ones(8)

    ha = features.haf and bool(whole.ha(tcr))
    pie = features.s1pie and bool(extended.pie(tcr2))
    hpd = features.hpds and bool(half.hpd(tcr))
    nv1 = el10 and control.nv1
    poe = features.s1poe and bool(extended.poe(tcr2))
    e0poe = features.s1poe and extended.e0poe is not None and bool(extended.e0poe(tcr2)) and two_ranges
    space = Space.ROOT if features.rme else Space.SECURE
    if regime is not Regime.EL3:
        space = control.space or Space.NON_SECURE
    tbi = bool(half.tbi(tcr))
    tbid = features.pauth and bool(half.tbid(tcr))
    mtx = features.mtx and bool(half.mtx(tcr))
    enabled = bool(SCTLR_M(sctlr)) and not (el10 and (control.dc or control.tge))
    va_bits = 64 - txsz if enabled else features.pamax
    va_check = _upper_bits(va_bits, tbi, mtx)
    amec = TCR2_AMEC1 if upper else TCR2_AMEC0
    amec_faults = (
        features.mec
        and regime in (Regime.EL2, Regime.EL20)
        and space is Space.REALM
        and control.sctlr2_el2
        and bool(SCTLR2_EMEC(register("SCTLR2_EL2")))
        and not amec(tcr2)
    )
    return Stage1Params(
        regime=regime,
        upper=upper,
        space=space,
        enabled=enabled,
        tgx=tgx,
        txsz=txsz,
        txsz_faults=txsz_faults,
        ps=ps,
        oasize=oasize,
        beyond=~ones(oasize),
        sh=half.sh(tcr),
        ds=ds,
        lpa=lpa,
        tbi=tbi,
        tbid=tbid,
        mtx=mtx,
        epd=half.epd is not None and bool(half.epd(tcr)),
        e0pd=features.e0pd and half.e0pd is not None and bool(half.e0pd(tcr)),
        hierarchical=not hpd and not pie,
        ha=ha,
        hd=features.hdbs and bool(whole.hd(tcr)),
        haft=features.haft and ha and bool(extended.haft(tcr2)),
        ee=bool(SCTLR_EE(sctlr)),
        wxn=bool(SCTLR_WXN(sctlr)),
        cached=bool(SCTLR_C(sctlr)),
        icached=bool(SCTLR_I(sctlr)),
        epan=features.pan3 and (pie or bool(SCTLR_EPAN(sctlr))) and two_ranges,
        pan=features.pan and two_ranges and not nv1,
        sif=control.sif,
        nv1=nv1,
        dc=el10 and control.dc,
        dct=el10 and control.dct,
        pie=pie,
        pir=register(names.pir) if pie else 0,
        # With NV1 there is no EL0 behind this regime; PIRE0_EL1 is not consulted.
        pire0=register(names.pire0) if pie and two_ranges and not nv1 else 0,
        poe=poe,
        e0poe=e0poe and not nv1,
        por=register(names.por) if poe else 0,
        por_el0=register("POR_EL0") if e0poe else 0,
        aie=features.aie and bool(extended.aie(tcr2)),
        mair=register(names.mair),
        mair2=register(names.mair2) if features.aie else 0,
        pnch=features.the and bool(extended.pnch(tcr2)),
        amec_faults=amec_faults,
        secure_state=not features.rme or features.sel2,
        xs=features.xs,
        pamax=features.pamax,
        ttbr=ttbr,
        asid=asid,
        base=base,
        levels=walk,
        format=address_format(tgx, ds, lpa),
        va_check=va_check,
        va_check_fetch=_upper_bits(va_bits, tbi and not tbid, mtx),
        va_expected=va_check if enabled and upper and two_ranges else 0,
    )
