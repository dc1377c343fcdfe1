"""Who reaches a physical address, a row a mapping."""

from __future__ import annotations

from collections.abc import Iterator

from gdbhyp.analyses.find import FindReport, Mapping, TableUse
from gdbhyp.render.sizes import size_text
from gdbhyp.render.style import Style


def render(report: FindReport, style: Style) -> Iterator[str]:
    """Yield the mappings, the tables that lie there, and what was searched."""
    where = {True: "memory", False: "no memory of the machine", None: ""}[report.memory]
    yield style.paint("heading", report.asked) + (f" ({where})" if where else "")
    single = report.end - report.start == 1
    if report.mappings:
        headers = ("mapped by", "from", *(() if single else ("size", "PA")), "pages", "rights", "memory", "")
        yield from style.table([_row(m, single, style) for m in report.mappings], headers).splitlines()
    else:
        yield "nothing maps it"
    yield from (style.paint("note", _table_line(table)) for table in report.tables)
    yield f"searched: {', '.join(report.trees) or 'nothing'}"
    yield from (style.paint("bad", problem) for problem in report.problems)


def _row(mapping: Mapping, single: bool, style: Style) -> list[str]:
    extent = [] if single else [size_text(mapping.end - mapping.start), f"{mapping.pa:#x}"]
    return [
        style.paint("name", mapping.tree),
        f"{mapping.input_space} {style.paint('address', f'{mapping.start:#x}')}",
        *extent,
        size_text(mapping.page_size) if mapping.page_size else "",
        style.paint("bad", mapping.rights) if mapping.write and mapping.exec != "never" else mapping.rights,
        f"{mapping.memory}, {mapping.shareability}",
        ", ".join(_remarks(mapping)),
    ]


def _remarks(mapping: Mapping) -> Iterator[str]:
    if not mapping.page_size:
        yield "translation is off"
    if mapping.contiguous:
        yield "contiguous"
    if not mapping.access_flag:
        yield "access flag 0"
    if mapping.constant:
        yield f"{size_text(mapping.end - mapping.start)} to this one page"
    if mapping.space not in ("Non-secure", ""):
        yield mapping.space


def _table_line(table: TableUse) -> str:
    return (
        f"a level-{table.level} table of {table.tree} is at {table.address_space} {table.address:#x} "
        f"({size_text(table.size)}, for addresses from {table.start:#x} on)"
    )
