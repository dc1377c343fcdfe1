"""The last answer of a command, for expressions: ``$hyp_last("fault.kind")`` and ``$hyp_last_KEY``."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

import gdb

from gdbhyp.errors import UsageError

# Of an answer that is made while it is shown, this many rows stay.
KEPT_ROWS = 10_000


class _Last:
    """What is remembered: the report, and the names of the convenience variables that it has."""

    report: Any = None
    names: tuple[str, ...] = ()


def remember(report: Any) -> Any:
    """Take ``report`` as the last answer; return it, in a form whose rows are kept while they are read."""
    report = _keeping_rows(report)
    values = dict(_values(report))
    for name in _Last.names:
        if name not in values:
            gdb.set_convenience_variable(name, None)
    for name, value in values.items():
        # A text that the target's character set does not have stays unset.
        with contextlib.suppress(gdb.error, UnicodeError):
            gdb.set_convenience_variable(name, to_gdb(value))
    _Last.report, _Last.names = report, tuple(values)
    return report


def last() -> Any:
    """Return the report of the last command that answered, None before the first."""
    return _Last.report


def field(path: str) -> Any:
    """Return what ``path`` names in the last answer: keys with dots between them, ``[N]`` for an entry of a list.

    ``count`` behind a list is how many entries it has.

    :raises UsageError: with what there is, if the path leads nowhere or to more than one value.
    """
    if _Last.report is None:
        raise UsageError("no command has answered yet")
    found = _Last.report
    walked = ""
    for key in re.findall(r"[^.\[\]]+", path):
        if found is None:
            return None
        found = _step(found, key, walked)
        walked += f"[{key}]" if key.isdigit() else f".{key}" if walked else key
    if found is None or isinstance(found, int | str | Enum):
        return found
    raise UsageError(
        f"'{walked}' has several values: {_keys(found)}" if walked else f"say a key: {_keys(found)}"
    )


def _step(found: Any, key: str, walked: str) -> Any:
    """Return the entry of ``found`` that is called ``key``."""
    if isinstance(found, _Rows):
        found = found if key == "count" else found.kept
    if key == "count" and isinstance(found, _Rows | list | tuple):
        return found.count if isinstance(found, _Rows) else len(found)
    if key.isdigit() and isinstance(found, list | tuple):
        if int(key) < len(found):
            return found[int(key)]
        raise UsageError(f"'{walked}' has {len(found)} entries, from [0]")
    if isinstance(found, Mapping) and key in found:
        return found[key]
    if dataclasses.is_dataclass(found) and key in {f.name for f in dataclasses.fields(found)}:
        return getattr(found, key)
    whose = f"'{walked}'" if walked else "the last answer"
    raise UsageError(f"{whose} has no '{key}': {_keys(found)}")


def _keys(found: Any) -> str:
    """Say what ``found`` is made of."""
    if isinstance(found, _Rows | list | tuple):
        return "write [0] for its first entry, or .count"
    names = list(found) if isinstance(found, Mapping) else []
    if dataclasses.is_dataclass(found):
        names = [f.name for f in dataclasses.fields(found) if f.metadata.get("json", True)]
    return f"its keys are {', '.join(names)}" if names else "it is a single value"


def to_gdb(value: Any) -> Any:
    """Return a number, flag, enumeration or text as what GDB takes; None is void.

    Numbers that fit are ``long``; addresses and registers above that are unsigned, as Python's numbers always become.
    """
    if isinstance(value, Enum):
        value = value.value
    return int(value) if isinstance(value, bool | int) else value


def _values(report: Any) -> Iterator[tuple[str, Any]]:
    """Yield the keys of the report that have a single value."""
    if dataclasses.is_dataclass(report):
        for field in dataclasses.fields(report):
            value = getattr(report, field.name)
            if field.metadata.get("json", True) and isinstance(value, int | str | Enum):
                yield f"hyp_last_{field.name}", value


class _Rows:
    """An iterator of rows that keeps the first ones."""

    def __init__(self, rows: Iterator[Any]) -> None:
        self.rows = rows
        self.kept: list[Any] = []
        self.count = 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        row = next(self.rows)
        if self.count < KEPT_ROWS:
            self.kept.append(row)
        self.count += 1
        return row


def _keeping_rows(report: Any) -> Any:
    if not dataclasses.is_dataclass(report) or isinstance(report, type):
        return report
    rows = getattr(report, "rows", None)
    if "rows" in {f.name for f in dataclasses.fields(report)} and isinstance(rows, Iterator):
        return dataclasses.replace(report, rows=_Rows(rows))
    return report
