"""What HCR_EL2, SCR_EL3 and HCRX_EL2 say about translation, with the bits that act as 0 taken out.

Source: Arm ARM (DDI 0487) descriptions of HCR_EL2, HCRX_EL2 and SCR_EL3; Arm's ASL v9.4
``SecurityStateAtEL``, ``EL2Enabled``, ``IsTCR2EL1Enabled``, ``IsHCRXEL2Enabled``; field positions as in
AARCHMRS 2026-03.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gdbhyp.arch.features import Features
from gdbhyp.arch.fields import bit
from gdbhyp.arch.regimes import Regime, Space

CONTROL_REGISTERS = ("HCR_EL2", "HCRX_EL2")

# HCR_EL2
VM = bit(0)
PTW = bit(2)
DC = bit(12)
TGE = bit(27)
CD = bit(32)
ID = bit(33)
E2H = bit(34)
NV = bit(42)
NV1 = bit(43)
NV2 = bit(45)
FWB = bit(46)
DCT = bit(57)
# HCRX_EL2
HCRX_TCR2EN = bit(14)
# SCR_EL3
NS = bit(0)
SIF = bit(9)
EEL2 = bit(18)
HXEN = bit(38)
TCR2EN = bit(43)
SCTLR2EN = bit(44)
NSE = bit(62)


@dataclass(frozen=True, slots=True)
class Controls:
    """The state of one CPU above its translation tables.

    ``space`` is the Security state of EL2, EL1 and EL0, None when SCR_EL3.{NSE,NS} = {1,0} leaves them
    without one. ``vm``, ``dc``, ``cd``, ``id`` and ``ptw`` are 0 where the architecture has them act so: with
    {E2H,TGE} = {1,1}, and ``ptw`` with TGE = 1. ``nv1`` is HCR_EL2.{NV,NV1} = {1,1}; NV = 0 with NV1 = 1 is
    taken as {0,0}.
    """

    space: Space | None
    el2_enabled: bool
    e2h: bool
    tge: bool
    vm: bool
    dc: bool
    dct: bool
    cd: bool
    id: bool
    ptw: bool
    fwb: bool
    nv1: bool
    sif: bool
    tcr2_el1: bool
    tcr2_el2: bool
    sctlr2_el2: bool

    @property
    def in_host(self) -> bool:
        """HCR_EL2.{E2H,TGE} = {1,1}: EL0 belongs to the EL2&0 regime."""
        return self.e2h and self.tge

    def regime_of(self, el: int) -> Regime:
        """The regime that translates accesses of an Exception level."""
        if el == 3:
            return Regime.EL3
        if el == 2:
            return Regime.EL20 if self.e2h else Regime.EL2
        return Regime.EL20 if el == 0 and self.in_host else Regime.EL10


def security_space(scr: int | None, features: Features) -> Space | None:
    """The Security state below EL3; without an SCR_EL3 it is Non-secure."""
    if scr is None:
        return Space.NON_SECURE
    if features.rme:
        ns = NS(scr) if features.sel2 else 1
        return {
            (0, 0): Space.SECURE,
            (0, 1): Space.NON_SECURE,
            (1, 1): Space.REALM,
        }.get((NSE(scr), ns))
    return Space.NON_SECURE if NS(scr) else Space.SECURE


def controls(register: Callable[[str], int], scr: int | None, features: Features) -> Controls:
    """Return the controls; ``register`` gives values by name, 0 for a missing one, ``scr`` is SCR_EL3 or
    None.
    """
    space = security_space(scr, features)
    # Without EL3 its enables do not exist: everything that they would guard is on.
    enables = ~0 if scr is None else scr
    el2_enabled = space is not Space.SECURE or bool(scr is not None and features.sel2 and EEL2(scr))
    hcr = register("HCR_EL2") if el2_enabled else 0
    hcrx_enabled = features.hcx and bool(HXEN(enables)) and el2_enabled
    hcrx = register("HCRX_EL2") if hcrx_enabled else 0
    e2h = features.vhe and bool(E2H(hcr))
    tge = bool(TGE(hcr))
    guest = not (e2h and tge)
    tcr2 = features.tcr2 and bool(TCR2EN(enables))
    return Controls(
        space=space,
        el2_enabled=el2_enabled,
        e2h=e2h,
        tge=tge,
        vm=guest and bool(VM(hcr)),
        dc=guest and bool(DC(hcr)),
        dct=features.mte2 and bool(DCT(hcr)),
        cd=guest and bool(CD(hcr)),
        id=guest and bool(ID(hcr)),
        ptw=not tge and bool(PTW(hcr)),
        fwb=features.s2fwb and bool(FWB(hcr)),
        nv1=features.nv and bool(NV(hcr) and NV1(hcr)),
        sif=scr is not None and bool(SIF(scr)) and (not features.rme or features.sel2),
        tcr2_el1=tcr2 and (not el2_enabled or bool(HCRX_TCR2EN(hcrx))),
        tcr2_el2=tcr2 and el2_enabled,
        sctlr2_el2=features.sctlr2 and bool(SCTLR2EN(enables)) and el2_enabled,
    )
