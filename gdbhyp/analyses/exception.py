"""The last exception that a stopped CPU took, with the registers that complete its syndrome."""

from __future__ import annotations

from dataclasses import replace

from gdbhyp.analyses.esr import EsrReport, explain
from gdbhyp.analyses.guest import stage1_walk
from gdbhyp.analyses.world import at_exception_entry, interrupted_world
from gdbhyp.arch.syndrome import Abort, decode_esr
from gdbhyp.arch.syndrome_context import SyndromeContext
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import Unsupported
from gdbhyp.hypervisors.calls import namer


def last_exception(stop: Stop, el: int = 2, *, verbose: bool = False) -> EsrReport:
    """Decode ESR_EL<el> of a stopped CPU with the registers that complete it.

    :raises RegisterUnavailable: if the target does not show ESR_EL<el>.
    """
    context = context_of(stop, el)
    syndrome = decode_esr(stop.register(f"ESR_EL{el}"), el=el, context=context)
    # The general-purpose registers are the exception's only where the guest's tables are still in place, too.
    if _needs_walk(syndrome.abort) and el == 2 and context.registers is not None:
        context = replace(context, ipa=_walked_ipa(stop))
        syndrome = decode_esr(syndrome.esr, el=el, context=context)
    return explain(syndrome, verbose=verbose)


def _walked_ipa(stop: Stop) -> int | None:
    try:
        walk = stage1_walk(stop, stop.register("FAR_EL2"))
    except Unsupported:
        return None
    return walk.output if walk else None


def _needs_walk(abort: Abort | None) -> bool:
    """Return whether the IPA is in no register: a stage-2 permission fault, with FAR_EL2 valid."""
    return (
        abort is not None
        and (abort.kind, abort.stage) == ("permission", 2)
        and not abort.s1ptw
        and not abort.fnv
    )


def _from_guest(stop: Stop) -> bool | None:
    """Return whether a guest was interrupted, None where that is not known."""
    world = interrupted_world(stop)
    return None if world == "unknown" else world == "guest"


def context_of(stop: Stop, el: int = 2) -> SyndromeContext:
    """Return what the CPU's registers add to ESR_EL<el>.

    Whose exception it was, and what the general-purpose registers held, is known only while the CPU stands where the
    vector begins: later the hypervisor may have switched worlds and used the registers.
    """
    entry = el == stop.el and at_exception_entry(stop)
    return SyndromeContext(
        far=stop.optional(f"FAR_EL{el}"),
        hpfar=stop.optional("HPFAR_EL2") if el == 2 else None,
        elr=stop.optional(f"ELR_EL{el}"),
        spsr=stop.optional(f"SPSR_EL{el}"),
        registers=(lambda number: stop.optional(f"X{number}")) if entry else None,
        guest=_from_guest(stop) if entry and el == 2 else None,
        host_call=namer(stop) if entry and el == 2 else None,
    )
