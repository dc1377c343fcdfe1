"""Where a Linux kernel's image is in memory, and what its read-only data says: symbols, types, build ID, banner.

An image is one piece of physical memory: text, read-only data with kallsyms, BTF and the build ID, tables, data. What
points into it, at any stop, is EL2's vector base in nVHE (the hypervisor's code is part of the image, at an address of
its own), and the kernel's vectors and PC in VHE or while the host runs. From there the read-only data is not far. The
kernel's own table is that of a CPU whose TTBR1 maps the image to where it was found; while only guests are loaded, it
is the page of the image that does so.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from gdbhyp.arch.regimes import Regime
from gdbhyp.arch.worlds import Hcr, world_below
from gdbhyp.engine.machine import Machine, Reader
from gdbhyp.engine.stop import Stop
from gdbhyp.engine.translate import explicit, translate
from gdbhyp.engine.walk import setup
from gdbhyp.errors import BadInput, GdbhypError, MemoryUnavailable
from gdbhyp.hypervisors.linux import btf, kallsyms, ksymtab
from gdbhyp.hypervisors.linux.kallsyms import Kallsyms
from gdbhyp.hypervisors.linux.memory import KernelMemory, of_host

PAGE = 0x1000
"""The smallest page of a kernel, to which its tables are aligned."""
_CHUNK = 0x40000
# How far behind an address in the text kallsyms may be, and how far behind that the types.
_FARTHEST = 0x600_0000
_TYPES_WITHIN = 0x200_0000
_DIGITS = b"".join(b"%d\0" % digit for digit in range(10))
_BUILD_ID_NOTE = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0"
_BUILD_ID_SIZE = 20
_BADDR = 0xFFFF_FFFF_F000
_BANNER = re.compile(rb"Linux version \d[^\0\n]{0,400}")


@dataclass(frozen=True)
class Image:
    """A kernel's image, the same wherever it is loaded: offsets are from its first symbol.

    ``symbols`` has base 0; ``base_word`` is where kallsyms holds the virtual address that it is relative to.
    ``note`` is where the build ID stands, ``root`` where swapper_pg_dir is, if it is known, and ``tcr`` its TCR_EL1.
    """

    build_id: str
    banner: str
    symbols: Kallsyms
    types: bytes
    base_word: int | None
    base_less: int
    note: int
    root: int | None
    tcr: int


@dataclass(frozen=True)
class Anchor:
    """An address that is in a kernel's image: where it came from, and its physical address."""

    why: str
    pa: int
    machine: Machine
    regime: Regime
    va: int


@dataclass(frozen=True)
class Table:
    """A candidate for the kernel's stage-1 table: TTBR1_EL1 and TCR_EL1, and whose they are."""

    ttbr1: int
    tcr: int
    why: str
    of_vhe: bool = False

    @property
    def root(self) -> int:
        """The physical address of the table."""
        return self.ttbr1 & _BADDR


def anchors(stop: Stop) -> Iterator[Anchor]:
    """Yield addresses of a host kernel's image that the CPUs' registers hold, the most certain ones first."""
    cpus = stop.cpus()
    for names in (("VBAR_EL2",), ("VBAR_EL1", "PC", "X30")):
        for cpu in cpus:
            for name in names:
                found = _anchor(cpu, name)
                if found is not None:
                    yield found


def _anchor(cpu: Stop, name: str) -> Anchor | None:
    value = cpu.optional(name)
    if not value:
        return None
    hcr = Hcr(cpu.optional("HCR_EL2") or 0)
    el2 = Regime.EL20 if hcr.e2h else Regime.EL2
    if name == "VBAR_EL2":
        regime = el2
    elif cpu.optional("CPSR") is not None and cpu.el == 2:
        if name == "VBAR_EL1":
            return None
        regime = el2
    elif _is_guest(cpu, hcr):
        return None
    else:
        regime = Regime.EL20 if hcr.el2_is_host else Regime.EL10
    try:
        output = translate(cpu.machine, value, regime).output
    except GdbhypError:
        return None
    if output is None:
        return None
    return Anchor(f"{name} of CPU {cpu.cpu}", output, cpu.machine, regime, value)


def _is_guest(cpu: Stop, hcr: Hcr) -> bool:
    vttbr = cpu.optional("VTTBR_EL2")
    if vttbr is None:
        # Behind a stage 2 of which nobody says whose it is, it may be one.
        return hcr.stage2 and not hcr.tge
    return world_below(hcr, vttbr, cpu.optional("VTCR_EL2"))[0] == "guest"


def tables(cpus: Sequence[Stop]) -> Iterator[Table]:
    """Yield the upper tables that the CPUs have loaded, those of VHE first; a guest's may be among them."""
    seen = set()
    for suffix in ("EL2", "EL1"):
        for cpu in cpus:
            if suffix == "EL2" and not Hcr(cpu.optional("HCR_EL2") or 0).e2h:
                continue
            ttbr, tcr = cpu.optional(f"TTBR1_{suffix}"), cpu.optional(f"TCR_{suffix}")
            if ttbr and tcr and (ttbr, tcr) not in seen:
                seen.add((ttbr, tcr))
                yield Table(ttbr, tcr, f"TTBR1_{suffix} of CPU {cpu.cpu}", suffix == "EL2")


