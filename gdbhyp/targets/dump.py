"""Any files that hold a machine's memory, and what they say about its CPUs, as one dump and its Stops."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gdbhyp.engine.machine import Machine, Reader, pstate_of
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import BadInput, MemoryUnavailable, UsageError
from gdbhyp.targets import elf, flattened, kdump, lime, notes, snapshot
from gdbhyp.targets.elf import open_elf
from gdbhyp.targets.flat import FlatMemory, open_image
from gdbhyp.targets.kdump import open_kdump
from gdbhyp.targets.lime import open_lime
from gdbhyp.targets.snapshot import Snapshot


@dataclass(frozen=True)
class Dump:
    """What some files say about one machine.

    ``cpus`` are the registers of each CPU by name, in order; empty if the files have none. ``selected`` is the CPU that
    a question is about unless another is chosen. ``ranges`` are the physical ranges [start, end) with contents, ``ram``
    those that are known to be memory, contents or not. ``held`` is how many bytes of ``ranges`` are in the files, where
    that is not all. ``problems`` are sentences about what is missing.
    """

    name: str
    form: str
    memory: Reader
    ranges: tuple[tuple[int, int], ...]
    ram: tuple[tuple[int, int], ...] = ()
    cpus: tuple[Mapping[str, int], ...] = ()
    selected: int = 0
    vmcoreinfo: Mapping[str, str] | None = None
    snapshot: Snapshot | None = None
    problems: tuple[str, ...] = ()
    held: int | None = None
    memo: MutableMapping[object, Any] = field(default_factory=dict, compare=False, repr=False)

    def stop(self, cpu: int | None = None, given: Mapping[str, int] | None = None) -> Stop:
        """Return a CPU of the dump as a Stop; ``given`` are registers that hold in place of the dump's.

        :raises UsageError: for a CPU that the dump does not have.
        """
        number = self.selected if cpu is None else cpu
        count = max(1, len(self.cpus))
        if not 0 <= number < count:
            raise UsageError(f"{self.name} has no CPU {number}: it has {count}, which count from 0")
        return self._stop(number, given or {})

    def with_cpus(self, registers: Sequence[Mapping[str, int]]) -> Dump:
        """Return the same dump with registers of every CPU, in order, which hold in place of its own.

        :raises BadInput: if the dump has another number of CPUs.
        """
        own = self.cpus or ({},) * len(registers)
        if len(own) != len(registers):
            raise BadInput(f"there are registers of {len(registers)} CPUs, and {self.name} has {len(own)}")
        return replace(self, cpus=tuple({**a, **b} for a, b in zip(own, registers, strict=True)), memo={})

    def _stop(self, cpu: int, given: Mapping[str, int]) -> Stop:
        own = {**(self.cpus[cpu] if self.cpus else {}), **given}
        count = max(1, len(self.cpus))
        return Stop(
            Machine(own, self.memory, pstate_of(own["CPSR"]) if "CPSR" in own else {}),
            origin=self.name,
            cpu=cpu,
            count_cpus=lambda: count,
            symbol=self.snapshot.symbols.get if self.snapshot else _no_symbol,
            others=lambda: [self._stop(n, {}) for n in range(count) if n != cpu],
            ram=lambda: self.ram,
            every_register=lambda: own,
            memo=self.memo,
            vmcoreinfo=self.vmcoreinfo,
            versions=lambda: self.snapshot.versions if self.snapshot else {},
        )


def _no_symbol(address: int, /) -> str | None:
    return None


def open_dump(name: str, more: Sequence[str] = ()) -> Dump:
    """Open a dump, ``FILE`` or ``FILE@ADDRESS`` for a raw image; ``more`` are files of the same machine.

    :raises BadInput: with a sentence, if a file is none of the forms.
    """
    first = _open(name)
    if not more:
        return first
    others = [_open(other) for other in more]
    parts = [first, *others]
    memory = Joined([part.memory for part in parts])
    ram = tuple(sorted(r for part in parts for r in part.ram))
    described = next((part for part in parts if part.cpus), first)
    return Dump(
        name=name,
        form=" and ".join(dict.fromkeys(part.form for part in parts)),
        memory=memory,
        ranges=tuple(sorted(r for part in parts for r in part.ranges)),
        ram=ram,
        cpus=described.cpus,
        selected=described.selected,
        vmcoreinfo=next((part.vmcoreinfo for part in parts if part.vmcoreinfo), None),
        snapshot=described.snapshot,
        problems=tuple(p for part in parts for p in part.problems),
        held=sum(_held(part) for part in parts),
    )


def _held(dump: Dump) -> int:
    return sum(end - start for start, end in dump.ranges) if dump.held is None else dump.held


class Joined:
    """A Reader over the memory of several files of one machine; where two have an address, the first holds."""

    def __init__(self, readers: Sequence[Reader]) -> None:
        self._readers = readers

    def read(self, address: int, size: int, /) -> bytes:
        """Return ``size`` bytes, from as many files as they span.

        :raises MemoryUnavailable: if one of them is in no file.
        """
        parts = []
        at, end = address, address + size
        while at < end:
            part = self._part(address, size, at)
            parts.append(part)
            at += len(part)
        return b"".join(parts)

    def _part(self, address: int, size: int, at: int) -> bytes:
        """Return the bytes from ``at`` on that one of the files has."""
        failures = []
        for reader in self._readers:
            part = _prefix(reader, at, address + size - at)
            if isinstance(part, bytes):
                return part
            failures.append(part)
        worst = next((failure for failure in failures if failure.unsaved), failures[0])
        raise MemoryUnavailable("PA", address, size, worst.reason, at, unsaved=worst.unsaved)


def _prefix(reader: Reader, address: int, size: int) -> bytes | MemoryUnavailable:
    """Return as many of ``size`` bytes as there are from ``address`` on, at least one, or why there is none."""
    try:
        return reader.read(address, size)
    except MemoryUnavailable as error:
        return reader.read(address, error.first_bad - address) if error.first_bad > address else error


def _open(name: str) -> Dump:
    path = Path(name)
    if "@" in name and not path.exists():
        image = FlatMemory([open_image(name)])
        # An image may be of a part of memory: it does not say where the machine has none.
        return Dump(name, "raw image", image, image.ranges)
    try:
        with path.open("rb") as file:
            magic = file.read(max(map(len, _FORMS)))
    except OSError as error:
        raise BadInput(f"cannot read {name}: {error.strerror}") from error
    for start, opener in _FORMS.items():
        if magic.startswith(start):
            return opener(name)
    raise BadInput(
        f"{name} is no ELF core, kdump-compressed dump or LiME file; for a raw image of memory, say FILE@ADDRESS"
    )


def _elf_dump(name: str) -> Dump:
    core = open_elf(Path(name))
    said = _described(core.notes, name, big=core.big)
    taken = said.snapshot
    missing = f"{name} is cut short: {core.missing} bytes of memory that it claims are missing from the file"
    return Dump(
        name=name,
        form="gdbhyp snapshot" if taken else "ELF core",
        memory=core.memory.within(taken.ram, "it was left out of the snapshot") if taken else core.memory,
        ranges=core.memory.ranges,
        ram=taken.ram if taken else core.memory.ranges,
        cpus=taken.cpus if taken else said.cpus,
        selected=taken.selected if taken else 0,
        vmcoreinfo=said.vmcoreinfo,
        snapshot=taken,
        problems=(missing,) if core.missing else (),
    )


def _kdump_dump(name: str) -> Dump:
    dump = open_kdump(Path(name))
    said = _described(dump.notes, name, big=False)
    return Dump(
        name=name,
        form=dump.form,
        memory=dump.memory,
        ranges=dump.ranges,
        ram=dump.ranges,
        cpus=said.cpus,
        vmcoreinfo=notes.vmcoreinfo(dump.vmcoreinfo) if dump.vmcoreinfo else said.vmcoreinfo,
        problems=dump.problems,
        held=dump.memory.held(),
    )


def _lime_dump(name: str) -> Dump:
    memory, problems = open_lime(Path(name))
    return Dump(name, "LiME", memory, memory.ranges, memory.ranges, problems=problems)


_FORMS: Mapping[bytes, Callable[[str], Dump]] = {
    elf.MAGIC: _elf_dump,
    kdump.MAGIC: _kdump_dump,
    flattened.MAGIC: _kdump_dump,
    lime.MAGIC: _lime_dump,
}


@dataclass(frozen=True)
class _Description:
    """What the notes of a dump say."""

    cpus: tuple[Mapping[str, int], ...]
    vmcoreinfo: Mapping[str, str] | None
    snapshot: Snapshot | None


def _described(found: Sequence[notes.Note], name: str, *, big: bool) -> _Description:
    cpus: list[Mapping[str, int]] = []
    info = taken = None
    for note in found:
        if (note.name, note.kind) == ("CORE", notes.NT_PRSTATUS):
            cpus.append(notes.cpu_registers(note.contents, name, big=big))
        elif note.name == "VMCOREINFO":
            info = notes.vmcoreinfo(note.contents)
        elif (note.name, note.kind) == (snapshot.NOTE_NAME, snapshot.NOTE_TYPE):
            taken = snapshot.decode(note.contents, name)
    return _Description(tuple(cpus), info, taken)


def read_registers(
    path: str | None, assignments: Sequence[str]
) -> tuple[dict[str, int], tuple[dict[str, int], ...]]:
    """Return the registers of the chosen CPU, and those of every CPU if the file has them.

    The file is JSON: ``{"HCR_EL2": "0x…"}`` for the chosen CPU, or an array of such objects, one a CPU in order.
    ``assignments`` are ``NAME=VALUE`` words, which hold over the file.

    :raises BadInput: if the file is neither, or a value in it is no 64-bit number.
    :raises UsageError: if a word is not ``NAME=VALUE``.
    """
    values = _document(path) if path else {}
    every = tuple(_registers(each, path) for each in values) if isinstance(values, list) else ()
    found = {} if every else _registers(values, path)
    for word in assignments:
        name, separator, value = word.partition("=")
        if not separator:
            raise UsageError(f"'{word}' is not NAME=VALUE")
        try:
            found[name.strip().upper()] = _number(name, value)
        except BadInput as error:
            raise UsageError(str(error)) from None
    return found, every


def _document(path: str) -> object:
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not JSON: {error}") from error


def _registers(values: object, path: str | None) -> dict[str, int]:
    if not isinstance(values, dict):
        raise BadInput(f'{path} is not an object of registers, {{"HCR_EL2": "0x..."}}, or an array of them')
    return {str(name).upper(): _number(str(name), value) for name, value in values.items()}


def _number(name: str, value: object) -> int:
    try:
        number = int(value, 0) if isinstance(value, str) else value
    except ValueError:
        number = None
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 1 << 64:
        raise BadInput(f"the value of {name} is no 64-bit number")
    return number
