"""kdump-compressed dumps: each compression, pages that are not there, several files, and what is refused."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

import pytest
from unit.cores import prstatus
from unit.kdumps import BLOCK, LZO, SNAPPY, ZLIB, ZSTD, flatten, kdump, lime

from gdbhyp.errors import BadInput, MemoryUnavailable
from gdbhyp.targets.dump import open_dump
from gdbhyp.targets.flattened import Flattened

NAMES = {ZLIB: "zlib", LZO: "LZO", SNAPPY: "snappy", ZSTD: "zstd"}
BASE = 0x4000 * BLOCK


def words(count: int) -> bytes:
    """Return pages that compress, and one of noise, which does not."""
    return b"".join(struct.pack("<I", n % 97) for n in range(count * BLOCK // 4)) + random.Random(
        1
    ).randbytes(BLOCK)


@pytest.mark.parametrize("flag", NAMES)
def test_compressions(flag: int, tmp_path: Path) -> None:
    data = words(5)
    dump = open_dump(kdump(tmp_path / "kdump", {BASE: data}, flag=flag))
    assert dump.form == f"kdump-compressed ({NAMES[flag]})"
    assert dump.memory.read(BASE, len(data)) == data
    assert dump.memory.read(BASE + BLOCK - 4, 8) == data[BLOCK - 4 : BLOCK + 4]
    assert dump.ram == ((BASE, BASE + len(data)),)


def test_ranges_over_many_pieces_of_the_bitmap(tmp_path: Path) -> None:
    """Page frames are numbered right across the pieces in which bits are counted."""
    far = 70_000 * BLOCK
    segments = {0: b"a" * BLOCK, 3 * BLOCK: b"b" * BLOCK, far: b"c" * 2 * BLOCK}
    dump = open_dump(kdump(tmp_path / "kdump", segments))
    assert dump.ranges == ((0, BLOCK), (3 * BLOCK, 4 * BLOCK), (far, far + 2 * BLOCK))
    assert [dump.memory.read(at, 1) for at in (0, 3 * BLOCK, far, far + BLOCK)] == [b"a", b"b", b"c", b"c"]


def test_cpus(tmp_path: Path) -> None:
    notes = prstatus(1, 0x1234, 3, 0x3C5) + prstatus(2, 0x5678, 3, 0x3C9)
    dump = open_dump(kdump(tmp_path / "kdump", {BASE: bytes(BLOCK)}, notes=notes))
    assert [cpu["PC"] for cpu in dump.cpus] == [0x1234, 0x5678]


def test_filtered(tmp_path: Path) -> None:
    """A page that makedumpfile left out exists: what was in it is not known."""
    left_out = frozenset({BASE // BLOCK + 1})
    dump = open_dump(kdump(tmp_path / "kdump", {BASE: words(3)}, left_out=left_out))
    assert (dump.held, dump.ranges) == (3 * BLOCK, ((BASE, BASE + 4 * BLOCK),))
    memory = dump.memory
    assert memory.read(BASE + 2 * BLOCK, 4) == words(3)[2 * BLOCK :][:4]
    with pytest.raises(MemoryUnavailable, match="left out of the dump") as caught:
        memory.read(BASE, 2 * BLOCK)
    assert (caught.value.first_bad, caught.value.unsaved) == (BASE + BLOCK, True)


def test_split(tmp_path: Path) -> None:
    """Each file of a split dump has the bitmaps of all, and the pages of a part; together they are one machine."""
    data = words(7)
    first = BASE // BLOCK
    parts = [(first, first + 3), (first + 3, first + 8)]
    names = [kdump(tmp_path / str(part[0]), {BASE: data}, split=part) for part in parts]
    assert open_dump(names[0], names[1:]).memory.read(BASE, len(data)) == data
    assert [open_dump(name).held for name in names] == [3 * BLOCK, 5 * BLOCK]
    with pytest.raises(MemoryUnavailable, match="another file of this dump"):
        open_dump(names[0]).memory.read(BASE, len(data))


def test_incomplete(tmp_path: Path) -> None:
    path = Path(kdump(tmp_path / "kdump", {BASE: words(7)}, status=ZLIB | 8))
    path.write_bytes(path.read_bytes()[: -BLOCK - 10])
    dump = open_dump(str(path))
    assert "is incomplete" in dump.problems[0]
    with pytest.raises(MemoryUnavailable, match="incomplete there"):
        dump.memory.read(BASE + 6 * BLOCK, 8)
    assert dump.memory.read(BASE, 8) == words(7)[:8]


@pytest.mark.parametrize("flag", NAMES)
def test_bombs(flag: int, tmp_path: Path) -> None:
    """A page that becomes more than a page, or that is damaged, is said to be damaged."""
    from unit.kdumps import compressor

    bomb = compressor(flag)(bytes(1 << 20))[: 2 * BLOCK]
    for contents in (bomb, b"\xff" * 64, b""):
        path = Path(kdump(tmp_path / "kdump", {BASE: bytes(BLOCK)}, flag=flag))
        raw = bytearray(path.read_bytes())
        at = 4 * BLOCK + 2 * BLOCK * (BASE // BLOCK // (8 * BLOCK))
        offset, _, used, _ = struct.unpack_from("<QIIQ", raw, at)
        assert used == flag
        struct.pack_into("<QIIQ", raw, at, offset, len(contents), flag, 0)
        path.write_bytes(raw[:offset] + contents)
        with pytest.raises(MemoryUnavailable, match="damaged in the dump") as caught:
            open_dump(str(path)).memory.read(BASE, 8)
        assert caught.value.unsaved


@pytest.mark.parametrize(
    ("at", "value", "sentence"),
    [
        (428, struct.pack("<I", 0), "blocks have 0 bytes"),
        (428, struct.pack("<I", 1000), "blocks have 1000 bytes"),
        (428, struct.pack("<I", 1 << 17), "cut off inside its headers"),
        (432, struct.pack("<I", 0xFFFF_FFFF), "no room for"),
        (436, struct.pack("<I", 0xFFFF_FFFF), "no room for the 4294967295 blocks"),
        (BLOCK + 96, struct.pack("<Q", 0), "no room for"),
    ],
)
def test_bad_headers(at: int, value: bytes, sentence: str, tmp_path: Path) -> None:
    path = Path(kdump(tmp_path / "kdump", {BASE: bytes(BLOCK)}))
    raw = bytearray(path.read_bytes())
    raw[at : at + len(value)] = value
    path.write_bytes(raw)
    with pytest.raises(BadInput) as caught:
        open_dump(str(path))
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("pieces", "sentence"),
    [
        ([], "not of a kdump-compressed dump"),
        ([(0, b"\x7fELF" + bytes(100))], "not of a kdump-compressed dump"),
        ([(-5, b"KDUMP   ")], "a piece of 8 bytes for offset -5"),
        ([(0, b"")], "a piece of 0 bytes"),
        ([(0, b"KDUMP   ")], "cut off inside its headers"),
    ],
)
def test_bad_pieces(pieces: list[tuple[int, bytes]], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        open_dump(flatten(tmp_path / "flat", pieces))
    assert sentence in str(caught.value)


def test_pieces_overwrite(tmp_path: Path) -> None:
    """Any pieces over each other are what writing them one after the other makes."""
    chance = random.Random(5)
    for _ in range(200):
        wanted = bytearray()
        pieces = []
        for _ in range(chance.randrange(1, 12)):
            offset, data = chance.randrange(60), chance.randbytes(chance.randrange(1, 30))
            pieces.append((offset, data))
            wanted.extend(bytes(max(0, offset + len(data) - len(wanted))))
            wanted[offset : offset + len(data)] = data
        path = tmp_path / "flat"
        made = Flattened(Path(flatten(path, pieces)).read_bytes(), path)
        assert made.at(0, 1000) == wanted
        start, size = chance.randrange(len(wanted)), chance.randrange(1, 40)
        assert made.at(start, size) == wanted[start : start + size]


def test_lime_cut_short(tmp_path: Path) -> None:
    path = Path(lime(tmp_path / "lime", {0x1000: b"A" * 16, 0x2000: b"B" * 16}))
    path.write_bytes(path.read_bytes()[:-4])
    dump = open_dump(str(path))
    assert "4 bytes of memory" in dump.problems[0]
    with pytest.raises(MemoryUnavailable) as caught:
        dump.memory.read(0x2008, 8)
    assert (caught.value.first_bad, caught.value.unsaved) == (0x200C, True)


@pytest.mark.parametrize("tail", [b"EMiL", b"EMiL" + bytes(28), b"\xff" * 32])
def test_bad_lime(tail: bytes, tmp_path: Path) -> None:
    path = Path(lime(tmp_path / "lime", {0x1000: b"A" * 16}))
    path.write_bytes(path.read_bytes() + tail)
    with pytest.raises(BadInput, match="is damaged"):
        open_dump(str(path))


def test_zlib_is_bounded() -> None:
    from gdbhyp.targets.compression import decompressor

    assert len(decompressor("zlib")(zlib.compress(bytes(1 << 24)), 4096)) == 4097
