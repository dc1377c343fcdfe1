"""``hyp-selftest``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gdbhyp.commands.declaration import Argument, Command, Context
from gdbhyp.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

_SAMPLES = 200
_MOST = 100_000


def _run(context: Context, arguments: Namespace) -> Any:
    import secrets

    from gdbhyp.analyses import selftest

    samples = _SAMPLES if arguments.samples is None else context.number(arguments.samples)
    if not 1 <= samples <= _MOST:
        raise UsageError(f"--samples is how many addresses to ask about, from 1 to {_MOST}")
    seed = secrets.randbelow(1 << 32) if arguments.seed is None else context.number(arguments.seed)
    name, oracle = context.oracle()

    def progress(done: int) -> None:
        context.progress("comparing translations", done, samples)

    return selftest.selftest(context.stop(), oracle, name, samples, seed, progress)


COMMAND = Command(
    name="selftest",
    summary="Compare translations with the target's own on this very machine, and say whether they agree.",
    run=_run,
    arguments=(
        Argument(("--samples",), f"how many addresses to ask about; {_SAMPLES} if not said", "number", "N"),
        Argument(("--seed",), "draw the addresses of an earlier run again", "number", "N"),
    ),
    description="""
Addresses of the current regime (inside, at the edges and beside what its tables map, what registers point to, and
random ones) are translated by gdbhyp and by QEMU's 'monitor gva2gpa', as a read by the CPU as it stands. Both read the
same tables and share no code. The tables are only read, nothing is executed, and the CPU that QEMU's monitor had
selected is selected again. For the AT instructions themselves there is no such way: one would have to be executed.
""",
)
