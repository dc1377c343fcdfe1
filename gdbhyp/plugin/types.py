"""Types from the debug information (DWARF) of a program that GDB has loaded."""

from __future__ import annotations

from collections.abc import Iterator

import gdb

from gdbhyp.engine.layouts import Member, NoType, Struct, Types

_COMPOSITE = (gdb.TYPE_CODE_STRUCT, gdb.TYPE_CODE_UNION)


class ProgramTypes(Types):
    """The types of one of GDB's symbol files, each by its number in the order in which they were come by.

    Names are looked up in this file alone, for a guest's kernel that is loaded too has structures of the same names.
    """

    def __init__(self, file: gdb.Objfile) -> None:
        super().__init__()
        self.source = f"the debug information of {file.filename}"
        self._file = file
        self._types: list[gdb.Type | None] = [None]
        self._named: dict[str, int] = {}
        self._pointees: dict[int, int] = {}
        self._elements: dict[int, int] = {}
        self._members: dict[int, list[tuple[str, Member]]] = {}

    def struct(self, name: str) -> Struct:
        number = self._tagged(name) or self._lookup(name, gdb.SYMBOL_VAR_DOMAIN)
        if number is None:
            raise NoType(f"the kernel's types have no struct {name}")
        return self.struct_of(number)

    def knows(self, name: str) -> bool:
        """Return whether there is a ``struct NAME``."""
        return self._tagged(name) is not None

    def struct_of(self, number: int) -> Struct:
        found = self._type(number)
        if found.code == gdb.TYPE_CODE_ARRAY:
            if number not in self._elements:
                self._elements[number] = self._number(_plain(found.target()))
            return self.struct_of(self._elements[number])
        if found.code not in _COMPOSITE:
            raise NoType(f"type {number} is no struct")
        return Struct(self, number, found.tag or "", found.sizeof)

    def pointee(self, number: int) -> int:
        if number not in self._pointees:
            pointer = self._type(number)
            if pointer.code != gdb.TYPE_CODE_PTR:
                raise NoType(f"type {number} is no pointer")
            target = _plain(pointer.target())
            # What a pointer leads to may only be declared where the pointer is.
            complete = self._tagged(target.tag) if target.code in _COMPOSITE and target.tag else None
            is_void = target.code == gdb.TYPE_CODE_VOID
            self._pointees[number] = 0 if is_void else complete or self._number(target)
        return self._pointees[number]

    def enum(self, name: str) -> dict[str, int]:
        number = self._tagged(name)
        if number is None or self._type(number).code != gdb.TYPE_CODE_ENUM:
            raise NoType(f"the kernel's types have no enum {name}")
        return {str(constant.name): int(constant.enumval) for constant in self._type(number).fields()}

    def members(self, number: int) -> Iterator[tuple[str, Member]]:
        if number not in self._members:
            found = self._type(number)
            if found.code not in _COMPOSITE:
                raise NoType(f"type {number} is no struct")
            self._members[number] = list(self._members_of(found))
        yield from self._members[number]

    def _members_of(self, composite: gdb.Type) -> Iterator[tuple[str, Member]]:
        for member in composite.fields():
            if member.type is None or member.bitpos is None:
                continue
            kind = _plain(member.type)
            if member.bitsize:
                start = member.bitpos // 8 // kind.sizeof * kind.sizeof
                bits, shift = member.bitsize, member.bitpos - 8 * start
            else:
                start, bits, shift = member.bitpos // 8, 0, 0
            yield member.name or "", Member(start, kind.sizeof, self._number(kind), bits, shift)

    def composite(self, number: int) -> int | None:
        return number if number and self._type(number).code in _COMPOSITE else None

    def name(self, number: int) -> str:
        return self._type(number).tag or ""

    def _type(self, number: int) -> gdb.Type:
        found = self._types[number] if 0 < number < len(self._types) else None
        if found is None:
            raise NoType(f"the kernel's types have no type {number}")
        return found

    def _number(self, kind: gdb.Type) -> int:
        self._types.append(kind)
        return len(self._types) - 1

    def _tagged(self, name: str) -> int | None:
        return self._lookup(name, gdb.SYMBOL_STRUCT_DOMAIN)

    def _lookup(self, name: str, domain: int) -> int | None:
        key = f"{domain} {name}"
        if key not in self._named:
            symbol = self._file.lookup_static_symbol(name, domain)
            kind = None if symbol is None else symbol.type
            self._named[key] = 0 if kind is None else self._number(_plain(kind))
        return self._named[key] or None


def _plain(kind: gdb.Type) -> gdb.Type:
    """Return a type below its typedefs and qualifiers."""
    return kind.strip_typedefs().unqualified()


_known: list[tuple[gdb.Objfile, ProgramTypes]] = []


def loaded_types(build_id: str) -> Types | None:
    """Return the types of the program with this build ID that GDB has loaded; None without one that has a kernel's."""
    for file in gdb.objfiles():
        if file.build_id == build_id and (types := _types_of(file)).knows("task_struct"):
            return types
    return None


def _types_of(file: gdb.Objfile) -> ProgramTypes:
    """Return the types of a file, kept for as long as GDB has it loaded."""
    _known[:] = [entry for entry in _known if entry[0].is_valid()]
    for known, types in _known:
        if known == file:
            return types
    _known.append((file, ProgramTypes(file)))
    return _known[-1][1]