_GRANULE_BITS = {0b10: 12, 0b01: 14, 0b11: 16}
_IPS_48, _IPS_52, _DS = 5 << 32, 6 << 32, 1 << 59


def usual_controls() -> Iterator[int]:
    """Yield values of TCR_EL1 as kernels are configured: granule and VA size of the upper range.

    The larger sizes go first: below the root for 52 bits, a table would do for the image with 48, but for nothing else.
    """
    for granule, sizes in ((0b10, (52, 48, 39)), (0b11, (52, 48, 42)), (0b01, (52, 48, 47, 36))):
        for size in sizes:
            large = size == 52
            ds = _DS if large and granule != 0b11 else 0
            yield 64 - size | (64 - size) << 16 | granule << 30 | (_IPS_52 if large else _IPS_48) | ds


@dataclass(frozen=True)
class ReadOnly:
    """Read-only data of an image: its physical address, and kallsyms in it."""

    start: int
    data: bytes
    symbols: Kallsyms

    @property
    def end(self) -> int:
        return self.start + len(self.data)


def scan(memory: Reader, start: int, limit: int = _FARTHEST) -> ReadOnly | None:
    """Look for kallsyms from physical address ``start`` on; stop where no memory is, or after ``limit`` bytes."""
    start -= start % PAGE
    data = bytearray()
    searched, behind = 0, 0
    while len(data) < limit and _extend(memory, start, data):
        if not behind:
            at = data.find(_DIGITS, searched)
            searched = max(0, len(data) - len(_DIGITS))
            # Newer kernels have the offsets behind the tokens: four bytes a symbol, which takes many more before.
            behind = len(data) + min(max(_CHUNK, at), _FARTHEST) if at >= 0 else 0
        if behind and _is_worth_a_try(len(data), behind):
            found = _found(start, data)
            if found is not None:
                return found
            if len(data) >= behind:
                behind = 0
    return _found(start, data) if behind else None


# The names go before the tokens; those of a million symbols take no more.
_NAMES_BEFORE = 0x100_0000
_SEARCHED_AT_ONCE, _OVERLAP = 0x80_0000, 0x1_0000


def search(memory: Reader, ranges: Sequence[tuple[int, int]]) -> Iterator[ReadOnly]:
    """Yield the read-only data of every kernel in physical ``ranges``, guests' kernels among them."""
    for start, end in ranges:
        for at in range(start, end, _SEARCHED_AT_ONCE):
            data = bytearray()
            _extend(memory, at, data, min(_SEARCHED_AT_ONCE + _OVERLAP, end - at))
            for tokens in kallsyms.token_tables(bytes(data)):
                found = scan(memory, max(start, at + tokens - _NAMES_BEFORE), 2 * _NAMES_BEFORE)
                if found is not None:
                    yield found


def scan_before(memory: Reader, end: int) -> ReadOnly | None:
    """Look for kallsyms before physical address ``end``, that of a table which the image has behind its data."""
    for start in range(end - _TYPES_WITHIN, end, 16 * PAGE):
        if _extend(memory, start, bytearray(), PAGE):
            return scan(memory, start, end - start)
    return None


def _is_worth_a_try(size: int, behind: int) -> bool:
    """Parsing costs more than reading on, so it is tried at every mebibyte and at the end."""
    return size >= behind or not size % (4 * _CHUNK)


def _found(start: int, data: bytearray) -> ReadOnly | None:
    held = bytes(data)
    try:
        return ReadOnly(start, held, kallsyms.find(held))
    except BadInput:
        return None


def _extend(memory: Reader, start: int, data: bytearray, size: int = _CHUNK) -> bool:
    """Read one chunk more, or what there is of it; False if there is nothing."""
    at = start + len(data)
    try:
        data += memory.read(at, size)
    except MemoryUnavailable as error:
        if error.first_bad <= at:
            return False
        try:
            data += memory.read(at, error.first_bad - at)
        except MemoryUnavailable:
            return False
    return True


def behind_text(anchor: Anchor) -> int:
    """Return a physical address at or before the read-only data: the text, which is executable, is left out.

    A kernel maps its text in one piece. Without that, the anchor itself is returned.
    """
    step, at = 0x1_0000, anchor.va - anchor.va % 0x1_0000
    first = anchor.pa - (anchor.va - at)
    low, high = 0, 1
    try:
        while high < 1 << 11 and _is_text(anchor, at + high * step, first + high * step):
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            inside = _is_text(anchor, at + middle * step, first + middle * step)
            low, high = (middle, high) if inside else (low, middle)
    except GdbhypError:
        return anchor.pa
    return max(anchor.pa, first + low * step)


