"""``hyp-snapshot``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gdbhyp.commands.declaration import Argument, Command, Context
from gdbhyp.commands.ranges import parse_range
from gdbhyp.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace


def _run(context: Context, arguments: Namespace) -> Any:
    from pathlib import Path

    from gdbhyp.analyses import snapshot

    if arguments.tables_only and arguments.range:
        raise UsageError("--tables-only and --range exclude each other")
    path = Path(arguments.file).expanduser()
    if path.is_dir():
        raise UsageError(f"'{path}' is a folder: say the name of a file")
    return snapshot.take(
        context.stop(),
        path,
        context.progress,
        tables_only=arguments.tables_only,
        ranges=[parse_range(context, text) for text in arguments.range or []],
    )


COMMAND = Command(
    name="snapshot",
    summary="Write the stopped machine to one file, which answers every question as the machine does now.",
    run=_run,
    arguments=(
        Argument(("file",), "the file to write; one that exists is replaced", "path"),
        Argument(
            ("--tables-only",),
            "of memory, only what translations and the other questions need: megabytes instead of gigabytes",
        ),
        Argument(
            ("--range",),
            "only physical addresses START-END (END exclusive) or START+SIZE; may be given again",
            "text",
            metavar="RANGE",
            repeated=True,
        ),
    ),
    description="""
The file is an ELF core that GDB, readelf and drgn open, with a note of every system register of every CPU,
the symbols at the addresses in them, and where memory is; 'gdbhyp info FILE' shows it. It appears under its
name when all of it is written, and not before. Pages of zeros take no room.

With --tables-only, what the tables map is not there, and reading it is refused.
""",
)
