"""Convenience functions, for expressions and breakpoint conditions.

They ask the selected CPU, which in a condition is the one that came to the breakpoint, and select nothing.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

import gdb

from gdbhyp.errors import GdbhypError, UsageError

if TYPE_CHECKING:
    from gdbhyp.engine.stop import Stop


class Function(gdb.Function):
    """A function that says what it cannot answer in one sentence."""

    def invoke(self, *arguments: gdb.Value) -> Any:
        from gdbhyp.plugin.last import to_gdb

        try:
            found = self.answer(*arguments)
            return void() if found is None else to_gdb(found)
        except GdbhypError as error:
            from gdbhyp.render.style import escape

            raise gdb.GdbError(f"${self.name}: {escape(str(error))}") from None

    name = ""

    def __init__(self) -> None:
        # GDB takes the help from here, and shows its indentation.
        self.__doc__ = "\n".join(line.strip() for line in (self.__doc__ or "").splitlines())
        super().__init__(self.name)

    def answer(self, *arguments: gdb.Value) -> Any:
        """Return the value of the function."""
        raise NotImplementedError


class Last(Function):
    """Return a field of the last gdbhyp command's answer.

    Usage: $hyp_last("PATH")
    PATH names a key of the answer as its JSON has it: $hyp_last("output"), $hyp_last("fault.kind"),
    $hyp_last("steps[0].table"), $hyp_last("rows.count"). What is not known is void. The keys that hold a number or a
    text are also in $hyp_last_KEY."""

    name = "hyp_last"

    def answer(self, *arguments: gdb.Value) -> Any:
        from gdbhyp.plugin import last

        return last.field(_text(arguments[0]) if arguments else "")


class _OfStop(Function):
    """A function of the selected CPU."""

    least, most = 0, 0

    def answer(self, *arguments: gdb.Value) -> Any:
        if not self.least <= len(arguments) <= self.most:
            raise UsageError(f"it takes other arguments: 'help function {self.name}' says which")
        from gdbhyp.plugin.commands import gdb_errors
        from gdbhyp.plugin.remote import giving_back
        from gdbhyp.plugin.target import live_stop

        def ask() -> Any:
            with gdb_errors(), live_stop() as stop:
                return self.ask(stop, *arguments)

        return giving_back(ask)

    def ask(self, stop: Stop, *arguments: gdb.Value) -> Any:
        """Return the answer for a CPU."""
        raise NotImplementedError


class Pa(_OfStop):
    """Return the physical address that a virtual address has now.

    Usage: $hyp_pa(VA)
    The current regime translates, through stage 2 where that is on. Where it would fault, the value is void:
    $_isvoid($hyp_pa($x0))."""

    name, least, most = "hyp_pa", 1, 1

    def ask(self, stop: Stop, *arguments: gdb.Value) -> Any:
        return _values().pa(stop, _number(arguments[0]))


class Ipa(_OfStop):
    """Return the IPA of a guest's virtual address, or of the last fault.

    Usage: $hyp_ipa([VA])
    With VA, stage 1 of the EL1&0 regime translates. Without, it is the faulting IPA as hyp-ipa finds it, where that is
    certain. Where there is none, the value is void."""

    name, least, most = "hyp_ipa", 0, 1

    def ask(self, stop: Stop, *arguments: gdb.Value) -> Any:
        values = _values()
        return values.ipa(stop, _number(arguments[0])) if arguments else values.faulting_ipa(stop)


class Stage2(_OfStop):
    """Return the physical address to which stage 2 maps an IPA.

    Usage: $hyp_s2(IPA[, VM])
    The stage 2 is that of VTTBR_EL2, also while it is not in force, or that of a VM by its number in hyp-vms. Where it
    would fault, the value is void."""

    name, least, most = "hyp_s2", 1, 2

    def ask(self, stop: Stop, *arguments: gdb.Value) -> Any:
        vm = _number(arguments[1]) if len(arguments) > 1 else None
        return _values().stage2(stop, _number(arguments[0]), vm)


class Register(_OfStop):
    """Return a system register, or one of its fields.

    Usage: $hyp_reg("REGISTER"[, "FIELD"])
    Names are those of the Arm ARM, whatever the stub calls them: $hyp_reg("HCR_EL2", "TGE"), $hyp_reg("SCTLR_EL1")."""

    name, least, most = "hyp_reg", 1, 2

    def ask(self, stop: Stop, *arguments: gdb.Value) -> Any:
        return _values().register(stop, *(_text(argument) for argument in arguments))


class ExceptionClass(_OfStop):
    """Return the exception class of a syndrome, ESR_ELx.EC.

    Usage: $hyp_esr_ec([EL])
    EL is 2 if not said. It is the syndrome of the last exception that was taken there: 0x24 is a guest's Data Abort,
    0x16 its HVC."""

    name, least, most = "hyp_esr_ec", 0, 1

    def ask(self, stop: Stop, *arguments: gdb.Value) -> Any:
        el = _number(arguments[0]) if arguments else 2
        if el not in (1, 2, 3):
            raise UsageError(f"EL{el} has no syndrome register: say 1, 2 or 3")
        return _values().exception_class(stop, el)


class World(_OfStop):
    """Return whose world the CPU is in, or whether it is in a given one.

    Usage: $hyp_world(["WORLD"])
    Without an argument the value is "host", "hypervisor", "guest" or "unknown"; with one of these it is 1 or 0, as a
    condition needs it: break do_exit if $hyp_world("guest"). GDB itself cannot compare text with == unless the target
    has a malloc; $_streq($hyp_world(), "guest") also works."""

    name, least, most = "hyp_world", 0, 1

    def ask(self, stop: Stop, *arguments: gdb.Value) -> Any:
        world = _values().world(stop)
        if not arguments:
            return world
        asked = _text(arguments[0])
        if asked not in _WORLDS:
            raise UsageError(f"there is no world '{asked}': it is one of {', '.join(_WORLDS)}")
        return world == asked


_WORLDS = ("host", "hypervisor", "guest", "unknown")


def _values() -> ModuleType:
    from gdbhyp.analyses import values

    return values


def _number(value: gdb.Value) -> int:
    return int(value) & 0xFFFF_FFFF_FFFF_FFFF


def _text(value: gdb.Value) -> str:
    try:
        return str(value.string())
    except gdb.error:
        raise UsageError("it takes a text in quotes") from None


def void() -> gdb.Value:
    """Return the value of a convenience variable that was never set."""
    return gdb.parse_and_eval("$_gdbhyp_nothing")


_FUNCTIONS: tuple[type[Function], ...] = (Last, Pa, Ipa, Stage2, Register, ExceptionClass, World)
_registered: list[Function] = []


def register() -> None:
    """Register every function with GDB."""
    _registered.extend(function() for function in _FUNCTIONS)
