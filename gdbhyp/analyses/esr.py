"""The syndrome in words: of a value, or of the last exception that a stopped CPU took."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, ClassVar

from gdbhyp.analyses.world import at_exception_entry, interrupted_world
from gdbhyp.arch.spaces import Word
from gdbhyp.arch.syndrome import Abort, ExceptionClass, FieldValue, Syndrome, SyndromeContext, decode_esr

if TYPE_CHECKING:
    from gdbhyp.engine.stop import Stop


@dataclass(frozen=True)
class EsrReport:
    """A decoded ESR; the keys of the JSON contract. ``fields`` are in descending bit order."""

    kind: ClassVar[str] = "esr"

    esr: Word
    el: int
    ec: ExceptionClass
    il: int
    iss: Word
    iss2: Word
    encoding: str
    fields: tuple[FieldValue, ...]
    summary: str
    instruction: str | None
    system_register: str | None
    call: str | None
    immediate: int | None
    abort: Abort | None
    verbose: bool = field(default=False, metadata={"json": False})


@dataclass(frozen=True)
class EsrReports:
    """Several values; in JSON a line each."""

    kind: ClassVar[str] = "esr_list"
    json_lines: ClassVar[bool] = True

    rows: tuple[EsrReport, ...]


_FROM_SYNDROME = tuple(f.name for f in fields(EsrReport) if f.name != "verbose")


def explain(syndrome: Syndrome, *, verbose: bool = False) -> EsrReport:
    """Return the report of a decoded syndrome; ``verbose`` asks for every field in text."""
    return EsrReport(**{name: getattr(syndrome, name) for name in _FROM_SYNDROME}, verbose=verbose)


def value(esr: int, el: int, *, verbose: bool = False) -> EsrReport:
    """Decode a value of ESR_EL<el> that comes from anywhere."""
    return explain(decode_esr(esr, el=el), verbose=verbose)


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
