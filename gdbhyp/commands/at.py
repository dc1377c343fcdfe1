"""``hyp-at``, and ``gdbhyp at`` over a file of cases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gdbhyp.commands import roots
from gdbhyp.commands.declaration import Argument, Command, Context
from gdbhyp.commands.offline import DUMP_OPTION, OPTIONS, OfDump, open_stop
from gdbhyp.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace


def _run_live(context: Context, arguments: Namespace) -> Any:
    from gdbhyp.analyses import at

    address = context.number(arguments.address)
    asked = roots.vm_option(context, arguments)
    return at.of_stop(asked.stop(), arguments.op, address)


def _run_batch(context: Context, arguments: Namespace) -> Any:
    from gdbhyp.analyses import at

    words = arguments.cases
    if arguments.dump is not None:
        if len(words) != 2 or words[0].upper() not in _OPS:
            raise UsageError("with --dump, say an operation and an address: S12E1R 0xffff800010000000")
        asked = OfDump(context, open_stop(context, arguments))
        return at.of_stop(asked.stop(), words[0].upper(), asked.number(words[1]))
    if len(words) > 1:
        raise UsageError("say one file of cases; an operation and an address need --dump")
    return at.of_file(words[0] if words else "-", arguments.memory or [])


_OPS = (
    *("S1E1R", "S1E1W", "S1E0R", "S1E0W", "S1E1RP", "S1E1WP"),
    *("S12E1R", "S12E1W", "S12E0R", "S12E0W", "S1E2R", "S1E2W"),
)

LIVE = Command(
    name="at",
    summary="Say what an AT instruction would leave in PAR_EL1, without executing it.",
    run=_run_live,
    arguments=(
        roots.VM,
        Argument(("op",), "the operation", metavar="OP", choices=_OPS),
        Argument(("address",), "the virtual address; an expression", "number", rest=True),
    ),
    description="""
The translation is computed from the CPU's registers and tables as if the instruction were executed at EL2, so
nothing on the target changes, PAR_EL1 included. S1 is stage 1 alone, S12 both stages; E0, E1, E2 the
exception level; R and W the access; P takes PSTATE.PAN into account.
""",
)

BATCH = Command(
    name="at",
    summary="Compute PAR_EL1 for a file of AT instructions, a JSON object a line.",
    run=_run_batch,
    in_gdb=False,
    in_cli=True,
    arguments=(
        Argument(
            ("--memory",),
            "an image of physical memory, FILE@ADDRESS; may be given again",
            "text",
            repeated=True,
        ),
        Argument(
            ("cases",),
            "the file of cases; standard input if not said, or -; with --dump, an operation and an address",
            metavar="CASES.jsonl|OP ADDRESS",
            optional=True,
            repeated=True,
        ),
        DUMP_OPTION,
        *OPTIONS,
    ),
    description="""
A case is {"op": "S12E1R", "va": "0x...", "regs": {"HCR_EL2": "0x...", ...}, "pstate": {"PAN": 0}}; its
answer, in order, a line: {"par": "0x..."}, with "exception": true where the processor would take a
synchronous External abort on the walk instead, or {"error": "..."} when that case cannot be modelled.
Registers that are not given read as 0, and what the CPU implements comes from the ID registers among them.
The operations are executed at EL3, for the Security state that SCR_EL3 gives, or for Non-secure state without
it. Memory outside the images aborts the walk.

With --dump, one instruction is computed for a CPU of a dump, as hyp-at does for a live one.
""",
)
