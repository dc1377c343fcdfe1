"""``hyp-reg`` and ``gdbhyp reg``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gdbhyp.commands.declaration import Argument, Command, Context
from gdbhyp.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace


def _run(context: Context, arguments: Namespace) -> Any:
    from gdbhyp.analyses import registers

    words = [part for word in arguments.register for part in word.split("=", 1) if part]
    if len(words) > 2:
        raise UsageError("say one register and one value: NAME=VALUE")
    if len(words) == 2:
        value = context.number(words[1])
        return registers.describe(words[0], value, e2h=arguments.e2h, verbose=arguments.verbose)
    return registers.of_stop(context.stop(), words[0] if words else "", verbose=arguments.verbose)


COMMAND = Command(
    name="reg",
    summary="Show system registers by field, with the meaning of each.",
    run=_run,
    in_cli=True,
    arguments=(
        Argument(
            ("register",),
            "a name, a pattern (HCR*), or NAME=VALUE to decode a value; without any, what decides about "
            "translation and traps",
            "register",
            metavar="NAME[=VALUE]",
            optional=True,
            repeated=True,
        ),
        Argument(("-v", "--verbose"), "show every field, not only those that differ from their default"),
        Argument(("--e2h",), "with NAME=VALUE: use the layout for HCR_EL2.E2H = 1"),
    ),
    description="""
Fields have the Arm ARM's names and positions. By default only fields that do not hold their default are
shown; JSON has them all. For trap registers, what the value traps to EL2 is listed. CPTR_EL2, TCR_EL2,
CNTHCTL_EL2 and others have two layouts: HCR_EL2.E2H of the CPU chooses, or --e2h for a given value.
""",
)
