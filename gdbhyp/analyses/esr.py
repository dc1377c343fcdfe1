"""The syndrome in words, of a value that comes from anywhere."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import ClassVar

from gdbhyp.arch.spaces import Word
from gdbhyp.arch.syndrome import Abort, ExceptionClass, FieldValue, Syndrome, decode_esr


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
