"""Where structures of a program have their members: what any source of type information answers.

A kernel's own BTF is such a source, the debug information that a debugger has loaded is another. Types have numbers,
which mean something to their source alone; 0 is void.

>>> kvm = types.struct("kvm")
>>> kvm.member("arch.mmu.pgd_phys").offset
3968
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from gdbhyp.errors import GdbhypError

_MOST_NESTING = 64


class NoType(GdbhypError):
    """The program's types do not have what was asked for; versions of a kernel differ in this."""


@dataclass(frozen=True)
class Member:
    """A member, maybe of a member: ``offset`` in bytes from the outermost struct, ``size`` in bytes, its type's number.

    A bit-field has ``bits`` = its width, and ``shift`` = where its lowest bit is in the little-endian integer at
    ``offset``.
    """

    offset: int
    size: int
    type: int
    bits: int = 0
    shift: int = 0


@dataclass(frozen=True)
class Struct:
    """A struct or union type by its number; ``size`` in bytes."""

    types: Types = field(repr=False)
    id: int
    name: str
    size: int

    def member(self, path: str) -> Member:
        """Return the member at ``path``, as C would write it: ``"arch.mmu.vmid"``; anonymous parts are looked through.

        :raises NoType: if there is none.
        """
        return self.types.member(self.id, path)

    def offset(self, path: str) -> int:
        """Return the offset in bytes of the member at ``path``."""
        return self.member(path).offset

    def has(self, path: str) -> bool:
        """Return whether there is a member at ``path``."""
        try:
            self.member(path)
        except NoType:
            return False
        return True


class Types(ABC):
    """The types of one program; ``source`` says in words where they are from."""

    source: str

    def __init__(self) -> None:
        self._found: dict[tuple[int, str], Member] = {}

    @abstractmethod
    def struct(self, name: str) -> Struct:
        """Return ``struct NAME`` (or the struct that a typedef of this name means).

        :raises NoType: if there is none.
        """

    @abstractmethod
    def struct_of(self, number: int) -> Struct:
        """Return the struct or union that a type means, modifiers and an array looked through.

        :raises NoType: if it is none.
        """

    @abstractmethod
    def pointee(self, number: int) -> int:
        """Return what a pointer type points to, with modifiers looked through; 0 is void.

        :raises NoType: if it is no pointer.
        """

    @abstractmethod
    def enum(self, name: str) -> dict[str, int]:
        """Return the constants of ``enum NAME`` in the order of their declaration.

        :raises NoType: if there is none.
        """

    @abstractmethod
    def members(self, number: int) -> Iterator[tuple[str, Member]]:
        """Yield the direct members of a struct or union; an anonymous one has the name "" (offsets in bytes).

        :raises NoType: if it is none.
        """

    @abstractmethod
    def composite(self, number: int) -> int | None:
        """Return the struct or union below a type's typedefs and qualifiers, None if there is another type there."""

    @abstractmethod
    def name(self, number: int) -> str:
        """Return the name of a struct or union, "" of an anonymous one."""

    def member(self, number: int, path: str) -> Member:
        """Return the member of struct ``number`` at ``path``; see ``Struct.member``."""
        key = number, path
        if key not in self._found:
            self._found[key] = self._member(number, path)
        return self._found[key]

    def _member(self, number: int, path: str) -> Member:
        found = Member(0, 0, number)
        for word in path.split("."):
            inner = self._direct(found.type, word, _MOST_NESTING)
            if inner is None:
                owner = self.composite(found.type)
                name = "" if owner is None else self.name(owner)
                raise NoType(f"struct {name or 'without a name'} of this kernel has no member {path}")
            found = replace(inner, offset=found.offset + inner.offset)
        return found

    def _direct(self, number: int, name: str, depth: int) -> Member | None:
        within = self.composite(number)
        if not depth or within is None:
            return None
        anonymous = []
        for own, member in self.members(within):
            if own == name:
                return member
            if not own:
                anonymous.append(member)
        for outer in anonymous:
            inner = self._direct(outer.type, name, depth - 1)
            if inner is not None:
                return replace(inner, offset=outer.offset + inner.offset)
        return None
