"""The note by which a snapshot says everything about a stopped machine but its memory.

A snapshot is an ELF core. Its note is named "gdbhyp", has type 0x48595001 and holds one JSON object in UTF-8::

    {"format": 1, "gdbhyp": "0.1.0", "created": "2026-05-01T12:00:00Z", "versions": {"QEMU": "7.2"}, "contents": "all",
     "selected": 0, "cpus": [{"HCR_EL2": "0x…", …}, …], "ram": [["0x40000000", "0x60000000"], …],
     "symbols": {"0xffff800008012345": "el1_sync+4", …}}

``cpus`` has every register that the stub showed, under its architectural name and under the stub's. ``contents`` is
"all", "tables" or "ranges"; memory inside ``ram`` that has no segment was left out. ``symbols`` names the addresses
that the registers, and the saved vCPUs, held.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from gdbhyp.errors import BadInput

NOTE_NAME, NOTE_TYPE = "gdbhyp", 0x4859_5001
_FORMAT = 1
_LARGEST_NOTE = 1 << 26
_MOST_CPUS = 1 << 14


Contents = Literal["all", "tables", "ranges"]


@dataclass(frozen=True)
class Snapshot:
    """The machine at the moment of the snapshot; ``selected`` is the CPU that was asked."""

    gdbhyp: str
    created: str
    versions: Mapping[str, str]
    contents: Contents
    selected: int
    cpus: tuple[Mapping[str, int], ...]
    ram: tuple[tuple[int, int], ...]
    symbols: Mapping[int, str]


def encode(snapshot: Snapshot) -> bytes:
    """Return the contents of the note."""
    document = {
        "format": _FORMAT,
        "gdbhyp": snapshot.gdbhyp,
        "created": snapshot.created,
        "versions": dict(snapshot.versions),
        "contents": snapshot.contents,
        "selected": snapshot.selected,
        "cpus": [{name: hex(value) for name, value in cpu.items()} for cpu in snapshot.cpus],
        "ram": [[hex(start), hex(end)] for start, end in snapshot.ram],
        "symbols": {hex(address): name for address, name in snapshot.symbols.items()},
    }
    return json.dumps(document).encode()


def decode(contents: bytes, path: object) -> Snapshot:
    """Return what a note says.

    :raises BadInput: with a sentence, if it is damaged or of a later format.
    """
    if len(contents) > _LARGEST_NOTE:
        raise BadInput(f"{path} is damaged: its gdbhyp note has {len(contents)} bytes")
    try:
        document = json.loads(contents)
        if document["format"] != _FORMAT:
            raise BadInput(f"{path} was written by a later gdbhyp ({document['gdbhyp']}): update this one")
        return _snapshot(document)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput(
            f"{path} is damaged: its gdbhyp note cannot be read ({type(error).__name__})"
        ) from error


def _snapshot(document: Mapping[str, Any]) -> Snapshot:
    cpus = tuple({name: int(value, 16) for name, value in cpu.items()} for cpu in document["cpus"])
    selected = int(document["selected"])
    if not 0 <= selected < len(cpus) <= _MOST_CPUS:
        raise ValueError("the selected CPU is not among the CPUs")
    if document["contents"] not in get_args(Contents):
        raise ValueError("contents of no known kind")
    return Snapshot(
        gdbhyp=str(document["gdbhyp"]),
        created=str(document["created"]),
        contents=document["contents"],
        versions={str(name): str(version) for name, version in document["versions"].items()},
        selected=selected,
        cpus=cpus,
        ram=tuple((int(start, 16), int(end, 16)) for start, end in document["ram"]),
        symbols={int(address, 16): str(name) for address, name in document["symbols"].items()},
    )
