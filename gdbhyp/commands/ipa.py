"""``hyp-ipa``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gdbhyp.commands.declaration import Argument, Command, Context

if TYPE_CHECKING:
    from argparse import Namespace


def _run(context: Context, arguments: Namespace) -> Any:
    from gdbhyp.analyses import ipa

    if arguments.va:
        return ipa.of_address(context.stop(), context.number(arguments.va), verbose=arguments.verbose)
    return ipa.of_last_fault(context.stop(), verbose=arguments.verbose)


COMMAND = Command(
    name="ipa",
    summary="Find the faulting IPA, and say how it was found and whether HPFAR_EL2 could be trusted.",
    run=_run,
    arguments=(
        Argument(
            ("va",),
            "a guest's virtual address to resolve by its stage 1, instead of the last fault's",
            "number",
            optional=True,
            rest=True,
        ),
        Argument(("-v", "--verbose"), "also show the walks of both stages"),
    ),
    description="""
HPFAR_EL2 holds the IPA of stage-2 translation, access-flag and address-size faults, and of every stage-2
fault on a stage-1 table walk (S1PTW). For a permission fault it is UNKNOWN, so stage 1 is walked from
FAR_EL2, through stage 2, as AT S1E1R would; the page that HPFAR_EL2 happens to hold is shown beside it.
Nothing is executed on the target.
""",
)
