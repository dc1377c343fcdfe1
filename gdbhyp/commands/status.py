"""``hyp-status``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gdbhyp.commands.declaration import Argument, Command, Context

if TYPE_CHECKING:
    from argparse import Namespace


def _run(context: Context, arguments: Namespace) -> Any:
    from gdbhyp.analyses import status

    return status.status(context.stop(), verbose=arguments.verbose)


COMMAND = Command(
    name="status",
    summary="Say in one screen where the CPU is: its world, its regime, its VM, and why EL2 was last entered.",
    run=_run,
    arguments=(
        Argument(("-v", "--verbose"), "also list what HCR_EL2 traps, and say how things were found out"),
    ),
    description="""
Whose world it is follows from the exception level, HCR_EL2 and VTTBR_EL2; which hypervisor it is, from the
code at VBAR_EL2. What cannot be told is "unknown". The last exception is the one that ESR_EL2 describes: it
may be older than the world that runs now.
""",
)
