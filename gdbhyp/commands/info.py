"""``gdbhyp info``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gdbhyp.commands.declaration import Command, Context
from gdbhyp.commands.offline import ALSO, DUMP

if TYPE_CHECKING:
    from argparse import Namespace


def _run(context: Context, arguments: Namespace) -> Any:
    from gdbhyp.analyses import info
    from gdbhyp.targets.dump import open_dump

    return info.info(open_dump(arguments.dump, arguments.also or []))


COMMAND = Command(
    name="info",
    summary="Say what a dump holds: its form, memory, CPUs, registers, and what it says about the machine.",
    run=_run,
    arguments=(DUMP, ALSO),
    in_gdb=False,
    in_cli=True,
    description="""
Forms are told by their contents: a snapshot of hyp-snapshot, an ELF core (QEMU's dump-guest-memory, /proc/vmcore,
makedumpfile -E, virsh dump --memory-only), a kdump-compressed dump (zlib; LZO, snappy and zstd with the extra
gdbhyp[kdump]), flattened or not, a LiME file, and a raw image of memory as FILE@ADDRESS, such as the file behind
QEMU's RAM. Registers that are not in it can be given to every other command with --registers or --reg.
""",
)
