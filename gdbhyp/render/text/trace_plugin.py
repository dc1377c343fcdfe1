"""Where the TCG plugin is, and how to start QEMU with it."""

from __future__ import annotations

from collections.abc import Iterator

from gdbhyp.render.style import Style, escape
from gdbhyp.trace.tcg_build import PluginReport


def render(report: PluginReport, style: Style) -> Iterator[str]:
    """Yield what to do next."""
    if report.path is None:
        yield "the TCG plugin is not built yet: 'gdbhyp trace plugin --build' does it"
        yield f"  source: {escape(report.source)}"
        return
    yield f"the TCG plugin is {escape(report.path)}"
    yield f"  start QEMU (9.1 or later) with: {escape(str(report.option))}"
    yield "  then 'hyp-trace start' finds it; options to append: ,ring=FILE,on=on (record to a file), ,records=N"
