"""The arguments by which commands choose a regime, a stage and explicit roots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gdbhyp.commands.declaration import Argument, Context
from gdbhyp.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from gdbhyp.analyses.walk import Roots
    from gdbhyp.arch.regimes import Regime
    from gdbhyp.engine.stop import Stop

VM = Argument(
    ("--vm",),
    "ask VM N of hyp-vms, from any stop, as its vCPU V or its first one; or 'host', the host behind pKVM's stage 2",
    "vm",
    metavar="N[.V]",
)
REGIME = Argument(
    ("--regime",),
    "the translation regime: EL1 (EL1&0), EL2 (EL2 or EL2&0, by HCR_EL2.E2H) or EL3; the current one if not said",
    "choice",
    choices=("EL1", "EL2", "EL3"),
)
ROOTS = (
    Argument(("--ttbr",), "the stage-1 root, as a value of TTBRn_ELx", "number"),
    Argument(("--ttbr1",), "the stage-1 root of the upper range, as a value of TTBR1_ELx", "number"),
    Argument(("--tcr",), "the control of stage 1, as a value of TCR_ELx", "number"),
    Argument(("--vttbr",), "the stage-2 root, as a value of VTTBR_EL2", "number"),
    Argument(("--vtcr",), "the control of stage 2, as a value of VTCR_EL2", "number"),
)


class OfGuest:
    """The front end's context, with a guest as the CPU that is asked; expressions stay those of the front end."""

    def __init__(self, context: Context, stop: Stop) -> None:
        self._context = context
        self._stop = stop

    def stop(self) -> Stop:
        return self._stop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def vm_option(context: Context, arguments: Namespace, *, vcpu_matters: bool = True) -> Context:
    """Return the context in which ``--vm`` is the CPU that is asked; the same one without the option.

    Where the vCPU's registers are not live and ``vcpu_matters`` to the question, the person is told so.

    :raises GdbhypError: if there is no such VM or vCPU.
    """
    if arguments.vm is None:
        return context
    from gdbhyp.analyses.vms import guest_of, host_of

    if arguments.vm == "host":
        return OfGuest(context, host_of(context.stop()))
    number, vcpu = vm_number(arguments.vm)
    found = guest_of(context.stop(), number, vcpu)
    # JSON and CSV are for programs, which ask hyp-vms for the state of a vCPU.
    if vcpu_matters and not (found.live or arguments.json or arguments.csv):
        context.warn(f"the registers of VM {number} are {found.registers_from}")
    return OfGuest(context, found.stop)


def vm_number(text: str) -> tuple[int, int | None]:
    """Return the VM and the vCPU of ``N`` or ``N.V``, None where no vCPU is said.

    :raises UsageError: if it is neither.
    """
    number, separator, vcpu = text.partition(".")
    if not (number.isascii() and number.isdigit()) or (separator and not (vcpu.isascii() and vcpu.isdigit())):
        raise UsageError(f"'{text}' is no VM: say its number in hyp-vms, as 1, or that of a vCPU, as 1.0")
    return int(number), int(vcpu) if separator else None


def roots_option(context: Context, arguments: Namespace) -> Roots:
    """Return the explicit roots that were given."""
    from gdbhyp.analyses.walk import Roots

    given = {name: getattr(arguments, name) for name in ("ttbr", "ttbr1", "tcr", "vttbr", "vtcr")}
    return Roots(**{name: None if text is None else context.number(text) for name, text in given.items()})


_OF_STAGE_1 = ("TTBR0_EL1", "TTBR1_EL1", "TCR_EL1", "HCR_EL2")


def host_roots(context: Context, arguments: Namespace, given: Roots) -> Roots | None:
    """Return the host kernel's own tables where a question needs them and the target, a dump, has no system registers.

    It is told where they come from. None for any other question.
    """
    from gdbhyp.analyses.walk import Roots
    from gdbhyp.hypervisors.linux.roots import kernel_roots

    stop = context.stop()
    guest = arguments.vm is not None
    elsewhere = guest or arguments.stage2 or arguments.both or arguments.regime in ("EL2", "EL3") or given.any
    if elsewhere or stop.origin == "live" or any(stop.optional(name) is not None for name in _OF_STAGE_1):
        return None
    found = kernel_roots(stop)
    context.warn(f"the dump has no system registers; stage 1 of the host's kernel is taken from {found.why}")
    return Roots(ttbr1=found.ttbr1, tcr=found.tcr)


def regime_option(context: Context, arguments: Namespace) -> Regime | None:
    """Return the regime that ``--regime`` names; None for the current one."""
    from gdbhyp.arch.regimes import Regime
    from gdbhyp.arch.worlds import Hcr

    if arguments.regime == "EL2":
        return Regime.EL20 if Hcr(context.stop().optional("HCR_EL2") or 0).e2h else Regime.EL2
    return {"EL1": Regime.EL10, "EL3": Regime.EL3}.get(arguments.regime)


def stages_option(arguments: Namespace, default: str | None = "both") -> str | None:
    """Return "1", "2" or "both" as the flags say, or ``default``.

    :raises UsageError: if more than one is given.
    """
    chosen = [flag for flag in ("stage1", "stage2", "both") if getattr(arguments, flag)]
    if len(chosen) > 1:
        raise UsageError(f"--{chosen[0]} and --{chosen[1]} exclude each other")
    return {"stage1": "1", "stage2": "2", "both": "both"}[chosen[0]] if chosen else default
