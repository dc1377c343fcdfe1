"""What GDB shows things on: colour, width, and a line of progress."""

from __future__ import annotations

import os

import gdb

from gdbhyp.commands.parameters import COLOUR
from gdbhyp.plugin.parameters import value
from gdbhyp.plugin.pipes import in_pipe_command
from gdbhyp.render.progress import Progress
from gdbhyp.render.style import Style


def style() -> Style:
    """Return how text is to be shown: by 'set hyp colour', or coloured where GDB colours its own, but in no pipe."""
    chosen = value(COLOUR)
    colour = bool(gdb.parameter("style enabled")) and os.isatty(1) if chosen == "auto" else chosen == "on"
    colour = colour and not in_pipe_command()
    return Style(colour=colour, width=int(gdb.parameter("width") or 0))


def progress(from_tty: bool) -> Progress:
    """Return what shows progress: nothing where nobody watches a terminal, or where the TUI has taken it."""
    return Progress(_write_over if from_tty and os.isatty(2) else None)


def _write_over(text: str) -> None:
    if "not active" in gdb.execute("info win", to_string=True):
        gdb.write(text, gdb.STDERR)
        gdb.flush(gdb.STDERR)
