"""``hyp-map``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gdbhyp.commands import roots
from gdbhyp.commands.declaration import Argument, Command, Context
from gdbhyp.commands.ranges import parse_range
from gdbhyp.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from gdbhyp.analyses.map import Filter


def _run(context: Context, arguments: Namespace) -> Any:
    from gdbhyp.analyses import map

    stages = roots.stages_option(arguments, default="2" if arguments.vm and not arguments.regime else None)
    context = roots.vm_option(context, arguments, vcpu_matters=stages != "2")
    given = roots.roots_option(context, arguments)
    start, end = parse_range(context, arguments.range) if arguments.range else (None, None)
    question = map.Question(
        roots.regime_option(context, arguments),
        stages,
        roots.host_roots(context, arguments, given) or given,
        start,
        end,
        _filter(context, arguments),
        _most_tables(context, arguments),
    )
    if arguments.bars and arguments.save is not None:
        raise UsageError("--bars and --save exclude each other")
    if arguments.bars:
        from gdbhyp.analyses import drawing

        return drawing.bars(map.map_tables(context.stop(), question))
    if arguments.save is None:
        return map.map_tables(context.stop(), question)
    from gdbhyp.analyses import picture

    names = context.kept()
    names[arguments.save], report = picture.keep(context.stop(), question, arguments.save)
    return report


def _most_tables(context: Context, arguments: Namespace) -> int:
    from gdbhyp.commands.parameters import MAX_TABLES

    if arguments.max_tables is not None:
        return context.number(arguments.max_tables)
    return int(context.setting(MAX_TABLES))


def _filter(context: Context, arguments: Namespace) -> Filter:
    from gdbhyp.analyses.map import Filter

    rights = arguments.rights or ""
    if set(rights) - set("rwx"):
        raise UsageError(f"'{rights}' are no rights: use letters of r, w and x")
    smallest = 0 if arguments.min_size is None else context.number(arguments.min_size)
    return Filter(rights, arguments.memory, smallest)


COMMAND = Command(
    name="map",
    summary="Show what a translation table maps, as merged ranges with permissions and memory types.",
    run=_run,
    arguments=(
        Argument(("--stage1",), "stage 1 alone: in the EL1&0 regime, VA to IPA"),
        Argument(("--stage2",), "stage 2: IPA to PA, also while HCR_EL2.VM is 0"),
        Argument(("--both",), "both stages of the EL1&0 regime together: VA to PA"),
        roots.VM,
        roots.REGIME,
        *roots.ROOTS,
        Argument(
            ("--range",),
            "only input addresses START-END (END exclusive) or START+SIZE",
            "text",
            metavar="RANGE",
        ),
        Argument(
            ("--rights",),
            "only ranges with all these rights: letters of rwx, such as wx",
            "text",
            metavar="RWX",
        ),
        Argument(("--memory",), "only this kind of memory", "choice", choices=("normal", "device")),
        Argument(("--min-size",), "only ranges of at least this many bytes", "number", metavar="BYTES"),
        Argument(
            ("--max-tables",),
            "read at most this many tables; what 'set hyp max-tables' says, 4,194,304, if not said",
            "number",
            metavar="N",
        ),
        Argument(("--bars",), "draw the map to scale instead: a bar for each stretch of addresses"),
        Argument(
            ("--save",),
            "print nothing, and keep the map under this name for hyp-diff",
            "text",
            metavar="NAME",
        ),
    ),
    description="""
Without a choice, the table of the current regime is shown, in the EL1&0 regime with stage 2 on both stages
together; with --vm it is that VM's stage 2. Neighbouring entries with the same attributes are one row; ends are
exclusive. Rights are those of the privileged level, then those of EL0 behind a slash. A table that cannot be read, a
reserved descriptor, or Ctrl-C loses nothing else: what is missing is said at the end.
""",
)
