"""gdbhyp for Python code that runs inside GDB: ``import gdbhyp.plugin.api as hyp``.

Commands answer with the reports that their JSON is made of, and nothing is printed:

    report = hyp.run("walk --stage2 0x80200000")
    report.output, report.fault, report.steps[0].descriptor

Single values are what the convenience functions return:

    if hyp.world() == "guest" and hyp.register("ESR_EL2", "EC") == 0x24:
        print(hex(hyp.ipa()))

Errors are those of ``gdbhyp.errors``, each with one sentence for a person. Whatever happens, the target and what is
selected in GDB are as before. All of it is for GDB's own thread, as GDB's Python API is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from gdbhyp.analyses import values
from gdbhyp.arch.worlds import World
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import UsageError
from gdbhyp.plugin import last as last_answer
from gdbhyp.plugin.commands import answer, gdb_errors
from gdbhyp.plugin.remote import give_back_all, giving_back, interruptible
from gdbhyp.plugin.target import live_stop

T = TypeVar("T")


def run(line: str) -> Any:
    """Answer a line as it is typed behind ``hyp-``; return the report.

    Rows that a command makes while they are shown are all made, and are a tuple: mind the size of what is asked for.

    :raises GdbhypError: if there is no answer; UsageError if the line is wrong.
    """
    from gdbhyp.commands.parsing import split_words
    from gdbhyp.commands.registry import COMMANDS

    name, _, arguments = line.strip().partition(" ")
    command = next((c for c in COMMANDS if c.name == name and c.in_gdb), None)
    if command is None:
        from gdbhyp.commands.parsing import did_you_mean

        known = [c.name for c in COMMANDS if c.in_gdb]
        raise UsageError(
            f"there is no command '{name}'{did_you_mean(name, known)}: say one of {', '.join(known)}"
        )
    return giving_back(lambda: answer(command, f"hyp-{name}", split_words(arguments)))


def last() -> Any:
    """Return the report of the last command that was typed; its rows may have been shown, and are gone then."""
    return last_answer.last()


@contextlib.contextmanager
def stop() -> Iterator[Stop]:
    """Lend the selected CPU, for the functions of ``gdbhyp.analyses`` and ``gdbhyp.engine``.

    :raises NoTarget: if there is none, or it runs.
    """
    try:
        with gdb_errors(), live_stop() as lent:
            yield lent
    finally:
        interruptible(give_back_all)


def _of_stop(question: Callable[[Stop], T]) -> T:
    with stop() as lent:
        return question(lent)


def pa(va: int) -> int | None:
    """Return the PA that ``va`` has now, None where it faults."""
    return _of_stop(lambda stop: values.pa(stop, va))


def ipa(va: int | None = None) -> int | None:
    """Return the IPA of a guest's ``va``, or that of the last fault if it is certain; None where there is none."""
    return _of_stop(lambda stop: values.faulting_ipa(stop) if va is None else values.ipa(stop, va))


def s2(ipa: int, vm: int | None = None) -> int | None:
    """Return the PA to which stage 2 (that is loaded, or of a VM by its number) maps ``ipa``; None where it faults."""
    return _of_stop(lambda stop: values.stage2(stop, ipa, vm))


def register(name: str, field: str | None = None) -> int:
    """Return a system register, or one of its fields, by the Arm ARM's names."""
    return _of_stop(lambda stop: values.register(stop, name, field))


def esr_ec(el: int = 2) -> int:
    """Return ESR_ELx.EC."""
    return _of_stop(lambda stop: values.exception_class(stop, el))


def world() -> World:
    """Return whose world the selected CPU is in."""
    return _of_stop(values.world)
