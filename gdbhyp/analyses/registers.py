"""System registers by field: of a value, or of a stopped CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import ClassVar

from gdbhyp.arch import registers
from gdbhyp.arch.registers import RegisterView
from gdbhyp.arch.spaces import Word
from gdbhyp.arch.worlds import Hcr
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import RegisterUnavailable, UsageError

# What decides about translation and traps: shown when no register is named.
ESSENTIAL = (
    "HCR_EL2",
    "HCRX_EL2",
    "VTTBR_EL2",
    "VTCR_EL2",
    "SCTLR_EL2",
    "TCR_EL2",
    "TTBR0_EL2",
    "TTBR1_EL2",
    "MAIR_EL2",
    "VBAR_EL2",
    "CPTR_EL2",
    "MDCR_EL2",
    "HSTR_EL2",
    "CNTHCTL_EL2",
    "ESR_EL2",
    "FAR_EL2",
    "HPFAR_EL2",
    "ELR_EL2",
    "SPSR_EL2",
    "SCTLR_EL1",
    "TCR_EL1",
    "TTBR0_EL1",
    "TTBR1_EL1",
    "MAIR_EL1",
    "VBAR_EL1",
    "ESR_EL1",
    "FAR_EL1",
    "PAR_EL1",
)


@dataclass(frozen=True)
class Register:
    """A register by field; ``traps`` says in sentences what its value traps to EL2."""

    kind: ClassVar[str] = "register"
    csv_rows: ClassVar[str] = "fields"

    name: str
    value: Word
    long_name: str
    layout: str
    fields: tuple[registers.RegisterField, ...]
    traps: tuple[str, ...]
    verbose: bool = field(default=False, metadata={"json": False})


@dataclass(frozen=True)
class RegisterList:
    """Several registers; ``missing`` are those that the target does not show. In JSON, a line a register."""

    kind: ClassVar[str] = "register_list"
    json_lines: ClassVar[bool] = True

    rows: tuple[Register, ...]
    missing: tuple[str, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """What is missing, as a sentence."""
        return (f"the target does not show {', '.join(self.missing)}",) if self.missing else ()


def describe(name: str, value: int, *, e2h: bool = False, verbose: bool = False) -> Register:
    """Return ``value`` of the register by field; ``e2h`` is HCR_EL2.E2H, on which some layouts depend.

    :raises UsageError: for a register that no table knows.
    """
    view: RegisterView = registers.describe(name.upper(), value, e2h=e2h)
    return Register(
        view.name,
        view.value,
        view.long_name,
        view.layout,
        view.fields,
        tuple(registers.trapped_by(view.name, value, e2h=e2h)),
        verbose,
    )


def of_stop(stop: Stop, pattern: str, *, verbose: bool) -> Register | RegisterList:
    """Return the registers of a CPU whose names match ``pattern`` (with * and ?; "" for the essential ones).

    ``NAME.FIELD`` is one field of a register.

    :raises RegisterUnavailable: if a register named in full is not shown.
    :raises UsageError: if no register, or no field, matches.
    """
    name, dot, wanted = pattern.upper().partition(".")
    if dot:
        value, e2h = stop.register(name), Hcr(stop.register("HCR_EL2")).e2h
        whole = describe(name, value, e2h=e2h, verbose=True)
        return replace(whole, fields=(field_named(whole.name, whole.fields, wanted),), traps=())
    names = _matching(pattern.upper()) if pattern else list(ESSENTIAL)
    e2h = Hcr(stop.register("HCR_EL2")).e2h
    values = {name: stop.optional(name) for name in names}
    if len(names) == 1 and values[names[0]] is None:
        raise RegisterUnavailable(names[0])
    return _listed(values, e2h, verbose, single=bool(pattern) and len(names) == 1, named=not pattern)


def field_named(
    register: str, fields: tuple[registers.RegisterField, ...], name: str
) -> registers.RegisterField:
    """Return the field that is called ``name``, in any case.

    :raises UsageError: with those that there are.
    """
    for known in fields:
        if known.name.upper() == name.upper():
            return known
    raise UsageError(f"{register} has no field {name}: its fields are {', '.join(f.name for f in fields)}")


def _listed(
    values: Mapping[str, int | None], e2h: bool, verbose: bool, *, single: bool, named: bool
) -> Register | RegisterList:
    rows = tuple(describe(n, v, e2h=e2h, verbose=verbose) for n, v in values.items() if v is not None)
    if single:
        return rows[0]
    return RegisterList(rows, tuple(n for n, v in values.items() if v is None) if named else ())


def _matching(pattern: str) -> list[str]:
    known = registers.register_names()
    if pattern in known:
        return [pattern]
    wild = pattern if any(c in pattern for c in "*?[") else f"*{pattern}*"
    found = [name for name in known if fnmatchcase(name, wild)]
    if not found:
        import difflib

        close = difflib.get_close_matches(pattern, known, 1)
        guess = f" (did you mean {close[0]}?)" if close else ""
        raise UsageError(f"no register that gdbhyp knows by field matches '{pattern}'{guess}")
    return found
