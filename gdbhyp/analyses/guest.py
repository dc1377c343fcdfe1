"""The stage 1 of whoever runs below EL2: where its virtual addresses lead, as AT S1E1R would say."""

from __future__ import annotations

from gdbhyp.analyses.walk import machine_for
from gdbhyp.arch.regimes import Regime
from gdbhyp.engine.results import Translation
from gdbhyp.engine.stop import Stop
from gdbhyp.engine.translate import translate
from gdbhyp.errors import GdbhypError, Unsupported


def stage1_walk(stop: Stop, address: int) -> Translation | None:
    """Walk stage 1 of the EL1&0 regime; the tables are found through stage 2. None if they cannot be had."""
    if not stop.register("HCR_EL2") >> 31 & 1:
        raise Unsupported("HCR_EL2.RW = 0 (an AArch32 EL1)")
    try:
        machine = machine_for(stop.machine, Regime.EL10, "1")
        return translate(machine, address, Regime.EL10, stages="1")
    except GdbhypError:
        return None
