"""``hyp-catch``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gdbhyp.commands.classes import exception_class
from gdbhyp.commands.declaration import Argument, Command, Context
from gdbhyp.commands.numbers import address_range, small_number
from gdbhyp.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from gdbhyp.trace.catching import Wanted

_KINDS = (
    *("dabt", "iabt", "sysreg", "hvc", "smc", "wfx", "fp", "svc", "irq", "fiq", "serror"),
    *("ec", "vmid", "exit", "enter"),
)
_WORLDS = ("guest", "host", "any")


def _run(context: Context, arguments: Namespace) -> Any:
    if arguments.what is None:
        return context.catcher().list()
    detail, condition = _split(arguments.detail)
    ignore = 0 if arguments.ignore is None else small_number(arguments.ignore, "--ignore")
    wanted = _wanted(context, arguments, detail)
    return context.catcher().add(wanted, condition=condition, ignore=ignore, temporary=arguments.temporary)


def _split(text: str) -> tuple[str, str | None]:
    """Split ``DETAIL if EXPRESSION``."""
    words = text.split()
    if "if" not in words:
        return text.strip(), None
    at = words.index("if")
    condition = " ".join(words[at + 1 :])
    if not condition:
        raise UsageError("an expression is missing behind 'if'")
    return " ".join(words[:at]), condition


def _wanted(context: Context, arguments: Namespace, detail: str) -> Wanted:
    from gdbhyp.trace import catching

    if arguments.read and arguments.write:
        raise UsageError("--read and --write exclude each other; without them both are caught")
    items: dict[str, Any] = {
        "what": arguments.what,
        "detail": detail,
        "world": None if arguments.world == "any" else arguments.world or "guest",
        "vmid": None if arguments.vmid is None else small_number(arguments.vmid, "--vmid"),
        "cpu": None if arguments.cpu is None else small_number(arguments.cpu, "--cpu"),
        "write": arguments.write if arguments.read or arguments.write else None,
        "ipa": address_range(context.number, arguments.ipa),
        "pc": address_range(context.number, arguments.pc),
    }
    items.update(_of_detail(arguments.what, detail))
    return catching.check(catching.Wanted(**items))


def _of_detail(what: str, detail: str) -> dict[str, Any]:
    """Return what the word behind the kind means."""
    if what == "ec":
        return {"ec": exception_class(detail, "ec")}
    if what == "vmid":
        return {"vmid": small_number(detail, "vmid")}
    if not detail:
        return {}
    if what == "sysreg":
        return {"register": _register(detail), "detail": _register(detail)}
    if what in ("hvc", "smc"):
        return _call(detail)
    raise UsageError(f"'{detail}' is one word too many behind '{what}'")


def _register(name: str) -> str:
    from gdbhyp.arch.sysregs import encoding_of, name_of

    encoding = encoding_of(name)
    if encoding is None:
        raise UsageError(
            f"'{name}' is no system register or system instruction of AArch64; an unnamed one is S3_0_C1_C0_0"
        )
    known = name_of(*encoding)
    return (known if known is not None and "/" not in known else name).upper()


def _call(detail: str) -> dict[str, Any]:
    if detail.startswith("#"):
        return {"immediate": small_number(detail[1:], "the immediate")}
    try:
        return {"call": int(detail, 0)}
    except ValueError:
        return {"call": detail}


COMMAND = Command(
    name="catch",
    summary="Stop at the next exit of this kind: by class, register, call, IPA range, VMID, or at an entry.",
    run=_run,
    arguments=(
        Argument(
            ("what",),
            "what to stop at: an exception class or interrupt, 'ec N' by number, 'vmid N' any exit of a VM, 'exit' any "
            "exit of a guest, 'enter' an entry of one; without it, the catches that there are",
            "choice",
            choices=_KINDS,
            optional=True,
        ),
        Argument(
            ("detail",),
            "'sysreg' takes a register, 'hvc' and 'smc' a function's number or name or #IMMEDIATE; then 'if "
            "EXPRESSION', as GDB's own breakpoints take it",
            "number",
            optional=True,
            rest=True,
        ),
        Argument(("--ipa",), "only faults at an IPA: ADDRESS, or FIRST-LAST, both included", "text", "RANGE"),
        Argument(("--pc",), "only at a PC: ADDRESS, or FIRST-LAST", "text", "RANGE"),
        Argument(("--read",), "only loads, or only reads of the register"),
        Argument(("--write",), "only stores, or only writes of the register"),
        Argument(("--vmid",), "only of one VM", "text", "N"),
        Argument(("--cpu",), "only on one CPU, counted from 0", "text", "N"),
        Argument(
            ("--world",),
            "whose exits or entries; guest if not said (a host behind stage 2, as pKVM's, is host)",
            "choice",
            choices=_WORLDS,
        ),
        Argument(("--ignore",), "how many to let pass first", "text", "N"),
        Argument(("--temporary",), "delete it at the first stop"),
    ),
    description="""
The CPU stops at EL2's vector (at its ERET for 'enter'), where nothing but the exception has happened yet: hyp-ipa,
hyp-esr and hyp-walk answer there. A line says what was caught. Catches are GDB breakpoints: 'info breakpoints' lists
them, and 'delete', 'disable', 'ignore', 'condition' and 'commands' take their numbers. (GDB shows <PENDING>, for they
have no address of their own: all of them share hidden breakpoints on the vectors, wherever VBAR_EL2 points.)

A condition is evaluated at the vector: $x0 to $x30 and EL1's registers are still those of whoever was interrupted. The
IPA of a permission fault, for which HPFAR_EL2 is not valid, is found by a walk of stage 1, as hyp-ipa does.
""",
)
