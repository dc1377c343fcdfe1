"""Any report as JSON, by the types of its fields.

A field typed ``VA``, ``IPA``, ``PA``, ``Address`` or ``Word`` is a ``"0x…"`` string, an ``int`` a number, an ``Enum``
its value, a tuple a list, a mapping an object; an inner dataclass is an object with snake_case keys, one a field. A
field whose metadata holds ``json=False`` is left out. A report with a ``rows`` attribute of type ``Iterable`` and
``json_lines = True`` is printed as one line a row while the rows are made.
"""

from __future__ import annotations

import dataclasses
import json
import operator
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from typing import Any

from gdbhyp.arch import spaces

_HEXADECIMAL = (spaces.VA, spaces.IPA, spaces.PA, spaces.Address, spaces.Word)

Encode = Callable[[Any], Any]


def lines(report: Any) -> Iterator[str]:
    """Yield the lines of a report's JSON: one object, or one object a row."""
    if getattr(report, "json_lines", False):
        yield from _row_lines(report.rows)
    else:
        yield json.dumps(encode(report))


def _row_lines(rows: Iterable[Any]) -> Iterator[str]:
    """Yield a line a row.

    A class of rows may name its first fields, all of them addresses, as ``json_varying``: rows with the same object as
    ``alike`` have the rest of the line in common.
    """
    known: dict[object, tuple[str, operator.attrgetter[Any], str]] = {}
    for row in rows:
        alike = getattr(row, "alike", None)
        if alike is None:
            yield json.dumps(encode(row))
            continue
        found = known.get(alike)
        if found is None:
            if len(known) >= _MOST_KNOWN:
                known.clear()
            names = row.json_varying
            first = "{" + "".join(f'"{name}": "%#x", ' for name in names)
            rest = {name: value for name, value in encode(row).items() if name not in names}
            found = known[alike] = (first, operator.attrgetter(*names), json.dumps(rest)[1:])
        form, of, rest_text = found
        yield form % of(row) + rest_text


_MOST_KNOWN = 4096


def encode(value: Any) -> Any:
    """Return ``value``, a dataclass instance, as what ``json.dumps`` takes."""
    known = _encoders.get(type(value))
    if known is None:
        known = _encoders[type(value)] = _object_encoder(type(value))
    return known(value)


_encoders: dict[type, Encode] = {}


def _object_encoder(kind: type) -> Encode:
    hints = typing.get_type_hints(kind)
    fields = [
        (f.name, encoder(hints[f.name])) for f in dataclasses.fields(kind) if f.metadata.get("json", True)
    ]

    def encode_object(value: Any) -> dict[str, Any]:
        return {name: encode_field(getattr(value, name)) for name, encode_field in fields}

    return encode_object


def encoder(hint: Any) -> Encode:
    """Return the encoder for a type hint; raises TypeError for one that has no JSON form."""
    if hint in _HEXADECIMAL:
        return hex
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _optional(hint, [a for a in arguments if a is not type(None)])
    if origin is typing.Literal or hint in (int, str, bool, float, type(None)):
        return _same
    if origin in (tuple, list):
        inner = encoder(arguments[0])
        return lambda values: [inner(v) for v in values]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        inner = encoder(arguments[1])
        return lambda values: {k: inner(v) for k, v in values.items()}
    if isinstance(hint, type) and issubclass(hint, Enum):
        return lambda value: value.value
    if dataclasses.is_dataclass(hint):
        # By the value's own class: a field typed with a base class shows what its value has.
        return encode
    raise TypeError(f"no JSON form for {hint}")


def _optional(hint: Any, kinds: list[Any]) -> Encode:
    encoders = [encoder(k) for k in kinds]
    if len(encoders) != 1 and any(e is not encode for e in encoders):
        raise TypeError(f"no JSON form for {hint}")
    inner = encoders[0]
    return lambda value: None if value is None else inner(value)


def _same(value: Any) -> Any:
    return value
