"""What a processor implements, from its ID registers.

Source: Arm ARM (DDI 0487) D24.2, ID_AA64MMFR0_EL1 to ID_AA64MMFR4_EL1, ID_AA64PFR0_EL1 to ID_AA64PFR2_EL1,
ID_AA64ISAR1_EL1 and ID_AA64ISAR2_EL1; field positions as in AARCHMRS 2026-03.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gdbhyp.arch.fields import Bits

ID_REGISTERS = (
    "ID_AA64MMFR0_EL1",
    "ID_AA64MMFR1_EL1",
    "ID_AA64MMFR2_EL1",
    "ID_AA64MMFR3_EL1",
    "ID_AA64PFR0_EL1",
    "ID_AA64PFR1_EL1",
    "ID_AA64PFR2_EL1",
    "ID_AA64ISAR1_EL1",
    "ID_AA64ISAR2_EL1",
)

# ID_AA64MMFR0_EL1
PARANGE = Bits(3, 0)
TGRAN16 = Bits(23, 20)
TGRAN64 = Bits(27, 24)
TGRAN4 = Bits(31, 28)
TGRAN16_2 = Bits(35, 32)
TGRAN64_2 = Bits(39, 36)
TGRAN4_2 = Bits(43, 40)
# ID_AA64MMFR1_EL1
HAFDBS = Bits(3, 0)
VMIDBITS = Bits(7, 4)
VH = Bits(11, 8)
HPDS = Bits(15, 12)
PAN = Bits(23, 20)
XNX = Bits(31, 28)
HCX = Bits(43, 40)
# ID_AA64MMFR2_EL1
VARANGE = Bits(19, 16)
NV = Bits(27, 24)
ST = Bits(31, 28)
FWB = Bits(43, 40)
E0PD = Bits(63, 60)
# ID_AA64MMFR3_EL1
TCRX = Bits(3, 0)
SCTLRX = Bits(7, 4)
S1PIE = Bits(11, 8)
S2PIE = Bits(15, 12)
S1POE = Bits(19, 16)
S2POE = Bits(23, 20)
AIE = Bits(27, 24)
MEC = Bits(31, 28)
D128 = Bits(35, 32)
D128_2 = Bits(39, 36)
# ID_AA64PFR0_EL1
EL3 = Bits(15, 12)
SEL2 = Bits(39, 36)
RME = Bits(55, 52)
# ID_AA64PFR1_EL1
MTE = Bits(11, 8)
THE = Bits(51, 48)
MTEX = Bits(55, 52)
# ID_AA64PFR2_EL1
MTEPERM = Bits(3, 0)
# ID_AA64ISAR1_EL1
APA = Bits(7, 4)
API = Bits(11, 8)
XS = Bits(59, 56)
# ID_AA64ISAR2_EL1
APA3 = Bits(15, 12)

PA_SIZES = (32, 36, 40, 42, 44, 48, 52, 56)
"""Address size in bits by the encoding that PARange, TCR_ELx.(I)PS, VTCR_EL2.PS and GPCCR_EL3.PPS share."""

_ABSENT = 0b1111


@dataclass(frozen=True, slots=True)
class Granules:
    """One stage's translation granules: the sizes (12, 14 or 16 address bits) it has, and those with 52-bit
    addresses (FEAT_LPA2), where TCR_ELx.DS or VTCR_EL2.DS counts."""

    implemented: tuple[int, ...]
    lpa2: tuple[int, ...]

    def or_smallest(self, granule: int | None) -> int:
        """A TG field that is reserved, or selects an absent granule, acts as one that is implemented; which
        one is IMPLEMENTATION DEFINED. The smallest is taken here, as QEMU does."""
        return granule if granule in self.implemented else self.implemented[0]


@dataclass(frozen=True, slots=True)
class Features:
    """The features that a translation depends on, by their FEAT names in lower case."""

    pamax: int
    stage1: Granules
    stage2: Granules
    lpa: bool
    lva: bool
    ttst: bool
    haf: bool
    hdbs: bool
    haft: bool
    vhe: bool
    hpds: bool
    pan: bool
    pan3: bool
    xnx: bool
    hcx: bool
    nv: bool
    nv2: bool
    s2fwb: bool
    e0pd: bool
    pauth: bool
    tcr2: bool
    sctlr2: bool
    s1pie: bool
    s2pie: bool
    s1poe: bool
    s2poe: bool
    aie: bool
    mec: bool
    d128: bool
    el3: bool
    sel2: bool
    rme: bool
    mte2: bool
    mte_perm: bool
    mtx: bool
    the: bool
    xs: bool
    vmid16: bool


def _granules(mmfr0: int, stage: int) -> Granules:
    has = {12: TGRAN4(mmfr0) != _ABSENT, 14: TGRAN16(mmfr0) != 0, 16: TGRAN64(mmfr0) != _ABSENT}
    lpa2 = {12: TGRAN4(mmfr0) == 1, 14: TGRAN16(mmfr0) == 2, 16: False}
    if stage == 2:
        # 0 means "as stage 1", 1 absent, 2 present, 3 present with 52-bit addresses.
        for granule, field in ((12, TGRAN4_2), (14, TGRAN16_2), (16, TGRAN64_2)):
            second = field(mmfr0)
            if second:
                has[granule] = second != 1
                lpa2[granule] = second == 3 and granule != 16
    # A register file without ID_AA64MMFR0_EL1 reads as 0 and has 4 and 64 KiB; all-absent fields cannot be
    # real.
    implemented = tuple(g for g in (12, 14, 16) if has[g]) or (12,)
    return Granules(implemented, tuple(g for g in implemented if lpa2[g]))


_cache: dict[tuple[int, ...], Features] = {}


def features(register: Callable[[str], int | None]) -> Features:
    """Return what the ID registers say; ``register`` gives a register's value by name.

    None is one that is not shown: it is taken to say what ``EVERYTHING`` has for it.
    """
    key = tuple(map(_shown_or_everything, ID_REGISTERS, map(register, ID_REGISTERS)))
    found = _cache.get(key)
    if found is None:
        if len(_cache) >= 64:
            _cache.clear()
        found = _cache[key] = _features(*key)
    return found


def _shown_or_everything(name: str, value: int | None) -> int:
    return EVERYTHING.get(name, 0) if value is None else value


def _features(
    mmfr0: int, mmfr1: int, mmfr2: int, mmfr3: int, pfr0: int, pfr1: int, pfr2: int, isar1: int, isar2: int
) -> Features:
    pamax = PA_SIZES[min(PARANGE(mmfr0), 7)]
    return Features(
        pamax=pamax,
        stage1=_granules(mmfr0, 1),
        stage2=_granules(mmfr0, 2),
        lpa=pamax >= 52,
        lva=VARANGE(mmfr2) >= 1,
        ttst=ST(mmfr2) >= 1,
        haf=HAFDBS(mmfr1) >= 1,
        hdbs=HAFDBS(mmfr1) >= 2,
        haft=HAFDBS(mmfr1) >= 3,
        vhe=VH(mmfr1) >= 1,
        hpds=HPDS(mmfr1) >= 1,
        pan=PAN(mmfr1) >= 1,
        pan3=PAN(mmfr1) >= 3,
        xnx=XNX(mmfr1) >= 1,
        hcx=HCX(mmfr1) >= 1,
        nv=NV(mmfr2) >= 1,
        nv2=NV(mmfr2) >= 2,
        s2fwb=FWB(mmfr2) >= 1,
        e0pd=E0PD(mmfr2) >= 1,
        pauth=bool(APA(isar1) or API(isar1) or APA3(isar2)),
        tcr2=TCRX(mmfr3) >= 1,
        sctlr2=SCTLRX(mmfr3) >= 1,
        s1pie=S1PIE(mmfr3) >= 1,
        s2pie=S2PIE(mmfr3) >= 1,
        s1poe=S1POE(mmfr3) >= 1,
        s2poe=S2POE(mmfr3) >= 1,
        aie=AIE(mmfr3) >= 1,
        mec=MEC(mmfr3) >= 1,
        d128=D128(mmfr3) >= 1 or D128_2(mmfr3) >= 1,
        el3=EL3(pfr0) >= 1,
        sel2=SEL2(pfr0) >= 1,
        rme=RME(pfr0) >= 1,
        mte2=MTE(pfr1) >= 2,
        mte_perm=MTEPERM(pfr2) >= 1,
        mtx=MTEX(pfr1) >= 1,
        the=THE(pfr1) >= 1,
        xs=XS(isar1) >= 1,
        vmid16=VMIDBITS(mmfr1) >= 2,
    )


EVERYTHING = {
    "ID_AA64MMFR0_EL1": PARANGE.put(6) | TGRAN16.put(2) | TGRAN64.put(0) | TGRAN4.put(1),
    "ID_AA64MMFR1_EL1": HAFDBS.put(2)
    | VMIDBITS.put(2)
    | VH.put(1)
    | HPDS.put(1)
    | PAN.put(3)
    | XNX.put(1)
    | HCX.put(1),
    "ID_AA64MMFR2_EL1": VARANGE.put(1) | NV.put(2) | ST.put(1) | FWB.put(1) | E0PD.put(1),
    "ID_AA64MMFR3_EL1": TCRX.put(1)
    | SCTLRX.put(1)
    | S1PIE.put(1)
    | S2PIE.put(1)
    | S1POE.put(1)
    | S2POE.put(1),
}
"""ID registers of a processor with the translation features that control registers turn on: of those that a
target does not show, these values are assumed, so that the control registers alone decide how a table is read."""
