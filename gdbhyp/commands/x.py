"""``hyp-x``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gdbhyp.commands import roots
from gdbhyp.commands.declaration import Argument, Command, Context
from gdbhyp.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from gdbhyp.analyses.examine import Space
    from gdbhyp.arch.regimes import Regime


def _run(context: Context, arguments: Namespace) -> Any:
    from gdbhyp.analyses.examine import Question, examine
    from gdbhyp.arch.examine import parse_format

    text, format_text = arguments.address, ""
    if text.startswith("/"):
        format_text, _, text = text[1:].partition(" ")
    if not text.strip():
        raise UsageError("say an address: hyp-x/4xg ADDRESS")
    address = context.number(text)
    space = _space(arguments)
    context = roots.vm_option(context, arguments, vcpu_matters=space == "VA")
    question = Question(address, parse_format(format_text), space, _regime(context, arguments))
    return examine(context.stop(), question, context.disassemble)


def _space(arguments: Namespace) -> Space:
    if arguments.ipa and arguments.pa:
        raise UsageError("--ipa and --pa exclude each other")
    return "IPA" if arguments.ipa else "PA" if arguments.pa else "VA"


def _regime(context: Context, arguments: Namespace) -> Regime | None:
    """Return the regime whose virtual addresses are meant: that of EL1 for a guest, else the current one."""
    from gdbhyp.arch.regimes import Regime

    if arguments.el1 and arguments.regime not in (None, "EL1"):
        raise UsageError(f"--el1 and --regime {arguments.regime} exclude each other")
    if arguments.el1 or (arguments.vm is not None and arguments.regime is None):
        return Regime.EL10
    return roots.regime_option(context, arguments)


COMMAND = Command(
    name="x",
    summary="Examine memory of any world: a guest's, EL1's while EL2 runs, by VA, IPA or PA.",
    run=_run,
    arguments=(
        Argument(
            ("address",),
            "/FMT and the address, an expression: FMT is a count, a letter of xduotzacfsi and a size of bhwg, as for x",
            "number",
            metavar="[/FMT] ADDR",
            rest=True,
        ),
        roots.VM,
        Argument(("--el1",), "the address is one of the EL1&0 regime, through both of its stages"),
        Argument(("--ipa",), "the address is an IPA: only stage 2 is walked, also while HCR_EL2.VM is 0"),
        Argument(("--pa",), "the address is physical"),
        roots.REGIME,
    ),
    description="""
GDB's own x reads through the tables that the CPU uses now. This command reads through any: with --vm those of a
VM from any stop, with --el1 those of the world below while the CPU is in EL2. Nothing is changed to do so, and
devices are not touched. Where memory ends, what goes before is shown.
""",
)
