"""ELF cores: overlapping and missing memory, notes, CPUs, and what is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from unit.cores import core, note, prstatus

from gdbhyp.errors import BadInput, MemoryUnavailable, UsageError
from gdbhyp.targets.dump import open_dump

EL1H, EL2H = 0x3C5, 0x3C9


def test_overlap(tmp_path: Path) -> None:
    r"""A vmcore has the kernel's text twice; the segment that begins first holds.

    PA:   0x1000            0x1010      0x1018   0x1020
    A:      |AAAAAAAAAAAAAAAA|             |        |
    B:               |BBBBBBBBBBBBBBBB|             |
    C:          |CCCC|  (inside of A)               |
    D:                                 |DDDDDDDD|
    """
    memory = open_dump(
        core(
            tmp_path / "core",
            [
                (0x1000, b"A" * 16, 16),
                (0x1008, b"B" * 16, 16),
                (0x1004, b"C" * 4, 4),
                (0x1018, b"D" * 8, 8),
            ],
        )
    ).memory
    assert memory.read(0x1000, 32) == b"A" * 16 + b"B" * 8 + b"D" * 8


def test_what_was_left_out(tmp_path: Path) -> None:
    """A segment that is larger in memory than in the file: the rest exists, and is not in the dump."""
    memory = open_dump(core(tmp_path / "core", [(0x1000, bytes(8), 0x1000)])).memory
    with pytest.raises(MemoryUnavailable) as caught:
        memory.read(0x1004, 8)
    assert (caught.value.first_bad, caught.value.unsaved) == (0x1008, True)
    assert "left out of the dump" in str(caught.value)
    with pytest.raises(MemoryUnavailable) as caught:
        memory.read(0x2000, 8)
    assert not caught.value.unsaved


def test_cut_short(tmp_path: Path) -> None:
    """What a shorter file lost is not known, and the rest is there."""
    path = Path(core(tmp_path / "core", {0x1000: b"A" * 16, 0x2000: b"B" * 16}))
    path.write_bytes(path.read_bytes()[:-24])
    dump = open_dump(str(path))
    assert dump.problems == (
        f"{path} is cut short: 24 bytes of memory that it claims are missing from the file",
    )
    assert dump.memory.read(0x1000, 8) == b"A" * 8
    for address, first_bad in ((0x1000, 0x1008), (0x2000, 0x2000)):
        with pytest.raises(MemoryUnavailable) as caught:
            dump.memory.read(address, 16)
        assert (caught.value.first_bad, caught.value.unsaved) == (first_bad, True)


def test_cpus(tmp_path: Path) -> None:
    notes = prstatus(10, 0xFFFF_8000_0801_0000, 0x1000, EL2H) + prstatus(20, 0x40_0000, 0x2000, EL1H)
    dump = open_dump(core(tmp_path / "core", {0x1000: bytes(8)}, notes))
    first = dump.stop()
    second = dump.stop(1)
    assert [(cpu.cpu, cpu.el, cpu.register("PC"), cpu.register("X0")) for cpu in first.cpus()] == [
        (0, 2, 0xFFFF_8000_0801_0000, 10),
        (1, 1, 0x40_0000, 20),
    ]
    assert (second.cpu, second.register("SP"), second.register("X30")) == (1, 0x2000, 30)
    assert [cpu.cpu for cpu in second.cpus()] == [0, 1]
    assert first.count_cpus() == 2
    assert first.ram() == ((0x1000, 0x1008),)
    with pytest.raises(UsageError, match="has no CPU 2: it has 2"):
        dump.stop(2)


def test_given_registers_hold_for_the_chosen_cpu(tmp_path: Path) -> None:
    notes = prstatus(10, 0x1000, 0x1000, EL2H) + prstatus(20, 0x2000, 0x2000, EL1H)
    stop = open_dump(core(tmp_path / "core", {0x1000: bytes(8)}, notes)).stop(1, {"X0": 7, "HCR_EL2": 1})
    assert [cpu.optional("HCR_EL2") for cpu in stop.cpus()] == [None, 1]
    assert [cpu.register("X0") for cpu in stop.cpus()] == [10, 7]


def test_vmcoreinfo(tmp_path: Path) -> None:
    text = b"OSRELEASE=6.1.0\nPAGESIZE=4096\nSYMBOL(swapper_pg_dir)=ffff800009b4a000\nno equals sign\n"
    dump = open_dump(core(tmp_path / "core", {0x1000: bytes(8)}, note(b"VMCOREINFO", 0, text)))
    assert dump.vmcoreinfo == {
        "OSRELEASE": "6.1.0",
        "PAGESIZE": "4096",
        "SYMBOL(swapper_pg_dir)": "ffff800009b4a000",
    }


def test_an_empty_note_ends_a_cpus_notes(tmp_path: Path) -> None:
    """/proc/vmcore has room for the notes of each possible CPU, with zeros for those that never stopped."""
    dump = open_dump(core(tmp_path / "core", {0x1000: bytes(8)}, prstatus(1, 2, 3, EL1H) + bytes(400)))
    assert len(dump.cpus) == 1


@pytest.mark.parametrize(
    ("notes", "sentence"),
    [
        (
            struct.pack("<III", 5, 0xFFFF_FFFF, 1) + b"CORE\0\0\0\0",
            "what is at byte 0 of its notes is no note",
        ),
        (
            struct.pack("<III", 0xFFFF_FFFF, 4, 1) + b"CORE\0\0\0\0",
            "what is at byte 0 of its notes is no note",
        ),
        (note(b"CORE", 1, bytes(100)), "an NT_PRSTATUS note has 100 bytes"),
        (note(b"gdbhyp", 0x4859_5001, b"[" * 100_000), "its gdbhyp note cannot be read"),
        (note(b"gdbhyp", 0x4859_5001, b"{}"), "its gdbhyp note cannot be read (KeyError)"),
        (note(b"gdbhyp", 0x4859_5001, b"\xff"), "its gdbhyp note cannot be read"),
        (note(b"gdbhyp", 0x4859_5001, b'{"format": 9, "gdbhyp": "7"}'), "written by a later gdbhyp (7)"),
        (struct.pack("<III4s", 2, 0, 7, b"A") * (1 << 18), "of its notes is no note"),
    ],
)
def test_bad_notes(notes: bytes, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        open_dump(core(tmp_path / "core", {0x1000: bytes(8)}, notes))
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("at", "value", "sentence"),
    [
        (4, b"\x01", "not a 64-bit one"),
        (18, struct.pack("<H", 62), "an ELF file of x86-64, not of AArch64"),
        (32, struct.pack("<Q", (1 << 64) - 1), "no room for the 2 program headers"),
        (54, struct.pack("<H", 8), "no room for the 2 program headers"),
        (56, struct.pack("<H", 0xFFFE), "no room for the 65534 program headers"),
        (56, struct.pack("<H", 0), "has no memory in it"),
        (56, struct.pack("<H", 0xFFFF), "has no memory in it"),
        (64 + 32, struct.pack("<Q", 1 << 40), "its notes are 1099511627776 bytes"),
        (64 + 56 + 8, struct.pack("<Q", 1 << 63), "has no memory in it"),
        (64 + 56 + 24, struct.pack("<Q", (1 << 64) - 1), "has no memory in it"),
    ],
)
def test_bad_headers(at: int, value: bytes, sentence: str, tmp_path: Path) -> None:
    path = Path(core(tmp_path / "core", {0x1000: bytes(8)}))
    contents = bytearray(path.read_bytes())
    contents[at : at + len(value)] = value
    path.write_bytes(contents)
    with pytest.raises(BadInput) as caught:
        open_dump(str(path))
    assert sentence in str(caught.value)


def test_a_process_is_no_machine(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="the core of a process"):
        open_dump(core(tmp_path / "core", [(0, bytes(8), 8), (0, bytes(8), 8)]))


@pytest.mark.parametrize("sizes", [(0x240, 0x40), (0x40, 0x240)])
@pytest.mark.parametrize("surplus", [b"", b"\0.shstrtab\0"])
def test_notes_of_other_lengths_than_their_header_says(
    sizes: tuple[int, int], surplus: bytes, tmp_path: Path
) -> None:
    """QEMU sizes all CPUs' notes by CPU 0's SVE vector length: with others, memory is elsewhere.

    Newer versions put a string table behind memory, to which a section header leads as if notes had that size.
    """
    first, second = (note(b"LINUX", 0x405, bytes(size)) for size in sizes)
    written = prstatus(1, 2, 3, EL1H) + first + prstatus(4, 5, 6, EL1H) + second
    claimed = len(written) - len(second) + len(first)
    path = Path(core(tmp_path / "core", {0x1000: b"A" * 0x400, 0x2000: b"B" * 16}, written))
    contents = bytearray(path.read_bytes() + surplus)
    moved = claimed - len(written)
    struct.pack_into("<Q", contents, 64 + 32, claimed)
    for header in (1, 2):
        (offset,) = struct.unpack_from("<Q", contents, 64 + 56 * header + 8)
        struct.pack_into("<Q", contents, 64 + 56 * header + 8, offset + moved)
    if surplus:
        # The section header stands in an unused place: over the registers of CPU 0.
        struct.pack_into("<Q", contents, 40, 64 + 56 * 3 + 40)
        struct.pack_into("<HHH", contents, 58, 64, 1, 0)
        table = len(contents) - len(surplus) + moved
        struct.pack_into(
            "<IIQQQQIIQQ", contents, 64 + 56 * 3 + 40, 0, 3, 0, 0, table, len(surplus), 0, 0, 0, 0
        )
    path.write_bytes(contents)
    dump = open_dump(str(path))
    assert (dump.memory.read(0x1000, 0x400), dump.memory.read(0x2000, 16)) == (b"A" * 0x400, b"B" * 16)
    assert (len(dump.cpus), dump.problems) == (2, ())
    whole = Path(core(tmp_path / "whole", {0x1000: b"A" * 16}, written))
    assert open_dump(str(whole)).memory.read(0x1000, 16) == b"A" * 16
