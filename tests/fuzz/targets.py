"""What is fuzzed: each target takes bytes, and whatever they are, raises nothing but gdbhyp's own errors.

A target asserts what holds for every input: an exit status of the contract, output that is JSON where JSON was asked
for, no control character for a terminal.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from support import tools
from unit import linuximage, xenimage
from unit.test_targets_hostile import samples
from unit.test_trace_ring import CAPACITY, ring

from gdbhyp.arch.regimes import Regime
from gdbhyp.arch.registers import describe, register_names
from gdbhyp.arch.syndrome import SyndromeContext, decode_esr
from gdbhyp.cli.main import main
from gdbhyp.commands.parsing import parse_line
from gdbhyp.commands.registry import COMMANDS
from gdbhyp.engine.machine import Machine
from gdbhyp.engine.map import Budget, map_both, map_stage
from gdbhyp.engine.results import Access
from gdbhyp.engine.translate import translate
from gdbhyp.engine.walk import setup_registers
from gdbhyp.errors import GdbhypError
from gdbhyp.hypervisors.linux import btf, kallsyms
from gdbhyp.hypervisors.xen import symbols as xen_symbols
from gdbhyp.targets import notes, snapshot

_DATA = tools.ROOT / "tests" / "unit" / "data"


@dataclass(frozen=True)
class Target:
    """``run`` is handed any bytes; ``seeds`` are inputs to start from; longer ones than ``longest`` are not made."""

    run: Callable[[bytes], None]
    seeds: Callable[[], Sequence[bytes]]
    longest: int = 1 << 14


class Numbers:
    """Bytes as a stream of numbers, zeros behind their end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> int:
        part = self._data[self._at : self._at + size]
        self._at += size
        return int.from_bytes(part, "little")


# ---- values --------------------------------------------------------------------------------------


def esr(data: bytes) -> None:
    """A syndrome with any of the registers that complete it."""
    numbers = Numbers(data)
    value, given = numbers.take(8), numbers.take(1)
    context = SyndromeContext(
        far=numbers.take(8) if given & 1 else None,
        hpfar=numbers.take(8) if given & 2 else None,
        elr=numbers.take(8) if given & 4 else None,
        spsr=numbers.take(8) if given & 8 else None,
        registers={n: numbers.take(8) for n in range(given >> 4)} if given & 16 else None,
    )
    syndrome = decode_esr(value, el=1 + given % 3, context=context)
    assert syndrome.summary
    assert sum(field.value << field.lsb for field in syndrome.fields) == value


_REGISTERS = sorted(register_names())


def register(data: bytes) -> None:
    """Any value of any register."""
    numbers = Numbers(data)
    name = _REGISTERS[numbers.take(2) % len(_REGISTERS)]
    value = numbers.take(8)
    described = describe(name, value)
    assert all(field.text is not None and field.msb >= field.lsb for field in described.fields)


# ---- tables --------------------------------------------------------------------------------------

_WALK_REGISTERS = sorted(
    {n for regime in Regime for n in setup_registers(regime)} | {"GPCCR_EL3", "GPTBR_EL3"}
)
_PAGES = 4


class Tables:
    """A few pages of descriptors, found again at many addresses, so that tables lead to tables."""

    def __init__(self, data: bytes) -> None:
        self._data = (data or bytes(8)).ljust(8)

    def read(self, address: int, size: int, /) -> bytes:
        start = (address >> 12) % _PAGES * 0x1000 + (address & 0xFFF)
        return bytes(self._data[(start + n) % len(self._data)] for n in range(size))


def tables(data: bytes) -> None:
    """Registers and descriptors: a walk through any stages, and a map of a bounded part."""
    numbers = Numbers(data)
    regime = list(Regime)[numbers.take(1) % len(Regime)]
    choice, address = numbers.take(1), numbers.take(8)
    registers = {name: numbers.take(8) for name in _WALK_REGISTERS if numbers.take(1) & 1}
    machine = Machine(registers, Tables(data[64:]), {"PAN": choice & 1})
    access = Access(("read", "write", "execute")[choice % 3], choice >> 2 & 3, bool(choice & 64))
    with contextlib.suppress(GdbhypError):
        found = translate(machine, address, regime, access=access)
        assert (found.output is None) == (found.fault is not None)
    with contextlib.suppress(GdbhypError):
        both = regime is Regime.EL10 and choice & 128
        limit = Budget(8)
        rows = map_both(machine, budget=limit) if both else map_stage(machine, regime, 1, budget=limit)
        for row in islice(rows, 300):
            assert row.start < row.end


# ---- the command line over files -----------------------------------------------------------------

_STATUSES = (0, 1, 2, 3)
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_folder = tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)


