"""``hyp``: what there is, and ``hyp NAME`` for those who type a space; it answers a wrong name with the nearest."""

from __future__ import annotations

import gdb

from gdbhyp.commands.declaration import Command


class Hyp(gdb.Command):
    """``hyp [NAME ARGUMENTS]``."""

    def __init__(self, commands: dict[str, Command]) -> None:
        self._commands = commands
        listed = "\n".join(f"  {'hyp-' + name:14} {c.summary}" for name, c in commands.items())
        self.__doc__ = (
            "gdbhyp makes GDB understand AArch64 hypervisors.\n\n"
            "Usage: hyp NAME [ARGUMENTS], or hyp-NAME [ARGUMENTS]\n\n"
            f"{listed}\n\n"
            "'help hyp-NAME' shows a command's arguments and examples; 'help set hyp' what can be chosen.\n\n"
            "In expressions: $hyp_pa(VA), $hyp_ipa([VA]), $hyp_s2(IPA[, VM]), $hyp_reg(NAME[, FIELD]), $hyp_esr_ec(),\n"
            "$hyp_world(), $hyp_last(KEY); 'help function hyp_pa' says more."
        )
        super().__init__("hyp", gdb.COMMAND_DATA)

    def invoke(self, argument: str, from_tty: bool) -> None:
        self.dont_repeat()
        name, _, rest = argument.strip().partition(" ")
        if not name:
            gdb.write(f"{self.__doc__}\n")
        elif name in self._commands:
            gdb.execute(f"hyp-{name} {rest}", from_tty)
        else:
            from gdbhyp.commands.parsing import did_you_mean
            from gdbhyp.render.style import escape

            guess = did_you_mean(name, self._commands)
            raise gdb.GdbError(f"hyp: there is no command '{escape(name)}'{guess}; 'help hyp' lists them")

    def complete(self, text: str, word: str | None) -> list[str] | int:
        from gdbhyp.plugin.completion import complete

        name, space, rest = text.lstrip().partition(" ")
        if space and name in self._commands:
            return complete(self._commands[name], rest, word)
        names = Command(
            "hyp", "", lambda context, arguments: None, subcommands=tuple(self._commands.values())
        )
        return complete(names, text, word)