def _is_text(anchor: Anchor, va: int, pa: int) -> bool:
    found = translate(anchor.machine, va, anchor.regime)
    return found.output == pa and found.permissions is not None and found.permissions.execute


def map_of(
    machine: Machine, found: ReadOnly, candidates: Iterable[Table]
) -> tuple[KernelMemory, int, Table] | None:
    """Return the first table that maps the image to where it was found, with the PA of the first symbol."""
    for table in candidates:
        with contextlib.suppress(GdbhypError):
            memory = of_host(machine, table.ttbr1, table.tcr)
            first = memory.physical(found.symbols.first)
            samples = (found.start, found.end - PAGE, found.start + (found.symbols.base_offset or 0))
            inside = [pa for pa in samples if first is not None and pa >= first]
            if (
                first is not None
                and inside
                and all(memory.physical(found.symbols.first + pa - first) == pa for pa in inside)
            ):
                return memory, first, table
    return None


def tables_in_image(machine: Machine, found: ReadOnly, controls: Iterable[int]) -> Iterator[Table]:
    """Yield pages behind the read-only data that could be the kernel's table: their entry for the image is a table."""
    for tcr in controls:
        try:
            registers = explicit(machine, Regime.EL10, ttbr1=0, tcr=tcr).registers
            geometry = setup(registers.get, Regime.EL10).half(upper=True)
        except GdbhypError:
            continue
        level = geometry.levels[0]
        entry = (found.symbols.first >> level.shift & level.index_mask) // 8
        page = 1 << geometry.tgx
        for at in range(found.start - found.start % page, found.end + _TYPES_WITHIN, page):
            try:
                word = int.from_bytes(machine.memory.read(at + 8 * entry, 8), "little")
            except MemoryUnavailable:
                break
            if word & 3 == 3:
                yield Table(at, tcr, f"the table in the image at PA {at:#x}")


def read_rest(memory: Reader, found: ReadOnly, first: int, end: int) -> tuple[bytes, int, bytes]:
    """Return the data from ``found`` on to the types, where they begin (0 if there are none), and the types."""
    data = bytearray(found.data)
    limit = min(end - found.start, len(data) + _TYPES_WITHIN)
    searched = 0
    while True:
        at = _types_at(data, searched)
        if at:
            size = btf.size_of(bytes(data[at : at + 64]))
            while len(data) < at + size and _extend(memory, found.start, data):
                pass
            return bytes(data[:at]), at, bytes(data[at : at + size]) if len(data) >= at + size else b""
        searched = max(0, len(data) - 64)
        if len(data) >= limit or not _extend(memory, found.start, data):
            return bytes(data), 0, b""


def _types_at(data: bytearray, start: int) -> int:
    at = data.find(btf.MAGIC, start)
    while at >= 0:
        if not at % 4 and len(data) >= at + 64:
            try:
                btf.size_of(bytes(data[at : at + 64]))
                return at
            except BadInput:
                pass
        at = data.find(btf.MAGIC, at + 1)
    return 0


def describe(machine: Machine, found: ReadOnly, first: int, table: Table) -> Image:
    """Read the rest of an image whose first symbol is at physical address ``first``."""
    root = table.root
    inside = found.end <= root < found.end + _TYPES_WITHIN
    data, types_at, types = read_rest(
        machine.memory, found, first, root if inside else found.end + _TYPES_WITHIN
    )
    note = _note_at(data, types_at)
    build_id = data[note + 16 : note + 16 + _BUILD_ID_SIZE].hex() if note else ""
    banner = _BANNER.search(data)
    shift = found.start - first
    symbols = _with_exports(found.symbols, {name: at + shift for name, at in ksymtab.find(data).items()})
    at = found.symbols.base_offset
    return Image(
        build_id=build_id,
        banner=banner[0].decode("ascii", "replace") if banner else "",
        symbols=symbols,
        types=types,
        base_word=None if at is None else at + shift,
        base_less=found.symbols.first - found.symbols.base,
        note=note + shift if note else 0,
        root=root - first if inside else None,
        tcr=table.tcr,
    )


def _note_at(data: bytes, types_at: int) -> int:
    """Return where the kernel's own build ID is noted: last before the types. Its vDSOs have theirs before."""
    return max(0, data.rfind(_BUILD_ID_NOTE, 0, types_at or len(data)))


def _with_exports(symbols: Kallsyms, exported: dict[str, int]) -> Kallsyms:
    """Add exported symbols that kallsyms leaves out, relative to the first symbol."""
    less = symbols.first - symbols.base
    rows = [(offset - less, entry) for entry, offset in zip(symbols.entries, symbols.offsets, strict=True)]
    known = {entry[1:] for entry in symbols.entries}
    rows += [(offset, "D" + name) for name, offset in exported.items() if name not in known and offset >= 0]
    rows.sort(key=lambda row: row[0])
    return Kallsyms([entry for _, entry in rows], [offset for offset, _ in rows], 0)
