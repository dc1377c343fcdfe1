"""Show a report as the options that every command takes ask for: in which form, and on the screen or in a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

from gdbhyp.commands.declaration import Presentation
from gdbhyp.render import output
from gdbhyp.render.progress import Progress
from gdbhyp.render.style import Style


@dataclass(frozen=True)
class Screen:
    """Where a front end shows things: answers by ``write``, what does not belong to them by ``warn``.

    ``binary`` is what a report of bytes is written to.
    """

    write: Callable[[str], object]
    warn: Callable[[str], None]
    style: Style = field(default_factory=Style)
    progress: Progress = field(default_factory=lambda: Progress(None))
    binary: IO[bytes] | None = None


def present(report: Any, how: Presentation, screen: Screen) -> None:
    """Show ``report``, making what is still to be made of it.

    :raises BadInput: if the file that it goes to cannot be written.
    :raises UsageError: if it does not have the form that is asked for.
    """
    if how.quiet:
        _make(report, screen)
    elif how.output is not None:
        from gdbhyp.files import written_whole

        with written_whole(how.output) as file:
            _write(report, how.form, _counting(file, screen.progress), file, Style(), screen)
    else:
        _write(report, how.form, _after_progress(screen), screen.binary, screen.style, screen)
    screen.progress.clear()


def _write(
    report: Any,
    form: str,
    write: Callable[[str], object],
    binary: IO[bytes] | None,
    style: Style,
    screen: Screen,
) -> None:
    def warn(sentence: str) -> None:
        screen.progress.clear()
        screen.warn(sentence)

    if getattr(report, "binary", False):
        from gdbhyp.render import stream

        assert binary is not None, "a report of bytes needs a place for bytes"
        stream.write(report, binary, form=form, style=style)
    else:
        output.write(report, write, form=form, style=style, warn=warn)


def _make(report: Any, screen: Screen) -> None:
    """Make all of a report that is made while it is read, and say what is missing."""
    for name in ("rows", "batches"):
        for done, _ in enumerate(getattr(report, name, ()), 1):
            screen.progress(name, done)
    screen.progress.clear()
    for problem in getattr(report, "problems", ()) if getattr(report, "json_lines", False) else ():
        screen.warn(problem)


def _counting(file: IO[bytes], progress: Progress) -> Callable[[str], object]:
    lines = 0

    def write(text: str) -> None:
        nonlocal lines
        file.write(text.encode("utf-8", "backslashreplace"))
        lines += 1
        progress("lines written", lines)

    return write


def _after_progress(screen: Screen) -> Callable[[str], object]:
    def write(text: str) -> None:
        screen.progress.clear()
        screen.write(text)

    return write
