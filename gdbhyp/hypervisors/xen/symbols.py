"""The table of symbols that Xen carries in its read-only data, for its own backtraces.

Xen's build writes it with a descendant of Linux's tool for kallsyms (xen/tools/symbols.c), in this order: addresses,
their number, names, markers (where every 256th name begins), tokens, and an index of tokens, each aligned to what the
architecture wants (256 bytes on Arm). A name is a length and that many tokens; the first character of an expanded name
is its type as ``nm`` prints it. Static symbols are ``file.c#name``. Without CONFIG_LIVEPATCH there are only functions.
Nothing points to the table, so it is recognised by an index that holds where each token begins.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from gdbhyp.errors import BadInput
from gdbhyp.hypervisors.linux.kallsyms import Kallsyms

_TOKENS = 256
_LONGEST_TOKEN = 64
_ALIGNMENT = 256
"""The largest alignment of a part, and so the most bytes of padding before one."""
_PER_MARKER = 256
_MOST_SYMBOLS = 1 << 16
_LARGEST_IMAGE = 1 << 26

# The index of tokens begins with 0 and the length of the first token with its zero byte.
_INDEX = re.compile(rb"(?=\0\0[\x02-\x40]\0[\x04-\x80]\0)", re.DOTALL)


def find(data: bytes) -> Kallsyms:
    """Return the table that is somewhere in ``data``, which begins at a multiple of 256.

    :raises BadInput: if there is none, or none that is whole.
    """
    for match in _INDEX.finditer(data):
        index = _index_at(data, match.start())
        tokens = _tokens_before(data, match.start(), index) if index else None
        if tokens is None:
            continue
        for markers in _markers_before(data, tokens.start):
            found = _table(data, markers, tokens)
            if found is not None:
                return found
    raise BadInput("Xen's table of symbols was not found")


@dataclass(frozen=True)
class _Tokens:
    start: int
    strings: Sequence[str]


def _index_at(data: bytes, at: int) -> tuple[int, ...]:
    """Return the index of tokens at ``at``, empty if what is there does not rise as one."""
    if at % 4 or at + 2 * _TOKENS > len(data):
        return ()
    index = struct.unpack_from(f"<{_TOKENS}H", data, at)
    lengths = (after - before for before, after in pairwise(index))
    return index if all(1 < length <= _LONGEST_TOKEN for length in lengths) else ()


def _tokens_before(data: bytes, end: int, index: Sequence[int]) -> _Tokens | None:
    """Return the tokens that end before ``end`` and begin where ``index`` says."""
    latest = end - index[-1] - 2
    for start in range(latest - latest % 4, max(0, latest - _ALIGNMENT - _LONGEST_TOKEN), -4):
        last = data.find(b"\0", start + index[-1])
        strings = data[start:last].split(b"\0")
        if len(strings) == _TOKENS and not any(data[start + at - 1] for at in index[1:]):
            return _Tokens(start, [string.decode("latin-1") for string in strings])
    return None


def _markers_before(data: bytes, end: int) -> Iterator[tuple[int, ...]]:
    """Yield (position, marker 0, marker 1, ...): a zero, then values that rise as names of 256 symbols do."""
    for at in range(end - end % 4 - 4, max(0, end - 4 * _MOST_SYMBOLS // _PER_MARKER - _ALIGNMENT), -4):
        markers = [0]
        if data[at : at + 4] != b"\0\0\0\0":
            continue
        while at + 4 * len(markers) + 4 <= end:
            value = int.from_bytes(data[at + 4 * len(markers) :][:4], "little")
            if not 2 * _PER_MARKER <= value - markers[-1] <= 128 * _PER_MARKER:
                break
            markers.append(value)
        if len(markers) > 1:
            yield (at, *markers)


def _table(data: bytes, markers: Sequence[int], tokens: _Tokens) -> Kallsyms | None:
    """Return the table whose markers these are: it goes before them, and ends with the names."""
    end, *begins = markers
    latest = end - begins[-1] - 2
    for names in range(latest - latest % 4, max(0, latest - 128 * _PER_MARKER - _ALIGNMENT), -4):
        count_at = _last_word_before(data, names)
        count = int.from_bytes(data[count_at : count_at + 4], "little")
        if not (len(begins) - 1) * _PER_MARKER < count <= len(begins) * _PER_MARKER:
            continue
        entries = _entries(data[names:end], count, begins, tokens.strings)
        addresses = _addresses_before(data, count_at, count) if entries else None
        if entries and addresses:
            return Kallsyms(entries, addresses, 0)
    return None


def _last_word_before(data: bytes, end: int) -> int:
    """Return where the last word before ``end`` is that is not zero, over no more than one alignment's padding."""
    for at in range(end - 4, max(0, end - _ALIGNMENT - 4), -4):
        if data[at : at + 4] != b"\0\0\0\0":
            return at
    return 0


def _entries(names: bytes, count: int, begins: Sequence[int], tokens: Sequence[str]) -> list[str] | None:
    """Expand ``count`` names; None unless each marker is where its names begin."""
    entries = []
    at = 0
    for number in range(count):
        if number % _PER_MARKER == 0 and begins[number // _PER_MARKER] != at:
            return None
        if at >= len(names) or not names[at]:
            return None
        behind = at + 1 + names[at]
        entries.append("".join(tokens[token] for token in names[at + 1 : behind]))
        at = behind
    return entries if at <= len(names) else None


def _addresses_before(data: bytes, end: int, count: int) -> tuple[int, ...] | None:
    """Return the ascending addresses that end before ``end``, over padding."""
    for behind in range(end - end % 8, end - _ALIGNMENT - 8, -8):
        start = behind - 8 * count
        if start < 0:
            return None
        addresses = struct.unpack_from(f"<{count}Q", data, start)
        if addresses[0] and 0 < addresses[-1] - addresses[0] < _LARGEST_IMAGE and _rises(addresses):
            return addresses
    return None


def _rises(values: Sequence[int]) -> bool:
    return all(before <= after for before, after in pairwise(values))


def plain_name(name: str) -> str:
    """Return a symbol's name without the file of a static one: ``p2m_alloc_page`` of ``p2m.c#p2m_alloc_page``."""
    return name.rpartition("#")[2]
