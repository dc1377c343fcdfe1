"""Any report as comma-separated values, by the types of its fields.

A report is one line below its heading, a report with rows a line a row. The fields of an inner object are columns of
their own, ``fault.kind``; what is a list, or has no fixed keys, is JSON in its cell. A report whose class names one of
its lists as ``csv_rows`` has a line for each entry of it, with what belongs to all entries repeated. Numbers look as
they do in JSON; what is not known is an empty cell. Text that a spreadsheet would compute has an apostrophe before it.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json as standard_json
import typing
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from gdbhyp.errors import UsageError
from gdbhyp.escaping import csv_text
from gdbhyp.render import json

Cell = Callable[[Any], Any]


def lines(report: Any) -> Iterator[str]:
    """Yield the heading and the lines of a report.

    :raises UsageError: for a report that is lines of JSON already.
    """
    if getattr(report, "raw", False):
        raise UsageError("this answer is lines of JSON, and has no other form")
    if getattr(report, "json_lines", False):
        return row_lines(report.rows, _row_class(report))
    return row_lines((report,), type(report))


def row_lines(rows: Iterable[Any], kind: type | None) -> Iterator[str]:
    """Yield a heading and a line for each of ``rows``, dataclass instances; ``kind`` is what they are if there is none.

    A row with other columns than the one before it begins a table of its own.
    """
    heading = _heading(kind) if kind is not None else []
    if heading:
        yield _line(heading)
    for row in rows:
        own = _heading(type(row))
        if own != heading:
            heading = own
            yield _line(heading)
        yield from (_line(cells) for cells in _cells(row))


def _row_class(report: Any) -> type | None:
    """Return the class of the report's rows, as far as its type says so."""
    arguments = typing.get_args(typing.get_type_hints(type(report)).get("rows"))
    return arguments[0] if arguments and dataclasses.is_dataclass(arguments[0]) else None  # type: ignore[return-value]


def _line(cells: Iterable[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()


@dataclasses.dataclass(frozen=True)
class _Shape:
    """The columns of a class: its own, and those of the entries of the list that is spread over lines."""

    columns: list[tuple[str, Cell]]
    spread: str | None
    entry: list[tuple[str, Cell]]


_shapes: dict[type, _Shape] = {}


def _shape(kind: type) -> _Shape:
    if kind not in _shapes:
        spread = getattr(kind, "csv_rows", None)
        columns = list(_columns(kind, "", (), without=spread))
        entry: list[tuple[str, Cell]] = []
        if spread is not None:
            inner = typing.get_args(typing.get_type_hints(kind)[spread])[0]
            entry = list(_columns(inner, f"{spread}.", ()))
        _shapes[kind] = _Shape(columns, spread, entry)
    return _shapes[kind]


def _heading(kind: type) -> list[str]:
    shape = _shape(kind)
    return [name for name, _ in (*shape.columns, *shape.entry)]


def _cells(row: Any) -> Iterator[list[Any]]:
    shape = _shape(type(row))
    own = [cell(row) for _, cell in shape.columns]
    if shape.spread is None:
        yield own
        return
    entries = getattr(row, shape.spread)
    if not entries:
        yield own + [""] * len(shape.entry)
    for entry in entries:
        yield own + [cell(entry) for _, cell in shape.entry]


def _columns(
    kind: type, prefix: str, above: tuple[type, ...], without: str | None = None
) -> Iterator[tuple[str, Cell]]:
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if not field.metadata.get("json", True) or field.name == without:
            continue
        inner = _inner_object(hints[field.name])
        if inner is not None and inner not in (*above, kind):
            for name, cell in _columns(inner, f"{prefix}{field.name}.", (*above, kind)):
                yield name, _through(field.name, cell)
        else:
            yield prefix + field.name, _value(field.name, json.encoder(hints[field.name]))


def _inner_object(hint: Any) -> type | None:
    """Return the dataclass that the hint is, or is beside None."""
    kinds = [k for k in typing.get_args(hint) if k is not type(None)] if typing.get_args(hint) else [hint]
    if typing.get_origin(hint) in (tuple, list) or len(kinds) != 1:
        return None
    return kinds[0] if isinstance(kinds[0], type) and dataclasses.is_dataclass(kinds[0]) else None


def _through(name: str, cell: Cell) -> Cell:
    def inner(value: Any) -> Any:
        found = getattr(value, name)
        return "" if found is None else cell(found)

    return inner


def _value(name: str, encode: Callable[[Any], Any]) -> Cell:
    return lambda value: _text(encode(getattr(value, name)))


def _text(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool | list | dict):
        return standard_json.dumps(value)
    return csv_text(value) if isinstance(value, str) else value
