"""``hyp-report`` and ``gdbhyp report``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gdbhyp.commands.declaration import OUTPUT, Argument, Command, Context
from gdbhyp.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace


def _run(context: Context, arguments: Namespace) -> Any:
    from gdbhyp.analyses import report

    if arguments.output is None and not arguments.json:
        raise UsageError("say where the page is to be written: -o report.html")
    trace = None
    if arguments.trace is not None:
        from gdbhyp.trace import files

        trace = arguments.trace, files.open_trace(arguments.trace)
    return report.report(context.stop(), trace, context.progress, guests=arguments.guests)


COMMAND = Command(
    name="report",
    summary="Draw the whole machine on one page of HTML: its VMs, every map to scale, who ran, and what is wrong.",
    run=_run,
    arguments=(
        Argument(
            ("--trace",), "a recording of the machine, for the timeline and its statistics", "path", "FILE"
        ),
        Argument(("--guests",), "also draw the stage 1 of guests that are running"),
        OUTPUT,
    ),
    description="""
The page needs no network and no other file. It has the state of the CPU, every VM with its vCPUs, every translation
table drawn to scale (wheel, buttons or keys zoom; an address can be searched for), the exits of a recording, and what
hyp-audit finds, with the way from each piece of evidence into the map. Neighbouring ranges may be drawn as one band,
which then says how many they are.
""",
)
