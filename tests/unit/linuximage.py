"""Builds a small Linux kernel's read-only data for tests: kallsyms, exports, BTF, the build ID and the banner.

Nothing here uses gdbhyp's own code: the formats are written down once more, from the kernel's build scripts and
Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Row = tuple[str, str, int]  # type, name, address


def padded(data: bytes, size: int = 8) -> bytes:
    return data + bytes(-len(data) % size)


def padded_size(size: int) -> int:
    return -(-size // 8) * 8


def kallsyms(rows: Sequence[Row], order: str = "old", absolute: bool = False, percpu: bool = False) -> bytes:
    """Return the table for rows in ascending order of addresses; ``order`` is "old", "seqs" (6.2) or "new" (6.5)."""
    used = set("".join(kind + name for kind, name, _ in rows)) | set("0123456789")
    tokens = [chr(code) if chr(code) in used else "" for code in range(256)]
    free = [code for code in range(256) if not tokens[code]]
    for code, word in zip(free, ("kvm_", "vm_", "__", "init"), strict=False):
        tokens[code] = word
    names, markers = bytearray(), []
    for number, (kind, name, _) in enumerate(rows):
        if not number % 256:
            markers.append(len(names))
        codes = _encode(kind + name, tokens)
        names += (
            bytes([len(codes)]) if len(codes) < 128 else bytes([len(codes) & 0x7F | 0x80, len(codes) >> 7])
        )
        names += codes
    table, index = bytearray(), bytearray()
    for token in tokens:
        index += struct.pack("<H", len(table))
        table += token.encode("latin-1") + b"\0"
    base = next(address for _, _, address in rows if address >> 63)
    if absolute:
        addresses = struct.pack(f"<{len(rows)}Q", *(address for _, _, address in rows))
    else:
        offsets = [_offset(address, base, percpu) for _, _, address in rows]
        addresses = padded(struct.pack(f"<{len(rows)}i", *offsets)) + struct.pack("<Q", base)
    seqs = padded(b"".join((number * 7 % len(rows)).to_bytes(3, "big") for number in range(len(rows))))
    count = padded(struct.pack("<I", len(rows)))
    head = [count, padded(bytes(names)), padded(struct.pack(f"<{len(markers)}I", *markers))]
    tail = [padded(bytes(table)), bytes(index)]
    parts = {
        "old": [addresses, *head, *tail],
        "seqs": [addresses, *head, seqs, *tail],
        "new": [*head, *tail, addresses, seqs],
    }
    return b"".join(parts[order])


def _offset(address: int, base: int, percpu: bool) -> int:
    if not percpu:
        return address - base
    return base - 1 - address if address >> 63 else address


def _encode(text: str, tokens: Sequence[str]) -> bytes:
    words = [(code, token) for code, token in enumerate(tokens) if len(token) > 1]
    codes, at = bytearray(), 0
    while at < len(text):
        code, token = next(((c, t) for c, t in words if text.startswith(t, at)), (ord(text[at]), text[at]))
        codes.append(code)
        at += len(token)
    return bytes(codes)


@dataclass
class Types:
    """BTF under construction: each method returns the number of the type that it adds."""

    strings: bytearray = field(default_factory=lambda: bytearray(b"\0"))
    records: list[bytes] = field(default_factory=list)

    def text(self, word: str) -> int:
        if not word:
            return 0
        at = self.strings.find(b"\0" + word.encode() + b"\0") + 1
        if not at:
            at = len(self.strings)
            self.strings += word.encode() + b"\0"
        return at

    def add(self, kind: int, name: str, size: int, tail: bytes = b"", vlen: int = 0, flag: int = 0) -> int:
        self.records.append(struct.pack("<III", self.text(name), flag << 31 | kind << 24 | vlen, size) + tail)
        return len(self.records)

    def integer(self, name: str, size: int) -> int:
        return self.add(1, name, size, struct.pack("<I", 8 * size))

    def pointer(self, target: int = 0) -> int:
        return self.add(2, "", target)

    def array(self, element: int, count: int) -> int:
        return self.add(3, "", 0, struct.pack("<III", element, 1, count))

    def struct(self, name: str, size: int, members: Sequence[tuple[str, int, int]], kind: int = 4) -> int:
        """Add a struct (or with ``kind`` 5 a union) of (name, type, offset in bytes)."""
        tail = b"".join(struct.pack("<III", self.text(m), t, 8 * at) for m, t, at in members)
        return self.add(kind, name, size, tail, len(members))

    def bits(self, name: str, size: int, members: Sequence[tuple[str, int, int, int]]) -> int:
        """Add a struct of (name, type, offset in bits, width in bits); width 0 is no bit-field."""
        tail = b"".join(struct.pack("<III", self.text(m), t, w << 24 | at) for m, t, at, w in members)
        return self.add(4, name, size, tail, len(members), flag=1)

    def typedef(self, name: str, target: int) -> int:
        return self.add(8, name, target)

    def const(self, target: int) -> int:
        return self.add(10, "", target)

    def enum(self, name: str, values: Mapping[str, int]) -> int:
        tail = b"".join(struct.pack("<Ii", self.text(word), value) for word, value in values.items())
        return self.add(6, name, 4, tail, len(values))

    def data(self) -> bytes:
        records = b"".join(self.records)
        head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(records), len(records), len(self.strings))
        return head + records + bytes(self.strings)


def exports(symbols: Mapping[str, int]) -> bytes:
    """Return a section of entries and, behind it, their names; values are offsets from its beginning."""
    ordered = sorted(symbols)
    strings = bytearray()
    places = {}
    for name in ordered:
        places[name] = len(strings)
        strings += name.encode() + b"\0"
    size = 12 * len(ordered)
    section = bytearray()
    for name in ordered:
        at = len(section)
        section += struct.pack("<3i", symbols[name] - at, size + places[name] - at - 4, 0)
    return bytes(section + strings)


def build_id(digest: bytes) -> bytes:
    assert len(digest) == 20
    return struct.pack("<III4s", 4, 20, 3, b"GNU\0") + digest
