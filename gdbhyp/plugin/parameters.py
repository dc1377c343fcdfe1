"""``set hyp NAME VALUE`` and ``show hyp NAME``: what a person may choose, each declared once."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import gdb


@dataclass(frozen=True)
class Choice:
    """A parameter with one of ``values``, of which the first holds until another is set.

    ``summary`` completes "Set …" and "Show …", as a help's first line does; ``shown`` is what ``show`` prints, with the
    value for ``{}``; ``description`` says what the values mean.
    """

    name: str
    values: tuple[str, ...]
    summary: str
    shown: str
    description: str


MEMORY = Choice(
    name="memory",
    values=("auto", "stub", "qemu-pread", "ram-file"),
    summary="how physical memory is read.",
    shown="Physical memory is read by '{}'.",
    description="""
  auto        the fastest of these that can be had
  stub        the stub's physical memory mode, which also works from afar
  qemu-pread  the memory of a QEMU process on this machine
  ram-file    the file of a memory-backend-file with share=on
'hyp-status -v' says which of them is in use, and why not another one.""",
)

LOCAL_MEMORY = ("qemu-pread", "ram-file")
"""What can only be had on the machine that QEMU runs on."""

PARAMETERS = (MEMORY,)

_UNKNOWN = "gdbhyp has no parameter '{}': 'help set hyp' lists them"


class _Parameter(gdb.Parameter):
    """A Choice as GDB knows it."""

    def __init__(self, choice: Choice) -> None:
        self._choice = choice
        # GDB takes the texts from these attributes while it registers the parameter.
        self.__doc__ = choice.description.strip("\n")
        self.set_doc = f"Set {choice.summary}"
        self.show_doc = f"Show {choice.summary}"
        super().__init__(f"hyp {choice.name}", gdb.COMMAND_DATA, gdb.PARAM_ENUM, choice.values)
        self.value = choice.values[0]

    def get_show_string(self, value: str) -> str:
        return self._choice.shown.format(value)


class _SetPrefix(gdb.Command):
    """Set what gdbhyp lets a person choose."""

    def __init__(self) -> None:
        super().__init__("set hyp", gdb.COMMAND_DATA, gdb.COMPLETE_NONE, True)

    def invoke(self, argument: str, from_tty: bool) -> None:
        if argument:
            raise gdb.GdbError(_UNKNOWN.format(argument))
        gdb.execute("help set hyp")


class _ShowPrefix(gdb.Command):
    """Show what gdbhyp lets a person choose."""

    def __init__(self) -> None:
        super().__init__("show hyp", gdb.COMMAND_DATA, gdb.COMPLETE_NONE, True)

    def invoke(self, argument: str, from_tty: bool) -> None:
        if argument:
            raise gdb.GdbError(_UNKNOWN.format(argument))
        for choice in PARAMETERS:
            gdb.execute(f"show hyp {choice.name}")


_registered: list[object] = []


def register() -> None:
    """Register the prefixes and every parameter with GDB."""
    _registered.extend((_SetPrefix(), _ShowPrefix(), *map(_Parameter, PARAMETERS)))


def value(choice: Choice) -> str:
    """Return what is set for ``choice``; its default where the parameter is not registered."""
    with contextlib.suppress(RuntimeError):
        return str(gdb.parameter(f"hyp {choice.name}"))
    return choice.values[0]
