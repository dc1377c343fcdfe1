"""``gdbhyp annotate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gdbhyp.commands.declaration import Argument, Command, Context

if TYPE_CHECKING:
    from argparse import Namespace


def _run(context: Context, arguments: Namespace) -> Any:
    from gdbhyp.analyses import annotate

    return annotate.annotate(arguments.file or "-", only=arguments.only)


COMMAND = Command(
    name="annotate",
    summary="Copy a log and decode every exception syndrome in it, in place.",
    run=_run,
    in_gdb=False,
    in_cli=True,
    arguments=(
        Argument(("--only",), "print only the lines that belong to a syndrome, and what they say"),
        Argument(
            ("file",), "the log; standard input if not said, or -", "path", metavar="FILE", optional=True
        ),
    ),
    description="""
Knows the kernel log of Linux (Mem abort info, Internal error, SError), KVM's HYP panic, Xen's register dump,
TF-A's crash dump, Hafnium, QEMU's '-d int', and names such as ESR_EL2: 0x96000045 of other programs, behind any
prefix. The lines of the log pass through byte for byte as they come; below a syndrome, or below the last line that
prints registers for it, stand lines that begin with '    => ', so that grep -v '^    => ' gives the log again.
A terminal is shown control characters of the log as escapes.

A syndrome is decoded with the registers that belong to it. What the architecture does not define for the exception,
such as HPFAR_EL2 after a BRK, is said to be stale and not used. Linux does not say whose ESR it prints: it is read as
ESR_EL1, also where a VHE host runs at EL2. The ESR of an interrupt in QEMU's log is an older exception's, and is not
decoded.

With --json, each syndrome is an object in a line: where it is ('line' from 1, 'offset' in bytes, 'text'), 'source',
the registers printed with it, 'notes', and 'syndrome' as 'gdbhyp esr --json' has it.
""",
)