def _written(data: bytes) -> str:
    path = Path(_folder.name) / "input"
    path.write_bytes(data)
    return str(path)


def command_line(*words: str) -> tuple[int, str]:
    """Run the program; return its exit status and what it printed, both checked."""
    out, error = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = out, error
    try:
        status = main(words)
    finally:
        sys.stdout, sys.stderr = before
    out.flush()
    printed = out.buffer.getvalue().decode("utf-8", "replace")
    assert status in _STATUSES, words
    assert "Traceback" not in error.getvalue()
    assert not _UNSAFE.search(error.getvalue()), error.getvalue()
    assert (status != 0) <= bool(error.getvalue().strip()), words
    return status, printed


def json_of(*words: str) -> Iterator[object]:
    """Run the program with --json and yield the object of each line."""
    _, printed = command_line(*words, "--json")
    for line in printed.splitlines():
        yield json.loads(line)


def dump(data: bytes) -> None:
    """A file that is taken for a dump, asked several questions."""
    path = _written(data)
    roots = ("--vttbr", "0x1000040000000", "--vtcr", "0x80023558", "--max-tables", "16")
    list(json_of("map", path, "--stage2", *roots))
    list(json_of("walk", path, "0xffff800010000000", "--regime", "EL1"))
    list(json_of("status", path))
    list(json_of("info", path))
    list(json_of("vms", path))
    list(json_of("find", path, "0x40000000"))
    command_line("ipa", path)


def trace(data: bytes) -> None:
    """A file that is taken for a trace of whichever format."""
    path = _written(data)
    list(json_of("trace", "stat", path))
    list(json_of("trace", "show", path))
    _, shown = command_line("trace", "show", path)
    assert not _UNSAFE.search(shown)
    output = Path(_folder.name) / "output"
    status, _ = command_line("trace", "export", path, "--format", "chrome", "-o", str(output))
    if status == 0:
        json.loads(output.read_text(encoding="utf-8"))


def log(data: bytes) -> None:
    """A log with syndromes; without what is added, it is as it was."""
    path = _written(data)
    _, printed = command_line("annotate", path)
    list(json_of("annotate", path))
    assert printed.count("\n") >= data.decode("utf-8", "replace").count("\n")


def cases(data: bytes) -> None:
    """A file of AT cases: an answer a line."""
    status, printed = command_line("at", _written(data))
    assert status == 0
    text = data.decode("utf-8", "replace")
    assert len(printed.splitlines()) == sum(1 for line in io.StringIO(text) if line.strip())
    for line in printed.splitlines():
        answer = json.loads(line)
        assert ("par" in answer) != ("error" in answer)


def registers_file(data: bytes) -> None:
    """A file of registers for a dump that is there."""
    image = Path(_folder.name) / "image"
    if not image.exists():
        image.write_bytes(bytes(0x1000))
    list(json_of("status", f"{image}@0x40000000", "--registers", _written(data)))


def typed(data: bytes) -> None:
    """A line typed behind any command."""
    text = data.decode("utf-8", "replace")
    for command in COMMANDS:
        with contextlib.suppress(GdbhypError):
            parse_line(command, f"hyp-{command.name}", text)


# ---- pieces of files -----------------------------------------------------------------------------


def elf_notes(data: bytes) -> None:
    """The notes of an ELF core."""
    found, end = notes.read_notes(data, big=bool(data[:1] == b"B"))
    assert 0 <= end <= len(data) + 3
    for note in found:
        with contextlib.suppress(GdbhypError):
            notes.cpu_registers(note.contents, "file")
        notes.vmcoreinfo(note.contents)


def snapshot_note(data: bytes) -> None:
    """What a snapshot says of itself."""
    with contextlib.suppress(GdbhypError):
        snapshot.decode(data, "file")


def symbols(data: bytes) -> None:
    """A kernel's symbol table somewhere in memory."""
    with contextlib.suppress(GdbhypError):
        found = kallsyms.find(data)
        assert len(list(found)) == len(found)
        found.at(found.first + 8)


def xen(data: bytes) -> None:
    """Xen's own symbol table somewhere in memory."""
    with contextlib.suppress(GdbhypError):
        found = xen_symbols.find(data)
        assert len(list(found)) == len(found)


def types(data: bytes) -> None:
    """A kernel's types."""
    with contextlib.suppress(GdbhypError):
        found = btf.Btf(data)
        for number in range(min(len(found), 64)):
            for ask in (
                found.size,
                found.resolve,
                found.kind,
                lambda n: list(found.members(n)),
                found.enum_of,
            ):
                with contextlib.suppress(GdbhypError):
                    ask(number)


