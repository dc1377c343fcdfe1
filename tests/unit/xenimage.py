"""A synthetic Xen: symbols as its build writes them, functions that tell its layout, and domains in its lists."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from unit.a64 import LOAD_ROOT, LOOK_UP, code, restore, save
from unit.pagetables import AF, EVERYTHING, MAIR, Format, SparseMemory, Tables, single_tcr

from gdbhyp.arch.sysregs import encoding_of
from gdbhyp.engine.machine import Machine
from gdbhyp.engine.stop import Stop

START = 0x20_0000
"""Where Xen's image begins, as a VA; the physical address is other."""
PHYSICAL, SIZE = 0x4000_0000, 0x10000
VECTORS, FUNCTIONS, NAMES = START + 0x1800, START + 0x2000, 0x4000
TABLE = START + 0x4068
"""domain_hash, as LOOK_UP at FUNCTIONS reads it."""
HEAP, HEAP_PHYSICAL, HEAP_SIZE = 0x8000_0000_0000, 0x5000_0000, 0x40000
NEXT, ROOT, OWNER = 24, 568, 16
STACK_BYTES, INFO_BYTES = 0x8000, 0x160


OUTSIDE = {
    "TTBR0_EL1": (800, 8),
    "TTBR1_EL1": (808, 8),
    "TCR_EL1": (792, 8),
    "ESR_EL1": (768, 4),
    "VBAR_EL1": (784, 8),
    "SCTLR_EL1": (848, 8),
    "MAIR_EL1": (832, 8),
}
"""Where a switch between vCPUs saves registers in struct vcpu: (offset, size)."""
CONTROL = {"VMPIDR_EL2": (1480, 8), "HCR_EL2": (896, 8)}
"""What it only loads from there."""
INSIDE = {
    "ELR_EL2": 0x100,
    "SPSR_EL2": 0x108,
    "ESR_EL2": 0x110,
    "SPSR_EL1": 0x120,
    "SP_EL0": 0x138,
    "SP_EL1": 0x140,
    "ELR_EL1": 0x148,
}
"""Where the entry from a guest saves registers in cpu_info."""
_BL = code(0x94000400)


def _encoding(name: str) -> tuple[int, int, int, int, int]:
    found = encoding_of(name)
    assert found is not None
    return found


def _schedule_tail(wrong: str = "") -> bytes:
    """Save to the first argument, and load from what x20 points to; ``wrong`` from elsewhere."""
    saves = [save(_encoding(n), *at, base=19) for n, at in OUTSIDE.items() if n != "SCTLR_EL1"]
    both = {**CONTROL, **OUTSIDE}
    loads = [
        restore(_encoding(n), offset + 8 * (n == wrong), size, base=20)
        for n, (offset, size) in both.items()
        if n not in ("SCTLR_EL1", "HCR_EL2")
    ]
    # mov x19, x0; bl; ...; adrp x20; ldr x20, [x20]
    begin, middle = code(0xAA0003F3) + _BL, code(0xB0000014, 0xF9400294)
    return b"".join([begin, *saves, middle, *loads])


