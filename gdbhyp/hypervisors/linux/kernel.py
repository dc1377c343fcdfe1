"""A Linux kernel as its own memory describes it.

>>> kernel = find_kernel(stop)
>>> kernel.banner
'Linux version 6.1.0-50-cloud-arm64 (...'
>>> hex(kernel.symbol("kvm_vm_ioctl"))
'0xffffcbfca7a40e80'
>>> kernel.types.struct("kvm").offset("vm_list")
2320
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from gdbhyp.arch.spaces import PA, VA
from gdbhyp.engine.layouts import Types
from gdbhyp.engine.machine import Machine
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import BadInput, GdbhypError
from gdbhyp.hypervisors.linux import cache
from gdbhyp.hypervisors.linux.btf import Btf
from gdbhyp.hypervisors.linux.image import (
    PAGE,
    Anchor,
    Image,
    ReadOnly,
    Table,
    anchors,
    behind_text,
    describe,
    map_of,
    scan,
    scan_before,
    search,
    tables,
    tables_in_image,
    usual_controls,
)
from gdbhyp.hypervisors.linux.kallsyms import Symbol
from gdbhyp.hypervisors.linux.memory import KernelMemory, of_host

LARGEST_IMAGE = 64 << 20
"""Where an image ends is not listed by all kernels; none takes more bytes."""


class NoKernel(GdbhypError):
    """No Linux kernel was found; the sentence says where it was looked for."""


@dataclass(frozen=True)
class Kernel:
    """A running kernel.

    ``base`` is the virtual address of its first symbol (``_text``; ``_stext`` where kallsyms is short) and
    ``physical_base`` its physical one; the image is one piece of physical memory. ``how`` says how it was found,
    ``memory`` reads its virtual addresses, ``image`` holds the symbols relative to ``base``. ``loaded_types`` are those
    of a program with this build ID that a debugger has loaded.
    """

    base: VA
    physical_base: PA
    how: str
    memory: KernelMemory
    image: Image
    loaded_types: Callable[[str], Types | None] = lambda build_id: None

    @property
    def build_id(self) -> str:
        """The GNU build ID in hexadecimal, "" if there is none."""
        return self.image.build_id

    @property
    def banner(self) -> str:
        """``linux_banner``, "" if it was not found."""
        return self.image.banner

    def symbol(self, name: str) -> VA | None:
        """Return the virtual address of a symbol, None if the kernel does not list it."""
        offset = self.image.symbols.address(name)
        return None if offset is None else VA(self.base + offset)

    def symbols(self) -> Iterator[Symbol]:
        """Yield all symbols in ascending order of their virtual addresses."""
        base = self.base
        return (Symbol(name, base + offset, kind) for name, offset, kind in self.image.symbols)

    def name(self, address: int) -> str | None:
        """Return ``name+0xoffset`` for a virtual address in the image, None for others."""
        found = self.image.symbols.at(address - self.base)
        if found is None or address - self.base > self.image.symbols.offsets[-1]:
            return None
        symbol, offset = found
        return f"{symbol.name}+{offset:#x}" if offset else symbol.name

    def holds(self, address: int) -> bool:
        """Return whether a virtual address is in the image: as far behind the first symbol as its memory is.

        What the kernel allocates can be close behind its image, but is elsewhere in memory.
        """
        distance = address - self.base
        return (
            0 <= distance < LARGEST_IMAGE and self.memory.physical(address) == self.physical_base + distance
        )

    @property
    def page_shift(self) -> int:
        """log2 of the kernel's page size: its granule in the upper range, TCR_EL1.TG1 [31:30]."""
        return _GRANULES[self.memory.tcr >> 30 & 3]

    @cached_property
    def types(self) -> Types:
        """The kernel's types: of its vmlinux if a debugger has loaded it with debug information, else its own.

        :raises BadInput: if there is none, and the kernel carries none (CONFIG_DEBUG_INFO_BTF) or damaged ones.
        """
        loaded = self.loaded_types(self.build_id) if self.build_id else None
        return loaded or _own_types(self.image)


_GRANULES = {0b10: 12, 0b01: 14, 0b11: 16}

_parsed: dict[str, Btf] = {}


def _own_types(image: Image) -> Btf:
    """Parse the types once for each kernel."""
    if not image.types:
        raise BadInput(
            "the kernel carries no types (BTF), so its structures cannot be read: load its vmlinux, with debug "
            f"information, in GDB (build ID {image.build_id or 'not known'})"
        )
    if image.build_id not in _parsed or not image.build_id:
        _parsed.clear()
        _parsed[image.build_id] = Btf(image.types)
    return _parsed[image.build_id]


# Where exception vectors begin: the kernel's, KVM's at EL2, and the copies that mitigate Spectre and Meltdown.
_VECTORS = (
    "__kvm_nvhe___kvm_hyp_host_vector",
    "__kvm_nvhe___kvm_hyp_vector",
    "__kvm_hyp_vector",
    "__kvm_nvhe___bp_harden_hyp_vecs",
    "__bp_harden_hyp_vecs",
    "vectors",
    "__bp_harden_el1_vectors",
    "tramp_vectors",
)

_known: list[tuple[Image, int, Table]] = []
_MOST_KNOWN = 4


def find_kernel(stop: Stop, *, afresh: bool = False) -> Kernel:
    """Return the host's Linux kernel, from any stop.

    What was found once is verified (its build ID, and where it is) and used again; so is what the cache folder holds.
    ``afresh`` reads everything from the target's memory all the same.

    :raises NoKernel: if no CPU's registers lead to one, or memory that it needs is missing.
    """
    known = None if afresh else _again(stop) or _from_cache(stop)
    return replace(known or _afresh(stop), loaded_types=stop.types)


