"""The last exception that a stopped CPU took, with the registers that complete its syndrome."""

from __future__ import annotations

from gdbhyp.analyses.esr import EsrReport, explain
from gdbhyp.analyses.world import at_exception_entry, interrupted_world
from gdbhyp.arch.syndrome import decode_esr
from gdbhyp.arch.syndrome_context import SyndromeContext
from gdbhyp.engine.stop import Stop


def last_exception(stop: Stop, el: int = 2, *, verbose: bool = False) -> EsrReport:
    """Decode ESR_EL<el> of a stopped CPU with the registers that complete it.

    :raises RegisterUnavailable: if the target does not show ESR_EL<el>.
    """
    syndrome = decode_esr(stop.register(f"ESR_EL{el}"), el=el, context=context_of(stop, el))
    return explain(syndrome, verbose=verbose)


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
        guest=interrupted_world(stop) == "guest" if entry and el == 2 else None,
    )
