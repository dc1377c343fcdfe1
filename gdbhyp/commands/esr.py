"""``hyp-esr`` and ``gdbhyp esr``."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

from gdbhyp.commands.declaration import Argument, Command, Context
from gdbhyp.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace


def _run(context: Context, arguments: Namespace) -> Any:
    from gdbhyp.analyses import esr

    level, verbose = int(arguments.el or 2), arguments.verbose
    values = _values(context, arguments.value)
    if not values:
        from gdbhyp.analyses import exception

        return exception.last_exception(context.stop(), level, verbose=verbose)
    reports = tuple(esr.value(number, level, verbose=verbose) for number in values)
    return reports[0] if len(reports) == 1 else esr.EsrReports(reports)


def _values(context: Context, words: list[str]) -> list[int]:
    """Return the values that the words say: one expression, one value a word, or with "-" those of standard input."""
    if words == ["-"]:
        words = [word for line in sys.stdin for word in line.split()]
    if len(words) > 1:
        with contextlib.suppress(UsageError):
            return [context.number(" ".join(words))]
    return [context.number(word) for word in words]


COMMAND = Command(
    name="esr",
    summary="Decode an exception syndrome (ESR_ELx) into words, every field of it.",
    run=_run,
    arguments=(
        Argument(
            ("value",),
            "values of ESR_ELx; without any, the CPU's own",
            "number",
            optional=True,
            repeated=True,
        ),
        Argument(("-v", "--verbose"), "show every field, also those of ISS2 that are zero"),
        Argument(
            ("--el",), "whose syndrome register it is; 2 if not said", "choice", choices=("1", "2", "3")
        ),
    ),
    description="""
Says why the CPU is in EL2: the exception class, each field of the ISS and ISS2 encoding in force, and one
line that says what happened. Without a value, ESR_EL2 of the selected CPU is decoded together with FAR_EL2,
HPFAR_EL2 and, at the vector itself, the general-purpose registers, so that accesses have addresses and SMCCC
calls have names. Any 64-bit value decodes: reserved and unallocated encodings are shown as such.
""",
)
