"""``set hyp NAME VALUE`` and ``show hyp NAME``, from the declarations; ``save hyp FILE`` when somebody asks."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import gdb

from gdbhyp.commands.parameters import MEMORY, PARAMETERS, Parameter
from gdbhyp.errors import GdbhypError

if TYPE_CHECKING:
    from gdbhyp.commands.register_map import RegisterMap

__all__ = ["LOCAL_MEMORY", "MEMORY", "register", "register_map", "value"]

LOCAL_MEMORY = ("qemu-pread", "ram-file")
"""What can only be had on the machine that QEMU runs on."""

_KINDS = {
    "choice": gdb.PARAM_ENUM,
    "number": gdb.PARAM_ZUINTEGER,
    "text": gdb.PARAM_STRING_NOESCAPE,
    "path": gdb.PARAM_OPTIONAL_FILENAME,
}


class _Parameter(gdb.Parameter):
    """A Parameter as GDB knows it."""

    def __init__(self, declared: Parameter) -> None:
        self._declared = declared
        # GDB takes the texts from these attributes while it registers the parameter.
        self.__doc__ = declared.description.strip("\n")
        self.set_doc = f"Set {declared.summary}"
        self.show_doc = f"Show {declared.summary}"
        values = [declared.values] if declared.values else []
        super().__init__(f"hyp {declared.name}", gdb.COMMAND_DATA, _KINDS[declared.kind], *values)
        initial = declared.initial
        self._good: object = int(initial) if declared.kind == "number" else initial
        self.value = self._good

    def get_set_string(self) -> str:
        """Take the value that was typed, if it is good; GDB asks this after it has taken it itself."""
        try:
            self._declared.check(str(self.value))
        except GdbhypError as error:
            from gdbhyp.render.style import escape

            self.value = self._good
            raise gdb.GdbError(escape(str(error))) from None
        self._good = self.value
        return ""

    def get_show_string(self, value: str) -> str:
        return self._declared.shown.format(value)


class _SetPrefix(gdb.Command):
    """Set what gdbhyp lets a person choose."""

    def __init__(self) -> None:
        super().__init__("set hyp", gdb.COMMAND_DATA, gdb.COMPLETE_NONE, True)

    def invoke(self, argument: str, from_tty: bool) -> None:
        if argument:
            raise _unknown(argument)
        gdb.execute("help set hyp")


class _ShowPrefix(gdb.Command):
    """Show what gdbhyp lets a person choose."""

    def __init__(self) -> None:
        super().__init__("show hyp", gdb.COMMAND_DATA, gdb.COMPLETE_NONE, True)

    def invoke(self, argument: str, from_tty: bool) -> None:
        if argument:
            raise _unknown(argument)
        for declared in PARAMETERS:
            gdb.execute(f"show hyp {declared.name}")


def _unknown(argument: str) -> gdb.GdbError:
    from gdbhyp.commands.parsing import did_you_mean
    from gdbhyp.render.style import escape

    guess = did_you_mean(argument.split()[0], [p.name for p in PARAMETERS])
    return gdb.GdbError(f"gdbhyp has no parameter '{escape(argument)}'{guess}: 'help set hyp' lists them")


class _Save(gdb.Command):
    """Save what was chosen with 'set hyp' as a script of commands for GDB.

    Usage: save hyp FILE
    'source FILE' sets it again, for example from a .gdbinit, behind the line that loads gdbhyp."""

    def __init__(self) -> None:
        self.__doc__ = "\n".join(line.strip() for line in (self.__doc__ or "").splitlines())
        super().__init__("save hyp", gdb.COMMAND_FILES, gdb.COMPLETE_FILENAME)

    def invoke(self, argument: str, from_tty: bool) -> None:
        from gdbhyp.files import written_whole

        if not argument:
            raise gdb.GdbError("save hyp: say the file to write")
        chosen = [(p.name, value(p)) for p in PARAMETERS if value(p) != p.initial]
        try:
            with written_whole(argument) as file:
                file.write("".join(f"set hyp {name} {text}\n" for name, text in chosen).encode())
        except GdbhypError as error:
            raise gdb.GdbError(str(error)) from None


_registered: list[object] = []


def register() -> None:
    """Register the prefixes and every parameter with GDB."""
    _registered.extend((_SetPrefix(), _ShowPrefix(), *map(_Parameter, PARAMETERS), _Save()))


def value(declared: Parameter) -> str:
    """Return what is set for a parameter; what holds initially where it is not registered."""
    with contextlib.suppress(RuntimeError):
        found = gdb.parameter(f"hyp {declared.name}")
        return "" if found is None else str(found)
    return declared.initial


_read_map: tuple[str, float, RegisterMap] | None = None


def register_map() -> RegisterMap:
    """Return how 'set hyp registers' and 'set hyp features' say that registers are had; files are read once.

    :raises BadInput: if the file has changed, and is none any more.
    """
    import os
    from dataclasses import replace

    from gdbhyp.commands.parameters import FEATURES, REGISTERS, register_values
    from gdbhyp.commands.register_map import RegisterMap, read

    global _read_map
    path = value(REGISTERS)
    found = RegisterMap()
    if path:
        changed = os.stat(path).st_mtime if os.path.exists(path) else 0.0
        if _read_map is None or _read_map[:2] != (path, changed):
            _read_map = (path, changed, read(path))
        found = _read_map[2]
    given = register_values(value(FEATURES))
    return replace(found, values={**found.values, **given}) if given else found
