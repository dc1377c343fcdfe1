"""What a snapshot holds, in a few lines."""

from __future__ import annotations

from collections.abc import Iterator

from gdbhyp.analyses.snapshot import SnapshotReport
from gdbhyp.render.sizes import size_text
from gdbhyp.render.style import Style, escape

_CONTENTS = {
    "all": "all of memory",
    "tables": "what translation needs",
    "ranges": "the ranges asked for",
}


def render(report: SnapshotReport, style: Style) -> Iterator[str]:
    """Yield the lines."""
    yield f"wrote {escape(report.file)}"
    registers = " and ".join(str(count) for count in report.registers)
    memory = f"{_CONTENTS[report.contents]}, {size_text(report.memory)} of {size_text(report.ram)}"
    rows = [
        ["memory", memory],
        ["CPUs", f"{report.cpus}, with {registers} registers"],
        ["VMs", str(report.vms)],
        ["symbols", f"{report.symbols}, of the addresses in registers"],
    ]
    yield from style.table([[style.paint("name", name), text] for name, text in rows]).splitlines()
    for gap in report.unread:
        yield f"PA {gap.start:#x} to {gap.end:#x} is not in it: {escape(gap.reason)}"