def _entry() -> bytes:
    """sub sp, sp, #0x30; x28 and x29 to x2 and x3 are pushed; sub sp, sp, #0x10; and what belongs to the exception."""
    pushes = [0xA980_0000 | (-2 & 0x7F) << 15 | n + 1 << 10 | 31 << 5 | n for n in range(28, 1, -2)]
    begin = code(0xD100C3FF, *pushes, 0xD10043FF)
    # str x30, [sp, #0xf0]
    link = code(0xF900_0000 | 0xF0 // 8 << 10 | 31 << 5 | 30)
    return begin + link + b"".join(save(_encoding(n), offset, base=31) for n, offset in INSIDE.items())


def symbol_table(symbols: Sequence[tuple[str, int]], alignment: int = 256, gap: bytes = b"") -> bytes:
    """Return the table of ``symbols``, (type and name, address), in Xen's order; tokens stand for pairs of letters."""
    pairs = sorted({name[at : at + 2] for name, _ in symbols for at in range(len(name) - 1)})
    letters = {chr(number): number for number in range(33, 127)}
    free = [number for number in range(256) if not 33 <= number < 127]
    tokens = {**letters, **dict(zip(pairs, free, strict=False))}
    unused = free[len(pairs) :]
    by_number = {number: text for text, number in tokens.items()} | {
        number: f"~{number}" for number in unused
    }

    def compress(name: str) -> bytes:
        codes = []
        while name:
            part = name[:2] if name[:2] in tokens else name[:1]
            codes.append(tokens[part])
            name = name[len(part) :]
        return bytes([len(codes), *codes])

    names = [compress(name) for name, _ in symbols]
    markers = [sum(map(len, names[:at])) for at in range(0, len(names), 256)]
    strings = [by_number[number].encode() + b"\0" for number in range(256)]
    index = [sum(map(len, strings[:at])) for at in range(256)]
    parts = [
        struct.pack(f"<{len(symbols)}Q", *(address for _, address in symbols)),
        struct.pack("<I", len(symbols)),
        b"".join(names),
        *([gap] if gap else []),
        struct.pack(f"<{len(markers)}I", *markers),
        b"".join(strings),
        struct.pack("<256H", *index),
    ]
    return b"".join(part + bytes(-len(part) % alignment) for part in parts)


def many_symbols(named: Mapping[str, int], count: int = 600) -> list[tuple[str, int]]:
    """Return ``named`` functions among ``count`` others, by ascending address."""
    others = {f"Tfiller_{number}": START + 4 * number for number in range(count)}
    both = {**others, **{f"T{name}": address for name, address in named.items()}}
    return sorted(both.items(), key=lambda item: item[1])


@dataclass
class XenWorld:
    """A machine with Xen and ``domains``, (identifier, VTTBR_EL2, vCPUs)."""

    domains: Sequence[tuple[int, int, int]] = ((0, 0x1_0000_4100_0000, 2), (1, 0x2_0000_4200_0000, 1))
    memory: SparseMemory = field(default_factory=SparseMemory)
    at: dict[int, int] = field(default_factory=dict)
    """Where each struct domain is."""
    wrong: str = ""
    """A register that a switch loads from elsewhere than it saves it to."""

    def __post_init__(self) -> None:
        form = Format(12)
        self.tables = Tables(self.memory, form, 48, form.start_level(48), 0x6000_0000)
        for start, physical, size in ((START, PHYSICAL, SIZE), (HEAP, HEAP_PHYSICAL, HEAP_SIZE)):
            for page in range(0, size, 0x1000):
                self.tables.map(start + page, physical + page, 3, AF)
                self.memory.write(physical + page, bytes(1))
        restores = LOAD_ROOT[:-4] + b"".join(
            restore(_encoding(n), *at)
            for n, at in (("SCTLR_EL1", OUTSIDE["SCTLR_EL1"]), ("HCR_EL2", CONTROL["HCR_EL2"]))
        )
        bodies = {
            "get_domain_by_id": LOOK_UP,
            "p2m_restore_state": restores,
            "p2m_save_state": save(_encoding("SCTLR_EL1"), *OUTSIDE["SCTLR_EL1"]),
            "schedule_tail": _schedule_tail(self.wrong),
            "entry.o#guest_sync_slowpath": _entry(),
            "end": b"",
        }
        functions, at = {}, FUNCTIONS
        for name, body in bodies.items():
            functions[name] = at
            self.write(at, body)
            at += len(body)
        self.memory.write(PHYSICAL + 0x6000, symbol_table(many_symbols(functions)))
        self.free = HEAP
        for identifier, root, vcpus in self.domains:
            self.add(identifier, root, vcpus)

    def write(self, va: int, data: bytes) -> None:
        """Write at a virtual address of EL2."""
        base, physical = (HEAP, HEAP_PHYSICAL) if va >= HEAP else (START, PHYSICAL)
        self.memory.write(physical + va - base, data)

    def word(self, va: int, value: int) -> None:
        self.write(va, value.to_bytes(8, "little"))

    def take(self, size: int) -> int:
        at = self.free
        self.free += size
        return at

    def add(self, identifier: int, root: int, vcpus: int) -> None:
        """Add a domain to its bucket."""
        domain, array = self.take(0x1000), self.take(0x1000)
        self.at[identifier] = domain
        self.word(domain, identifier | vcpus << 32)
        self.word(domain + 8, array)
        self.word(domain + ROOT, root)
        self.word(TABLE + 8 * (identifier % 256), domain)
        for number in range(vcpus):
            vcpu = self.take(0x1000)
            self.word(array + 8 * number, vcpu)
            self.word(vcpu, number | number << 32)
            self.word(vcpu + OWNER, domain)

    def stop(self, **registers: int) -> Stop:
        """Return a CPU at EL2 in Xen."""
        values = {
            **EVERYTHING,
            "TTBR0_EL2": self.tables.root,
            "TCR_EL2": single_tcr(Format(12), 48),
            "SCTLR_EL2": 1,
            "MAIR_EL2": MAIR,
            "HCR_EL2": 1,
            "VBAR_EL2": VECTORS,
            "CPSR": 0b1001,
            "VTCR_EL2": 0x8004_3594,
            "VTTBR_EL2": 0,
            "SP": 0,
            "PC": VECTORS,
            **registers,
        }
        return Stop(Machine(values, self.memory))
