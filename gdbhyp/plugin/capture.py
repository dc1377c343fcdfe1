"""What a command of GDB says, as text, whichever interpreter GDB talks to its user by."""

from __future__ import annotations

import re

import gdb

# GDB/MI's streams: the console's "~", the target's "@" and the log's "&", each a C string.
_RECORD = re.compile(r'[~@&]"((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\([0-7]{3}|.)")
_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "e": "\x1b", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def captured(command: str) -> str:
    """Run a command of GDB and return what it said.

    In MI, GDB hands even that out as MI's records, of which this returns the contents.

    :raises gdb.error: as GDB does.
    """
    return plain(gdb.execute(command, to_string=True))


def plain(said: str) -> str:
    """Return the contents of MI's stream records; text that is none as it is."""
    lines = said.splitlines()
    records = [_RECORD.fullmatch(line) for line in lines]
    if not lines or not all(records):
        return said
    return "".join(_ESCAPE.sub(_unescaped, record[1]) for record in records if record)


def _unescaped(found: re.Match[str]) -> str:
    code = found[1]
    return chr(int(code, 8)) if len(code) == 3 else _LETTERS.get(code, code)
