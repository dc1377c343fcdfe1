"""BTF: the types of a Linux kernel, as it carries them in its read-only data.

The format is that of the kernel's Documentation/bpf/btf.rst: a header, type records numbered from 1 (0 is void), and
strings. A record is a name, a word with its kind and the count of what follows, and a size or another type.

>>> kvm = btf.struct("kvm")
>>> kvm.member("arch.mmu.pgd_phys").offset
3968
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator

from gdbhyp.engine.layouts import Member, NoType, Struct, Types
from gdbhyp.errors import BadInput

MAGIC = b"\x9f\xeb\x01\x00"
_HEADER = struct.Struct("<HBBIIIII")
_RECORD = struct.Struct("<III")
_MEMBER = struct.Struct("<III")
_LARGEST = 64 << 20

INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT = range(1, 12)
FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = range(12, 20)

# Bytes behind a record: a constant, and so many for each of its vlen parts.
_TAIL = {
    INT: (4, 0),
    ARRAY: (12, 0),
    STRUCT: (0, 12),
    UNION: (0, 12),
    ENUM: (0, 8),
    FUNC_PROTO: (0, 8),
    VAR: (4, 0),
    DATASEC: (0, 12),
    DECL_TAG: (4, 0),
    ENUM64: (0, 12),
}
_MODIFIERS = (TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG)
_MOST_NESTING = 64
_POINTER_SIZE = 8


class Btf(Types):
    """The types in ``data``, which begins with the header.

    :raises BadInput: if they are cut off or damaged.
    """

    source = "the kernel's own types (BTF)"

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.data = data
        self._named: dict[tuple[int, str], int] = {}
        size = size_of(self.data)
        if len(self.data) < size:
            raise BadInput("the kernel's types (BTF) are cut off")
        _, _, _, header, type_at, type_size, text_at, text_size = _HEADER.unpack_from(self.data)
        self._strings = self.data[header + text_at : header + text_at + text_size]
        self._starts = array("I", [0])
        self._wanted: dict[int, list[int]] = {}
        try:
            self._index(header + type_at, header + type_at + type_size)
        except struct.error as error:
            raise BadInput("the kernel's types (BTF) end in the middle of a record") from error

    def _index(self, at: int, end: int) -> None:
        """Note where each record begins, and by the offset of its name those that are looked up by name."""
        data, starts, named = self.data, self._starts, self._wanted
        words = struct.Struct("<II").unpack_from
        sizes = [_TAIL.get(kind, (0, 0)) for kind in range(32)]
        while at < end:
            name, info = words(data, at)
            kind = info >> 24 & 0x1F
            if not 0 < kind <= ENUM64:
                raise BadInput(f"the kernel's types (BTF) hold a record of an unknown kind, {kind}")
            if name and kind in _BY_NAME:
                named.setdefault(name, []).append(len(starts))
            starts.append(at)
            fixed, each = sizes[kind]
            at += 12 + fixed + each * (info & 0xFFFF)
        if at != end:
            raise BadInput("the kernel's types (BTF) do not end where they should")

    def __len__(self) -> int:
        """The number of types, void among them."""
        return len(self._starts)

    def _record(self, number: int) -> tuple[int, int, int, int, int]:
        """Return kind, vlen, kind_flag, size or type, and the offset of the name of type ``number``."""
        if not 0 < number < len(self._starts):
            raise NoType(f"the kernel's types (BTF) have no type {number}")
        name, info, size = _RECORD.unpack_from(self.data, self._starts[number])
        return info >> 24 & 0x1F, info & 0xFFFF, info >> 31, size, name

    def text(self, at: int) -> str:
        """Return the string at an offset of the string section."""
        end = self._strings.find(b"\0", at)
        return self._strings[at:end].decode("utf-8", "replace") if end >= 0 else ""

    def find(self, kind: int, name: str) -> int | None:
        """Return the id of the first type of ``kind`` with ``name``, None if there is none."""
        if (kind, name) not in self._named:
            self._named[kind, name] = self._search(kind, name)
        return self._named[kind, name] or None

    def _search(self, kind: int, name: str) -> int:
        at, key = 0, b"\0" + name.encode() + b"\0"
        while (at := self._strings.find(key, at)) >= 0:
            for number in self._wanted.get(at + 1, ()):
                if self._record(number)[0] == kind:
                    return number
            at += 1
        return 0

    def struct(self, name: str) -> Struct:
        number = self.find(STRUCT, name)
        if number is None and (alias := self.find(TYPEDEF, name)) is not None:
            number = self.resolve(alias)
        if number is None:
            raise NoType(f"the kernel's types have no struct {name}")
        return self.struct_of(number)

    def struct_of(self, number: int) -> Struct:
        below = self.resolve(number)
        for _ in range(_MOST_NESTING):
            kind, _, _, size, name = self._record(below)
            if kind in (STRUCT, UNION):
                return Struct(self, below, self.text(name), size)
            if kind != ARRAY:
                break
            below = self.resolve(self.element(below)[0])
        raise NoType(f"type {number} is no struct")

    def pointee(self, number: int) -> int:
        kind, _, _, target, _ = self._record(self.resolve(number))
        if kind != PTR:
            raise NoType(f"type {number} is no pointer")
        return self.resolve(target) if target else 0

    def resolve(self, number: int) -> int:
        """Return the type below typedefs and qualifiers; 0 for void."""
        for _ in range(_MOST_NESTING):
            if not number:
                return 0
            kind, _, _, target, _ = self._record(number)
            if kind not in _MODIFIERS:
                return number
            number = target
        raise NoType(f"the kernel's type {number} refers to itself")

    def element(self, number: int) -> tuple[int, int]:
        """Return the type of an array's elements and how many there are."""
        at = self._starts[self.resolve(number)] + 12
        element, _, count = _MEMBER.unpack_from(self.data, at)
        return element, count

    def kind(self, number: int) -> int:
        """Return the kind of a type below typedefs and qualifiers, 0 for void."""
        below = self.resolve(number)
        return self._record(below)[0] if below else 0

    def size(self, number: int, depth: int = _MOST_NESTING) -> int:
        """Return the size of a type in bytes; 0 for void, functions, and types that are only declared."""
        number = self.resolve(number)
        if not number or not depth:
            return 0
        kind, _, _, size, _ = self._record(number)
        if kind == PTR:
            return _POINTER_SIZE
        if kind == ARRAY:
            element, count = self.element(number)
            return self.size(element, depth - 1) * count
        return 0 if kind in (FWD, FUNC, FUNC_PROTO, VAR, DECL_TAG) else size

    def members(self, number: int) -> Iterator[tuple[str, Member]]:
        kind, count, flag, _, _ = self._record(number)
        if kind not in (STRUCT, UNION):
            raise NoType(f"type {number} is no struct")
        at = self._starts[number] + 12
        for name, target, where in _MEMBER.iter_unpack(self.data[at : at + 12 * count]):
            bits, offset = (where >> 24, where & 0xFF_FFFF) if flag else (0, where)
            size = self.size(target)
            if bits:
                start = offset // 8 // (size or 1) * (size or 1)
                yield self.text(name), Member(start, size, target, bits, offset - 8 * start)
            else:
                yield self.text(name), Member(offset // 8, size, target)

    def composite(self, number: int) -> int | None:
        below = self.resolve(number)
        return below if below and self._record(below)[0] in (STRUCT, UNION) else None

    def name(self, number: int) -> str:
        return self.text(self._record(number)[4])

    def enum(self, name: str) -> dict[str, int]:
        number = self.find(ENUM, name)
        if number is None:
            raise NoType(f"the kernel's types have no enum {name}")
        return self.enum_of(number)

    def enum_of(self, number: int) -> dict[str, int]:
        """Return the constants of an enum by its id."""
        kind, count, _, _, _ = self._record(number)
        if kind != ENUM:
            raise NoType(f"type {number} is no enum")
        at = self._starts[number] + 12
        values = struct.Struct("<Ii").iter_unpack(self.data[at : at + 8 * count])
        return {self.text(text): value for text, value in values}


_BY_NAME = (STRUCT, UNION, ENUM, TYPEDEF)


def size_of(header: bytes) -> int:
    """Return how many bytes the types take whose header this is.

    :raises BadInput: if it is no such header.
    """
    if len(header) < _HEADER.size or not header.startswith(MAGIC):
        raise BadInput("there are no types of a kernel (BTF)")
    _, _, _, size, type_at, type_size, text_at, text_size = _HEADER.unpack_from(header)
    total = int(size + max(type_at + type_size, text_at + text_size))
    if not _HEADER.size <= size <= 4096 or total > _LARGEST or type_at % 4:
        raise BadInput("the header of the kernel's types (BTF) is damaged")
    return total
