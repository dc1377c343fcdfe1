"""``hyp-diff`` and ``gdbhyp diff``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gdbhyp.commands.declaration import Argument, Command, Context
from gdbhyp.commands.offline import DUMP, OPTIONS, open_stop
from gdbhyp.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from gdbhyp.analyses.picture import Kept, Picture

_VM = Argument(
    ("--vm",), "compare stage 2 of two VMs of one stop: --vm 1 --vm 2", "vm", metavar="N", repeated=True
)
_ALL = Argument(("-v", "--verbose"), "show every change, not only the first ones of each tree")


def _run(context: Context, arguments: Namespace) -> Any:
    from gdbhyp.analyses import diff

    if arguments.vm:
        if arguments.before is not None:
            raise UsageError("--vm compares two VMs of this stop: leave out the names")
        report = _vms(context, context.stop(), arguments)
    else:
        before = _kept(context, arguments.before)
        now = arguments.after in (None, "now")
        after = _now(context, before) if now else _kept(context, arguments.after).picture
        report = diff.diff(before.picture, after)
    return replace(report, verbose=arguments.verbose)


def _kept(context: Context, name: str | None) -> Kept:
    names = context.kept()
    if name is None:
        raise UsageError("say which map to compare: keep one with 'hyp-map --save NAME' first")
    if name not in names:
        known = ", ".join(names) or "none"
        raise UsageError(f"no map was kept as '{name}' ('hyp-map --save {name}' does); there are: {known}")
    found: Kept = names[name]
    return found


def _now(context: Context, kept: Kept) -> Picture:
    from gdbhyp.analyses import picture

    return picture.drawn_again(context.stop(), kept)


def _vms(context: Context, stop: Any, arguments: Namespace) -> Any:
    from gdbhyp.analyses import diff

    if len(arguments.vm) != 2:
        raise UsageError("--vm is given twice: for the one VM and for the other")
    return diff.diff_vms(stop, *(context.number(text) for text in arguments.vm))


def _run_offline(context: Context, arguments: Namespace) -> Any:
    from gdbhyp.analyses import diff

    if arguments.vm:
        if arguments.after is not None:
            raise UsageError("--vm compares two VMs of one dump: name one dump")
        report = _vms(context, open_stop(context, arguments), arguments)
    elif arguments.after is None:
        raise UsageError("say what to compare with: a second dump, or two VMs with --vm")
    else:
        report = diff.diff(
            *(_picture(context, arguments, name) for name in (arguments.dump, arguments.after))
        )
    return replace(report, verbose=arguments.verbose)


def _picture(context: Context, arguments: Namespace, name: str) -> Picture:
    """Return what is in a dump, or in a file with a map."""
    from argparse import Namespace

    from gdbhyp.analyses import picture

    if picture.is_map(name):
        return picture.read_map(name)
    return picture.picture_of(open_stop(context, Namespace(**{**vars(arguments), "dump": name})))


_DESCRIPTION = """
Ranges that were added, removed, moved to another output address, or changed where they are (rights, memory
type, page size, ...) are merged and counted; registers are compared field by field, but for counters.
"""

COMMAND = Command(
    name="diff",
    summary="Show what changed between two stops, or differs between two VMs: ranges, and registers by field.",
    run=_run,
    arguments=(
        Argument(("before",), "a map that 'hyp-map --save NAME' kept", "text", optional=True),
        Argument(
            ("after",),
            "another one; 'now', which it is if not said, asks the same again",
            "text",
            optional=True,
        ),
        _VM,
        _ALL,
    ),
    description=_DESCRIPTION
    + """
A map is kept with the system registers of its CPU, until GDB ends. 'now' is the same question, asked of the CPU
that is selected.
""",
)

OFFLINE = Command(
    name="diff",
    summary="Show what differs between two dumps, two maps, or two VMs: ranges, and registers by field.",
    run=_run_offline,
    arguments=(
        replace(DUMP, help="a dump, or a map that 'gdbhyp map --json --output FILE' wrote"),
        Argument(("after",), "another one, to compare it with", "text", optional=True),
        *OPTIONS,
        _VM,
        _ALL,
    ),
    description=_DESCRIPTION
    + """
Of a dump every tree of tables that is known is compared with the same one of the other dump: a VM's by its VMID,
a process's by the CPU that runs it. What is given with --registers and --reg holds for both.
""",
    in_gdb=False,
    in_cli=True,
)