def _again(stop: Stop) -> Kernel | None:
    """Return a kernel that was found before, if it is still where it was."""
    for image, first, table in _known:
        if _has_build_id(stop.machine, image, first):
            kernel = _place(stop.machine, image, first, [table, *tables(stop.cpus())], "found before")
            if kernel is not None:
                return kernel
    return None


def _has_build_id(machine: Machine, image: Image, first: int) -> bool:
    if not image.build_id:
        return False
    try:
        return machine.memory.read(first + image.note + 16, 20).hex() == image.build_id
    except GdbhypError:
        return False


def _place(
    machine: Machine, image: Image, first: int, candidates: Iterable[Table], how: str
) -> Kernel | None:
    """Return the kernel whose first symbol is at physical address ``first``; None if no table agrees."""
    if image.base_word is None:
        return None
    try:
        base = int.from_bytes(machine.memory.read(first + image.base_word, 8), "little") + image.base_less
        for table in candidates:
            memory = of_host(machine, table.ttbr1, table.tcr)
            if _maps(memory, base, first) and _maps(memory, base + image.base_word, first + image.base_word):
                _remember(image, first, table)
                return Kernel(VA(base), PA(first), f"{how}; its table is {table.why}", memory, image)
    except GdbhypError:
        return None
    return None


def _maps(memory: KernelMemory, va: int, pa: int) -> bool:
    try:
        return memory.physical(va) == pa
    except GdbhypError:
        return False


def _remember(image: Image, first: int, table: Table) -> None:
    entry = image, first, table
    if entry in _known[:1]:
        return
    _known[:] = [entry, *(known for known in _known if known[0].build_id != image.build_id)][:_MOST_KNOWN]


def _from_cache(stop: Stop) -> Kernel | None:
    """Return a kernel of the cache folder, if what the CPUs' registers hold is part of it."""
    headers = list(cache.headers())
    for header in headers:
        for first, why in _guesses(stop, header):
            image = _cached(stop, header, first)
            candidates = _candidates(stop, image, first) if image is not None else ()
            how = f"{why}, and it is in the cache"
            kernel = _place(stop.machine, image, first, candidates, how) if image is not None else None
            if kernel is not None:
                return kernel
    return None


# Around swapper_pg_dir are the tables of which one is loaded while user space runs with page table isolation.
_PAGES_BESIDE = range(-4, 5)


def _guesses(stop: Stop, header: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    """Yield physical addresses where a cached kernel's first symbol would be, and why."""
    for anchor in anchors(stop):
        for offset in header["vectors"]:
            yield (anchor.pa & ~0x7FF) - offset, f"{anchor.why} points into it"
    if header["root"] is not None:
        for table in tables(stop.cpus()):
            for page in _PAGES_BESIDE:
                yield table.root + page * PAGE - header["root"], f"{table.why} is a table of its image"


def _cached(stop: Stop, header: Mapping[str, Any], first: int) -> Image | None:
    """Return the image of a cached kernel if its build ID stands where it would be."""
    try:
        note = stop.machine.memory.read(first + header["note"] + 16, 20).hex()
    except GdbhypError:
        return None
    return cache.load(note) if note == header["build_id"] else None


def _candidates(stop: Stop, image: Image, first: int) -> Iterator[Table]:
    yield from tables(stop.cpus())
    if image.root is not None:
        yield Table(first + image.root, image.tcr, "swapper_pg_dir in the image")


def _afresh(stop: Stop) -> Kernel:
    """Find a kernel without any help.

    :raises NoKernel: with what was tried.
    """
    tried = []
    for anchor in anchors(stop):
        tried.append(anchor.why)
        found = _read_only(stop, anchor)
        if found is not None:
            kernel = _found(stop, found, f"{anchor.why} points into it")
            if kernel is not None:
                return kernel
    for table in tables(stop.cpus()):
        found = scan_before(stop.machine.memory, table.root) if table.of_vhe else None
        kernel = _found(stop, found, f"{table.why} is a table of its image") if found is not None else None
        if kernel is not None:
            return kernel
    # All of a dump can be searched; a live target's memory is too slow to read for that.
    for found in search(stop.machine.memory, stop.ram() if stop.origin != "live" else ()):
        kernel = _found(stop, found, "its table of symbols was found by a search of memory")
        if kernel is not None:
            return kernel
    where = ", ".join(dict.fromkeys(tried)) or "no register of a CPU leads to one"
    raise NoKernel(f"no Linux kernel was found: tried {where}")


def _read_only(stop: Stop, anchor: Anchor) -> ReadOnly | None:
    try:
        return scan(stop.machine.memory, behind_text(anchor))
    except GdbhypError:
        return None


def _found(stop: Stop, found: ReadOnly, how: str) -> Kernel | None:
    loaded = list(tables(stop.cpus()))
    # None of these maps the image, so their controls may be a guest's, and those have to come last: see usual_controls.
    controls = dict.fromkeys([*usual_controls(), *(table.tcr for table in loaded)])
    mapped = map_of(stop.machine, found, loaded) or map_of(
        stop.machine, found, tables_in_image(stop.machine, found, controls)
    )
    if mapped is None:
        return None
    memory, first, table = mapped
    image = describe(stop.machine, found, first, table)
    base = found.symbols.first
    _remember(image, first, table)
    cache.save(image, [offset for name in _VECTORS if (offset := image.symbols.address(name)) is not None])
    return Kernel(VA(base), PA(first), f"{how}; its table is {table.why}", memory, image)
