"""Which symbol files GDB was made to forget."""

from __future__ import annotations

from collections.abc import Iterator

from gdbhyp.analyses.symbols import RemovedSymbols
from gdbhyp.render.style import Style


def render(report: RemovedSymbols, style: Style) -> Iterator[str]:
    """Yield the one line."""
    names = ", ".join(report.removed)
    yield f"removed the symbols of {names}" if names else "there were no symbols to remove"
