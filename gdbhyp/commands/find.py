"""``hyp-find``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gdbhyp.commands import roots
from gdbhyp.commands.declaration import Argument, Command, Context
from gdbhyp.commands.ranges import parse_range
from gdbhyp.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace


def _run(context: Context, arguments: Namespace) -> Any:
    from gdbhyp.analyses import find

    start, size = _range(context, arguments)
    words = f"{arguments.address} = " if arguments.symbol else ""
    asked = ""
    if arguments.ipa or arguments.va or arguments.symbol:
        space = "IPA" if arguments.ipa else "VA"
        asked = f"{words}{space} {start:#x}"
        start = _physical(context, arguments, start, asked)
        asked += f", which is PA {start:#x}"
    return find.find(context.stop(), start, start + size, asked=asked, guests=arguments.guests)


def _range(context: Context, arguments: Namespace) -> tuple[int, int]:
    """Return the first address and the size in bytes that are asked for."""
    text = arguments.address
    if arguments.symbol:
        return context.number(f"&{text}"), _size(context, arguments)
    if ".." not in text:
        return context.number(text), _size(context, arguments)
    if arguments.size is not None:
        raise UsageError("START..END has a size already: leave out --size")
    start, end = parse_range(context, text)
    return start, end - start


def _size(context: Context, arguments: Namespace) -> int:
    size = 1 if arguments.size is None else context.number(arguments.size)
    if size < 1:
        raise UsageError("--size is a number of bytes, at least 1")
    return size


def _physical(context: Context, arguments: Namespace, address: int, asked: str) -> int:
    from gdbhyp.analyses import find, walk
    from gdbhyp.arch.regimes import Regime

    chosen = [flag for flag in ("ipa", "va", "symbol") if getattr(arguments, flag)]
    if len(chosen) > 1:
        raise UsageError(f"--{chosen[0]} and --{chosen[1]} exclude each other")
    stop = context.stop()
    if arguments.ipa:
        return find.resolve(stop, address, Regime.EL10, "2", asked)
    said = roots.regime_option(context, arguments)
    regime = said or walk.regime_of(stop)
    assumed = None if said else walk.assumed_regime(stop)
    if assumed:
        context.warn(assumed)
    return find.resolve(stop, address, regime, "both", asked)


COMMAND = Command(
    name="find",
    summary="Find every translation that reaches a physical address: the host's, the hypervisor's, each VM's.",
    run=_run,
    arguments=(
        Argument(
            ("address",),
            "the physical address, an expression; or START..END, END exclusive",
            "number",
            rest=True,
        ),
        Argument(("--size",), "find what reaches any of so many bytes", "number", metavar="BYTES"),
        Argument(("--ipa",), "the address is an IPA of the VM whose stage 2 this CPU has loaded"),
        Argument(("--va",), "the address is a VA of the current regime, or of --regime"),
        Argument(("--symbol",), "it is the name of a symbol, whose VA is meant"),
        roots.REGIME,
        Argument(("--guests",), "also search stage 1 of guests: that run now, or whose registers are saved"),
    ),
    description="""
Searched are stage 1 of the hypervisor, stage 1 of the host (with its own stage 2, where pKVM gives it one) and
stage 2 of every VM that is known, from the registers of all CPUs. The tables are read once a stop: the first
question takes as long as a map of them all, the next ones milliseconds. A translation table that lies at the
address is said too.
""",
)
