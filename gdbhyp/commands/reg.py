"""``hyp-reg`` and ``gdbhyp reg``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gdbhyp.commands import roots
from gdbhyp.commands.declaration import Argument, Command, Context
from gdbhyp.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace


def _run(context: Context, arguments: Namespace) -> Any:
    from gdbhyp.analyses import registers

    pairs = _pairs(arguments.register)
    if pairs:
        rows = tuple(
            registers.describe(name, context.number(value), e2h=arguments.e2h, verbose=arguments.verbose)
            for name, value in pairs
        )
        return rows[0] if len(rows) == 1 else registers.RegisterList(rows, ())
    if len(arguments.register) > 1:
        raise UsageError("say one register or pattern, or values as NAME=VALUE")
    pattern = arguments.register[0] if arguments.register else ""
    return registers.of_stop(roots.vm_option(context, arguments).stop(), pattern, verbose=arguments.verbose)


def _pairs(words: list[str]) -> list[tuple[str, str]]:
    """Return the values to decode, NAME=VALUE each, or NAME and VALUE as two words; none for a register's name."""
    if len(words) == 2 and not any("=" in word for word in words):
        return [(words[0], words[1])]
    split = [word.partition("=") for word in words]
    if not all(separator for _, separator, _ in split):
        if any(separator for _, separator, _ in split):
            raise UsageError("a register without a value stands among NAME=VALUE words")
        return []
    return [(name.strip(), value.strip()) for name, _, value in split]


COMMAND = Command(
    name="reg",
    summary="Show system registers by field, with the meaning of each.",
    run=_run,
    arguments=(
        Argument(
            ("register",),
            "a name, NAME.FIELD, a pattern (HCR*), or NAME=VALUE to decode a value; without any, what decides about "
            "translation and traps",
            "register",
            metavar="NAME[=VALUE]",
            optional=True,
            repeated=True,
        ),
        roots.VM,
        Argument(("-v", "--verbose"), "show every field, not only those that differ from their default"),
        Argument(("--e2h",), "with NAME=VALUE: use the layout for HCR_EL2.E2H = 1"),
    ),
    description="""
Fields have the Arm ARM's names and positions. By default only fields that do not hold their default are
shown; JSON has them all. For trap registers, what the value traps to EL2 is listed. CPTR_EL2, TCR_EL2,
CNTHCTL_EL2 and others have two layouts: HCR_EL2.E2H of the CPU chooses, or --e2h for a given value.
""",
)
