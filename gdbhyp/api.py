"""The library: open a dump, walk, map, decode. ``import gdbhyp`` has all of these names.

>>> import gdbhyp
>>> gdbhyp.decode(0x93c58045).ec.name
'Data Abort from a lower Exception level'

A question is asked of a ``Stop``, one CPU at one moment; ``open_dump(...).stop(cpu)`` is one. Nothing is printed, and
what cannot be answered is a ``GdbhypError`` with a sentence; a translation fault is an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gdbhyp.analyses import esr, map, registers
from gdbhyp.analyses.esr import EsrReport
from gdbhyp.analyses.map import MapReport
from gdbhyp.analyses.registers import Register
from gdbhyp.analyses.walk import Question, Roots, WalkReport
from gdbhyp.analyses.walk import walk as _walk
from gdbhyp.arch.regimes import Regime
from gdbhyp.engine.results import Access
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import GdbhypError
from gdbhyp.targets.dump import Dump
from gdbhyp.targets.dump import open_dump as _open_dump

__all__ = [
    "Dump",
    "GdbhypError",
    "Regime",
    "Stop",
    "as_json",
    "decode",
    "decode_register",
    "map_tables",
    "open_dump",
    "walk",
]


def open_dump(name: str, *also: str) -> Dump:
    """Open a dump: a snapshot, an ELF core, a kdump-compressed dump, LiME, or a raw image as ``FILE@ADDRESS``.

    ``also`` are files of the same machine. ``.stop(cpu, {"VTTBR_EL2": …})`` is a CPU of it, with registers that hold
    in place of the dump's or that it does not have.

    :raises GdbhypError: with a sentence, if a file is none of these or is damaged.
    """
    return _open_dump(name, also)


def walk(
    stop: Stop,
    address: int,
    *,
    stages: str = "both",
    regime: Regime | None = None,
    access: str | None = None,
    el: int = 1,
    **roots: int,
) -> WalkReport:
    """Translate one address.

    ``stages`` is "1", "2" (``address`` is an IPA) or "both"; ``regime`` is the CPU's current one unless given. With
    ``access`` ("read", "write", "execute") the permissions of Exception level ``el`` are judged too. ``roots`` are
    values in place of the CPU's registers: ``vttbr``, ``vtcr``, ``ttbr``, ``ttbr1``, ``tcr``.

    :raises GdbhypError: if the dump lacks a register or a table that the walk needs.
    """
    wanted = None if access is None else Access(access, el)
    return _walk(stop, Question(address, regime, stages, wanted, Roots(**roots)))


def map_tables(
    stop: Stop,
    *,
    stages: str | None = None,
    regime: Regime | None = None,
    start: int | None = None,
    end: int | None = None,
    **roots: int,
) -> MapReport:
    """Map a whole table; the report's ``rows`` is a stream of merged ranges, and ``problems`` what is missing from it.

    Arguments are those of ``walk``; ``start`` and ``end`` (exclusive) keep to a part of the input addresses.
    """
    return map.map_tables(stop, map.Question(regime, stages, Roots(**roots), start, end))


def decode(value: int, *, el: int = 2) -> EsrReport:
    """Decode an exception syndrome, a value of ESR_ELx."""
    return esr.value(value, el)


def decode_register(name: str, value: int, *, e2h: bool = False) -> Register:
    """Decode a system register by field; ``e2h`` chooses the layout for HCR_EL2.E2H = 1.

    :raises GdbhypError: for a register that no table knows.
    """
    return registers.describe(name, value, e2h=e2h)


def as_json(report: object) -> Mapping[str, Any]:
    """Return a report, or a row of one, as the object that ``--json`` prints."""
    from gdbhyp.render.json import encode

    found: Mapping[str, Any] = encode(report)
    return found
