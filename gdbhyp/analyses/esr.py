"""The syndrome in words, of a value that comes from anywhere."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import ClassVar

from gdbhyp.arch.syndrome import Syndrome, decode_esr


@dataclass(frozen=True)
class EsrReport(Syndrome):
    """A decoded ESR; its attributes are the keys of the JSON contract. ``verbose`` asks for every field in text.

    EC and IL have keys of their own, so ``fields`` holds those of ISS2 and ISS alone.
    """

    kind: ClassVar[str] = "esr"
    csv_rows: ClassVar[str] = "fields"

    verbose: bool = field(default=False, metadata={"json": False})


@dataclass(frozen=True)
class EsrReports:
    """Several values; in JSON a line each."""

    kind: ClassVar[str] = "esr_list"
    json_lines: ClassVar[bool] = True

    rows: tuple[EsrReport, ...]


def explain(syndrome: Syndrome, *, verbose: bool = False) -> EsrReport:
    """Return the report of a decoded syndrome."""
    values = {f.name: getattr(syndrome, f.name) for f in fields(Syndrome)}
    values["fields"] = tuple(f for f in syndrome.fields if f.name not in ("EC", "IL"))
    return EsrReport(**values, verbose=verbose)


def value(esr: int, el: int, *, verbose: bool = False) -> EsrReport:
    """Decode a value of ESR_EL<el> that comes from anywhere."""
    return explain(decode_esr(esr, el=el), verbose=verbose)
