"""Structures of a kernel by their types: a member is read when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gdbhyp.arch.spaces import VA
from gdbhyp.engine.layouts import Member, Struct
from gdbhyp.errors import GdbhypError
from gdbhyp.hypervisors.linux.kernel import Kernel

_LONGEST_LIST = 1 << 16


class BrokenList(GdbhypError):
    """A list of the kernel that does not lead back to where it began."""


@dataclass(frozen=True)
class Object:
    """A structure at a virtual address of a kernel."""

    kernel: Kernel
    type: Struct
    address: VA

    def number(self, path: str) -> int:
        """Return an unsigned integer, pointer or bit-field member."""
        member = self.type.member(path)
        data = self.kernel.memory.read(self.address + member.offset, min(member.size, 8))
        return _extract(data, member)

    def signed(self, path: str) -> int:
        """Return an integer member as a signed one."""
        member = self.type.member(path)
        bits = member.bits or 8 * min(member.size, 8)
        value = self.number(path)
        return value - (1 << bits) if value >> (bits - 1) else value

    def text(self, path: str) -> str:
        """Return a member that is an array of characters, up to its first zero."""
        member = self.type.member(path)
        data = self.kernel.memory.read(self.address + member.offset, member.size)
        return data.split(b"\0", 1)[0].decode("utf-8", "replace")

    def at(self, path: str) -> VA:
        """Return the address of a member."""
        return VA(self.address + self.type.offset(path))

    def part(self, path: str) -> Object:
        """Return a member that is a structure itself."""
        return Object(self.kernel, self.type.types.struct_of(self.type.member(path).type), self.at(path))

    def follow(self, path: str, name: str = "") -> Object | None:
        """Return what a pointer member points to, None for a null pointer; ``name`` says of which type it is."""
        target = self.number(path)
        if not target:
            return None
        types = self.type.types
        kind = types.struct(name) if name else types.struct_of(types.pointee(self.type.member(path).type))
        return Object(self.kernel, kind, VA(target))

    def has(self, path: str) -> bool:
        """Return whether this kernel's structure has the member."""
        return self.type.has(path)


def _extract(data: bytes, member: Member) -> int:
    value = int.from_bytes(data, "little")
    return value >> member.shift & (1 << member.bits) - 1 if member.bits else value


def struct_at(kernel: Kernel, name: str, address: int) -> Object:
    """Return the structure ``name`` at a virtual address."""
    return Object(kernel, kernel.types.struct(name), VA(address))


def list_entries(kernel: Kernel, head: int, name: str, path: str) -> Iterator[Object]:
    """Yield the structures ``name`` whose ``list_head`` member ``path`` is on the list with this head.

    :raises BrokenList: after those that could be reached, if it runs in a circle that leaves the head out.
    :raises MemoryUnavailable: the same, if it leads out of memory.
    """
    kind = kernel.types.struct(name)
    offset = kind.offset(path)
    seen = {head}
    at = kernel.memory.word(head)
    while at != head:
        if at in seen or len(seen) > _LONGEST_LIST:
            raise BrokenList(f"the list of struct {name} at {head:#x} does not lead back to its head")
        seen.add(at)
        yield Object(kernel, kind, VA(at - offset))
        at = kernel.memory.word(at)