# ---- seeds ---------------------------------------------------------------------------------------


def _dumps() -> list[bytes]:
    """A small dump of each form."""
    with tempfile.TemporaryDirectory() as folder:
        return [*samples(Path(folder)).values(), b"\x7fELF", b""]


_CPU = {
    "HCR_EL2": 0x8000_0001,
    "VTTBR_EL2": 1 << 48 | 0x4000_0000,
    "VTCR_EL2": 0x8002_3558,
    "CPSR": 5,
    "PC": 0,
}


def _snapshot_note() -> bytes:
    said = snapshot.Snapshot(
        gdbhyp="1",
        created="now",
        versions={},
        contents="all",
        selected=0,
        cpus=(_CPU, _CPU),
        ram=((0x4000_0000, 0x4000_2000),),
        symbols={0: "start"},
    )
    return snapshot.encode(said)


def _stage2_page() -> bytes:
    entries = [0x4000_0000 + 0x1000 * n | 0x7FF for n in range(512)]
    return struct.pack("<512Q", *entries)


_TRACES = ("demo-int.log", "qemu-int.log", "kvm-ftrace-6.1.txt", "kvm-perf-script.txt", "kvm-trace-cmd.txt")


def _files(*names: str) -> list[bytes]:
    return [(_DATA / name).read_bytes()[: 1 << 13] for name in names]


_TRACE = (
    b'{"format": "gdbhyp-trace", "version": 1, "source": "break", "dropped": 0}\n'
    b'{"event": "exception", "seq": 0, "cpu": 0, "vector": "0x80400", "from_el": 1, "esr": "0x93c58045"}\n'
    b'{"event": "return", "seq": 1, "cpu": 0, "to_el": 1, "pc": "0x1000"}\n'
    b'{"event": "lost", "seq": 2, "missing": 3, "reason": "x"}\n'
)
_CASE = (
    b'{"op": "S12E1R", "va": "0x1000", "regs": {"HCR_EL2": "0x80000001"}, "pstate": {"PAN": 0}}\n'
    b'{"op": "S1E2W", "va": 4096}\n'
)
_ROWS = [("T", f"symbol_{n}", 0xFFFF_8000_0808_0000 + 0x40 * n) for n in range(300)]


def _kernel_types() -> list[bytes]:
    made = linuximage.Types()
    word = made.integer("long", 8)
    inner = made.struct("kvm_arch", 16, [("mmu", word, 0), ("vtcr", word, 8)])
    made.struct(
        "kvm", 32, [("arch", inner, 0), ("next", made.pointer(inner), 16), ("rest", made.array(word, 1), 24)]
    )
    made.enum("vcpu_sysreg", {"SCTLR_EL1": 1, "TTBR0_EL1": 2})
    return [made.data()]


def _symbol_tables() -> list[bytes]:
    return [bytes(64) + linuximage.kallsyms(_ROWS, order) for order in ("old", "new")]


TARGETS = {
    "esr": Target(esr, lambda: [struct.pack("<Q", 0x93C5_8045) + bytes(90), b"\xff" * 98], 256),
    "register": Target(register, lambda: [bytes(10), b"\xff" * 10], 16),
    "tables": Target(tables, lambda: [os.urandom(4096), _stage2_page() * 2]),
    "dump": Target(dump, _dumps, 1 << 19),
    "trace": Target(trace, lambda: [_TRACE, *_files(*_TRACES)]),
    "trace_ring": Target(trace, lambda: [bytes(ring(begun)) for begun in (1, CAPACITY, CAPACITY + 5)]),
    "log": Target(log, lambda: _files("hyp-panic.log", "linux-oops.log", "xen-panic.log", "qemu-int.log")),
    "cases": Target(cases, lambda: [_CASE]),
    "registers_file": Target(registers_file, lambda: [b'{"HCR_EL2": "0x80000001", "CPSR": 9, "PC": "0"}']),
    "typed": Target(
        typed, lambda: [b"--json $pc + 8", b"'a b' --last 3 --ipa 1-2 \\", b"start --source log"]
    ),
    "elf_notes": Target(
        elf_notes, lambda: [notes.prstatus(0, {"PC": 1}) * 2, notes.note("QEMU", 0, bytes(440))]
    ),
    "snapshot_note": Target(snapshot_note, lambda: [b"{}", _snapshot_note()]),
    "symbols": Target(symbols, _symbol_tables, 1 << 15),
    "xen": Target(
        xen, lambda: [xenimage.symbol_table([(f"t{n:03}", 0x20_0000 + n) for n in range(300)])], 1 << 15
    ),
    "types": Target(types, _kernel_types, 1 << 13),
}
