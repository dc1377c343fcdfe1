"""What is fuzzed: each target takes bytes, and whatever they are, raises nothing but gdbhyp's own errors.

A target asserts what holds for every input: an exit status of the contract, output that is JSON where JSON was asked
for, no control character for a terminal.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
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
from unit.kdumps import LZO, SNAPPY, ZLIB, ZSTD, compressor
from unit.test_targets_hostile import samples
from unit.test_trace_ring import CAPACITY, ring

from gdbhyp.arch.regimes import Regime
from gdbhyp.arch.registers import describe, register_names
from gdbhyp.arch.syndrome import SyndromeContext, decode_esr
from gdbhyp.cli import fleet
from gdbhyp.cli.main import main
from gdbhyp.commands import register_map
from gdbhyp.commands.numbers import parse_number
from gdbhyp.commands.offline import DUMP
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
from gdbhyp.targets import notes, program, snapshot
from gdbhyp.targets.compression import decompressor
from gdbhyp.targets.symbol_file import Entry, Part, symbol_file

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
    # What a map lacks is said below it.
    assert (status != 0) <= bool((error.getvalue() + printed).strip()), words
    return status, printed


def json_of(*words: str) -> Iterator[object]:
    """Run the program with --json and yield the object of each line."""
    _, printed = command_line(*words, "--json")
    for line in printed.splitlines():
        yield json.loads(line)


def one_of(count: int, data: bytes) -> tuple[int, bytes]:
    """Return a number below ``count`` that the first byte says, and the rest."""
    return (data[0] % count if data else 0), data[1:]


def each(count: int, contents: Sequence[bytes]) -> list[bytes]:
    """Return seeds for a target that begins with ``one_of``: all contents with every number."""
    return [bytes([number]) + data for data in contents for number in range(count)]


_ROOTS = ("--stage2", "--vttbr", "0x1000040000000", "--vtcr", "0x80023558", "--max-tables", "16")
_QUESTIONS: dict[str, Sequence[str]] = {
    "map": _ROOTS,
    "walk": ("0xffff800010000000", "--regime", "EL1"),
    "find": ("0x40000000",),
    "x": ("/4gx", "0x40000000", "--pa"),
    "snapshot": (str(Path(_folder.name) / "snapshot"), "--tables-only"),
}
"""What a command that is asked of a dump needs besides it."""
_OF_DUMPS = [command.name for command in COMMANDS if command.in_cli and DUMP in command.arguments]
_FORMS = ("--json", "--csv", "")


def dump(data: bytes) -> None:
    """A file that is taken for a dump, asked any question that there is, in any form."""
    number, contents = one_of(len(_OF_DUMPS) * len(_FORMS), data)
    name, form = _OF_DUMPS[number // len(_FORMS)], _FORMS[number % len(_FORMS)]
    words = [name, _written(contents), *_QUESTIONS.get(name, ())]
    if form == "--json":
        list(json_of(*words))
        return
    _, printed = command_line(*words, *([form] if form else []))
    assert not _UNSAFE.search(printed)


_TRACE_QUESTIONS = (
    ("stat", "--json"),
    ("show", "--json"),
    ("show",),
    ("stat",),
    *(
        ("export", "--format", name, "-o", str(Path(_folder.name) / "output"))
        for name in ("chrome", "csv", "jsonl")
    ),
)


def trace(data: bytes) -> None:
    """A file that is taken for a trace of whichever format."""
    number, contents = one_of(len(_TRACE_QUESTIONS), data)
    verb, *options = _TRACE_QUESTIONS[number]
    status, printed = command_line("trace", verb, _written(contents), *options)
    assert not _UNSAFE.search(printed)
    if "--json" in options:
        for line in printed.splitlines():
            json.loads(line)
    elif status == 0 and "chrome" in options:
        json.loads(Path(options[-1]).read_text(encoding="utf-8"))


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
    number, line = one_of(len(COMMANDS), data)
    text = line.decode("utf-8", "replace")
    with contextlib.suppress(GdbhypError):
        parse_line(COMMANDS[number], f"hyp-{COMMANDS[number].name}", text)
    with contextlib.suppress(GdbhypError):
        parse_number(text)


def ignore_file(data: bytes) -> None:
    """What an audit of a dump is told to leave out."""
    core = Path(_folder.name) / "core"
    if not core.exists():
        core.write_bytes(samples(Path(_folder.name))["snapshot"])
    list(json_of("audit", str(core), "--ignore", _written(data)))


def maps(data: bytes) -> None:
    """Two files that are taken for maps."""
    first, _, second = data.partition(b"\n--\n")
    other = Path(_folder.name) / "other"
    other.write_bytes(b"{" + second)
    path = _written(b"{" + first)
    list(json_of("diff", path, str(other)))
    command_line("diff", path, str(other), "--verbose")


def register_map_file(data: bytes) -> None:
    """A file that maps a stub's registers, and what a stub's monitor prints."""
    with contextlib.suppress(GdbhypError):
        register_map.read(_written(data))
    value = register_map.printed_value(data.decode("utf-8", "replace"))
    assert value is None or 0 <= value < 1 << 64


def fleet_rows(data: bytes) -> None:
    """The rows of a fleet that was ended, from which it goes on."""
    assert all(isinstance(name, str) for name in fleet.answered(_written(data), "status"))


# ---- pieces of files -----------------------------------------------------------------------------


def elf_notes(data: bytes) -> None:
    """The notes of an ELF core."""
    found, end = notes.read_notes(data, big=bool(data[:1] == b"B"))
    assert 0 <= end <= len(data) + 3
    for note in found:
        with contextlib.suppress(GdbhypError):
            notes.cpu_registers(note.contents, "file")
        notes.vmcoreinfo(note.contents)


_COMPRESSIONS = ("zlib", "LZO", "snappy", "zstd")


def pages(data: bytes) -> None:
    """A compressed page of a kdump, by each compression: a page, or more by one byte, or damage."""
    number, contents = one_of(len(_COMPRESSIONS), data)
    with contextlib.suppress(ValueError):
        found = decompressor(_COMPRESSIONS[number])(contents, 4096)
        assert len(found) <= 4097


def program_file(data: bytes) -> None:
    """A file that is taken for a program with symbols."""
    with contextlib.suppress(GdbhypError):
        program.read_program(_written(data))


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


def _pages() -> list[bytes]:
    page = bytes(range(256)) * 16
    flags = enumerate((ZLIB, LZO, SNAPPY, ZSTD))
    return [bytes([number]) + compressor(flag)(page) for number, flag in flags]


def _programs() -> list[bytes]:
    part = Part(".text", 0x1000, 0x2000, executable=True)
    return [symbol_file([part], [Entry("start", 0x1000, 4, 0, code=True, local=False)])]


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
_MAP = (
    b'"start": "0x0", "end": "0x2000", "pa": "0x40000000", "input_space": "IPA", "output_space": "PA", "level": 3, '
    b'"page_size": 4096, "read": true, "write": true, "exec": "EL1", "el0_read": null, "el0_write": null, '
    b'"memory": "Normal", "shareability": "Inner", "contiguous": false, "access_flag": true, "constant": false, '
    b'"space": "Non-secure"}\n'
)
_IGNORED = b'trap-hole 0x40000000-0x40001000 "MDCR_EL2" # known\nvm-shared-memory # why\n'
_REGISTER_MAP = (
    b'{"names": {"HCR_EL2": "hcr"}, "monitor": {"VTTBR_EL2": "info reg"}, '
    b'"values": {"VTCR_EL2": "0x80023558"}}'
)
_FLEET = b'{"dump": "a.core", "question": "status", "status": 0, "answer": [], "error": null, "seconds": 1}\n'
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
    "tables": Target(tables, lambda: [random.Random(1).randbytes(4096), _stage2_page() * 2]),
    "dump": Target(dump, lambda: each(len(_OF_DUMPS) * len(_FORMS), _dumps()), 1 << 17),
    "trace": Target(trace, lambda: each(len(_TRACE_QUESTIONS), [_TRACE, *_files(*_TRACES)])),
    "trace_ring": Target(
        trace,
        lambda: each(len(_TRACE_QUESTIONS), [bytes(ring(begun)) for begun in (1, CAPACITY, CAPACITY + 5)]),
    ),
    "log": Target(log, lambda: _files("hyp-panic.log", "linux-oops.log", "xen-panic.log", "qemu-int.log")),
    "cases": Target(cases, lambda: [_CASE]),
    "registers_file": Target(registers_file, lambda: [b'{"HCR_EL2": "0x80000001", "CPSR": 9, "PC": "0"}']),
    "typed": Target(
        typed,
        lambda: each(
            len(COMMANDS), [b"--json $pc + 8", b"'a b' --last 3 --ipa 1-2 \\", b"start --source log"]
        ),
    ),
    "ignore_file": Target(ignore_file, lambda: [_IGNORED], 1 << 10),
    "maps": Target(maps, lambda: [_MAP + b"--\n" + _MAP, (b"{" + _MAP) * 3], 1 << 11),
    "register_map_file": Target(register_map_file, lambda: [_REGISTER_MAP, b"HCR_EL2 = 0x80000001"], 1 << 11),
    "fleet_rows": Target(fleet_rows, lambda: [_FLEET, _FLEET * 2 + b"{"], 1 << 11),
    "pages": Target(pages, _pages, 1 << 13),
    "program_file": Target(program_file, _programs, 1 << 13),
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
