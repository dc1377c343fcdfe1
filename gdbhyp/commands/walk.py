"""``hyp-walk``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gdbhyp.commands import roots
from gdbhyp.commands.declaration import Argument, Command, Context
from gdbhyp.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from gdbhyp.arch.regimes import Regime
    from gdbhyp.engine.results import Access


def _run(context: Context, arguments: Namespace) -> Any:
    from gdbhyp.analyses import walk
    from gdbhyp.arch.regimes import Regime

    address = context.number(arguments.address)
    context = roots.vm_option(context, arguments, vcpu_matters=not arguments.stage2)
    regime = roots.regime_option(context, arguments)
    given = roots.roots_option(context, arguments)
    # The kernel's own tables are those of the upper range.
    inferred = roots.host_roots(context, arguments, given) if address >> 55 & 1 else None
    stages = roots.stages_option(arguments, "1" if inferred else "both") or "both"
    if stages == "2" and regime not in (None, Regime.EL10):
        raise UsageError("only the EL1&0 regime has a stage 2: leave out --regime or say EL1")
    chosen = regime or (Regime.EL10 if stages == "2" else walk.regime_of(context.stop()))
    question = walk.Question(
        address,
        chosen if inferred else regime,
        stages,
        _access(context, arguments, chosen),
        inferred or given,
        arguments.verbose,
    )
    return walk.walk(context.stop(), question)


def _access(context: Context, arguments: Namespace, regime: Regime) -> Access | None:
    """Return the access to judge, None when only the mapping is asked for."""
    from gdbhyp.analyses import walk
    from gdbhyp.arch.regimes import Regime
    from gdbhyp.engine.results import Access

    if arguments.access is None:
        if arguments.el0:
            raise UsageError("--el0 needs --access: say which access EL0 makes")
        return None
    privileged = {Regime.EL10: 1, Regime.EL3: 3}.get(regime, 2)
    if arguments.el0 and not regime.has_unprivileged:
        raise UsageError(f"EL0 does not run in the {regime.value} regime")
    if arguments.el0:
        return Access(arguments.access, 0)
    # PSTATE.PAN is that of the CPU's own level, so it says nothing about another regime's accesses.
    own = regime is walk.regime_of(context.stop())
    return Access(arguments.access, privileged, pan=own)


COMMAND = Command(
    name="walk",
    summary="Translate one address, level by level, through one stage or both.",
    run=_run,
    arguments=(
        Argument(
            ("address",), "the address: a VA, or an IPA with --stage2; an expression", "number", rest=True
        ),
        Argument(("--stage1",), "only stage 1: VA to IPA in the EL1&0 regime"),
        Argument(("--stage2",), "only stage 2: IPA to PA, also while HCR_EL2.VM is 0"),
        Argument(("--both",), "stage 1 and, in the EL1&0 regime, stage 2 if it is on: the default"),
        roots.VM,
        roots.REGIME,
        Argument(
            ("--access",),
            "also judge the permissions for this access",
            "choice",
            choices=("read", "write", "execute"),
        ),
        Argument(("--el0",), "the access of --access is unprivileged"),
        *roots.ROOTS,
        Argument(("-v", "--verbose"), "also show the stage-2 walks that find a guest's stage-1 tables"),
    ),
    description="""
Every descriptor on the way is shown with its table, index, address and value; a stage-1 table of a guest is
itself an IPA and is found through stage 2, with the faults that this can have. A fault is an answer: it says
the kind, the stage, the level, and what ESR_EL2 and HPFAR_EL2 would hold. Without --access, permissions are
shown and not judged.
""",
)
