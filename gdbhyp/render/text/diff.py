"""A comparison: the changes of each tree as a table, then the registers by field."""

from __future__ import annotations

from collections.abc import Iterator

from gdbhyp.analyses.changes import Change, Side
from gdbhyp.analyses.diff import DiffReport, FieldChange, RegisterChange, TreeDiff
from gdbhyp.render.sizes import size_text
from gdbhyp.render.style import Style

_SHOWN = 40
_SIGNS = {"added": "+", "removed": "-", "moved": ">", "changed": "~"}
_ROLES = {"added": "good", "removed": "bad", "moved": "note", "changed": "note"}


def render(report: DiffReport, style: Style) -> Iterator[str]:
    """Yield the comparison."""
    yield style.paint("heading", f"{report.before} and {report.after}")
    for tree in report.trees:
        yield from _tree(tree, report.verbose, style)
    for label, trees in ((report.before, report.only_before), (report.after, report.only_after)):
        if trees:
            yield f"only in {label}: {', '.join(trees)}"
    yield from _registers(report, style)
    yield from (style.paint("bad", problem) for problem in report.problems)


def _tree(tree: TreeDiff, verbose: bool, style: Style) -> Iterator[str]:
    counts = [
        f"{size_text(size)} {word}"
        for word in ("added", "removed", "moved", "changed")
        if (size := getattr(tree, word))
    ]
    same = f"{size_text(tree.same)} alike" if tree.same else "nothing alike"
    yield f"{style.paint('name', tree.tree)}: {', '.join([*(counts or ['no change']), same])}"
    shown = tree.changes if verbose else tree.changes[:_SHOWN]
    if shown:
        headers = ("", "from", "to", "size", "was", "is")
        yield from (
            f"  {line}" for line in style.table([_row(c, style) for c in shown], headers).splitlines()
        )
    if len(tree.changes) > len(shown):
        yield f"  and {len(tree.changes) - len(shown)} more (-v shows them)"


def _row(change: Change, style: Style) -> list[str]:
    # What both sides have in common is said once, on the left.
    names = None if change.before is None or change.after is None else change.what
    return [
        style.paint(_ROLES[change.kind], _SIGNS[change.kind]),
        style.paint("address", f"{change.start:#x}"),
        f"{change.end:#x}",
        size_text(change.end - change.start),
        "" if change.before is None else _side(change.before, None),
        "" if change.after is None else _side(change.after, names),
    ]


def _side(side: Side, names: tuple[str, ...] | None) -> str:
    parts = {
        "pa": f"{side.pa:#x}" + (" (all of it)" if side.constant else ""),
        "rights": side.rights,
        "memory": side.memory,
        "shareability": side.shareability,
        "page_size": f"{size_text(side.page_size)} pages" if side.page_size else "translation off",
        "contiguous": "contiguous" if side.contiguous else "not contiguous" if names else "",
        "access_flag": "" if side.access_flag and not names else f"access flag {int(side.access_flag)}",
        "space": side.space if names or side.space != "Non-secure" else "",
    }
    return ", ".join(text for name, text in parts.items() if text and (names is None or name in names))


def _registers(report: DiffReport, style: Style) -> Iterator[str]:
    if not report.registers_compared:
        return
    yield style.paint("heading", f"{len(report.registers)} of {report.registers_compared} registers differ")
    for change in report.registers:
        was, now = ("not shown" if v is None else f"{v:#x}" for v in (change.before, change.after))
        yield f"CPU {change.cpu}: {style.paint('name', change.name)} {was} -> {now}"
        yield from _fields(change, style)


def _fields(change: RegisterChange, style: Style) -> Iterator[str]:
    # A register that is one field has been said.
    parts = [field for field in change.fields if field.msb - field.lsb < 63]
    rows = [[f"  [{_bits(field)}]", field.name, _words(field)] for field in parts]
    if rows:
        yield from style.table(rows).splitlines()


def _bits(field: FieldChange) -> str:
    return str(field.msb) if field.msb == field.lsb else f"{field.msb}:{field.lsb}"


def _words(field: FieldChange) -> str:
    sides = ((field.before, field.before_text), (field.after, field.after_text))
    return " -> ".join(f"{value:#x}" + (f" ({text})" if text else "") for value, text in sides)
