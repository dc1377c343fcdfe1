"""Single numbers and words about a stopped CPU, for expressions, conditions and scripts.

None is an answer: there is no such address, field or fault. What cannot be asked is an error.
"""

from __future__ import annotations

from gdbhyp.analyses import ipa as ipa_question
from gdbhyp.analyses.registers import field_named
from gdbhyp.analyses.walk import Question, Roots, walk
from gdbhyp.analyses.world import world_of
from gdbhyp.arch.regimes import Regime
from gdbhyp.arch.registers import describe
from gdbhyp.arch.worlds import Hcr, World
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import UsageError


def pa(stop: Stop, va: int) -> int | None:
    """Return the PA that ``va`` has in the current regime, through stage 2 where that is on; None where it faults."""
    return walk(stop, Question(va)).output


def ipa(stop: Stop, va: int) -> int | None:
    """Return the IPA to which stage 1 of the EL1&0 regime maps ``va``; None where it faults."""
    return walk(stop, Question(va, Regime.EL10, "1")).output


def faulting_ipa(stop: Stop) -> int | None:
    """Return the IPA of the last fault taken to EL2, if it is certain."""
    found = ipa_question.of_last_fault(stop)
    return found.ipa if found.certain else None


def stage2(stop: Stop, ipa: int, vm: int | None = None) -> int | None:
    """Return the PA to which stage 2 maps ``ipa``: that of VTTBR_EL2, or of a VM by its number; None where it faults.

    :raises UsageError: if there is no such VM, or none is loaded.
    """
    if vm is None and not stop.register("VTTBR_EL2"):
        raise UsageError("VTTBR_EL2 is zero, so no stage 2 is loaded: name a VM by its number")
    roots = Roots() if vm is None else _roots_of(stop, vm)
    return walk(stop, Question(ipa, Regime.EL10, "2", roots=roots)).output


def _roots_of(stop: Stop, number: int) -> Roots:
    from gdbhyp.hypervisors.vms import find_vms

    vms = find_vms(stop).vms
    for vm in vms:
        if vm.vm == number:
            return Roots(vttbr=vm.vttbr, vtcr=vm.vtcr)
    known = ", ".join(str(vm.vm) for vm in vms)
    raise UsageError(f"there is no VM {number}: " + (f"the VMs are {known}" if known else "no VM was found"))


def register(stop: Stop, name: str, field: str | None = None) -> int:
    """Return a register, or one of its fields.

    :raises RegisterUnavailable: if the target does not show it.
    :raises UsageError: if it has no such field, with those that it has.
    """
    value = stop.register(name.upper())
    if field is None:
        return value
    view = describe(name.upper(), value, e2h=Hcr(stop.register("HCR_EL2")).e2h)
    return field_named(view.name, view.fields, field).value


def exception_class(stop: Stop, el: int = 2) -> int:
    """Return ESR_ELx.EC."""
    return stop.register(f"ESR_EL{el}") >> 26 & 0x3F


def world(stop: Stop) -> World:
    """Return "host", "hypervisor", "guest" or "unknown"."""
    return world_of(stop)[0]
