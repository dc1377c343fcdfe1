"""Readers keep one contract: exactly the bytes that were asked for, or the first address that is missing."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from unit.cores import core
from unit.kdumps import BLOCK, flatten, kdump, lime

from gdbhyp.engine.machine import Reader
from gdbhyp.errors import MemoryUnavailable
from gdbhyp.targets.dump import Joined, open_dump
from gdbhyp.targets.flat import FlatMemory, Segment, open_image


class ReaderContract:
    """What every reader of physical memory must do; a subclass says how to make one of segments.

    A reader of whole pages has pages of ``scale`` bytes where the others have bytes.
    """

    scale = 1

    def reader(self, folder: Path, segments: dict[int, bytes]) -> Reader:
        raise NotImplementedError

    def scaled(self, segments: dict[int, bytes]) -> dict[int, bytes]:
        return {start * self.scale: self.stretched(data) for start, data in segments.items()}

    def stretched(self, data: bytes) -> bytes:
        return b"".join(bytes((byte,)) * self.scale for byte in data)

    @pytest.fixture
    def memory(self, tmp_path: Path) -> Reader:
        #  0x1000      0x1008      0x1010   0x1014            0x3000   0x3003
        #    |  A: 8     |  B: 8     |  C: 4  |     nothing     |  D: 3  |
        segments = {0x1000: b"AAAAaaaa", 0x1008: b"BBBBbbbb", 0x1010: b"CCcc", 0x3000: b"DDd"}
        return self.reader(tmp_path, self.scaled(segments))

    @pytest.mark.parametrize(
        ("address", "size", "data"),
        [
            (0x1000, 8, b"AAAAaaaa"),
            (0x1001, 3, b"AAA"),
            (0x1007, 1, b"a"),
            (0x1003, 8, b"AaaaaBBB"),
            (0x1004, 16, b"aaaaBBBBbbbbCCcc"),
            (0x1000, 20, b"AAAAaaaaBBBBbbbbCCcc"),
            (0x3000, 3, b"DDd"),
            (0x3002, 1, b"d"),
        ],
    )
    def test_exactly_what_was_asked_for(self, memory: Reader, address: int, size: int, data: bytes) -> None:
        read = memory.read(address * self.scale, size * self.scale)
        assert read == self.stretched(data)
        assert isinstance(read, bytes)

    @pytest.mark.parametrize(
        ("address", "size", "first_bad"),
        [
            (0x0, 8, 0x0),
            (0xFFF, 1, 0xFFF),
            (0xFF8, 16, 0xFF8),
            (0x1010, 5, 0x1014),
            (0x1000, 0x100, 0x1014),
            (0x1014, 8, 0x1014),
            (0x2FFF, 4, 0x2FFF),
            (0x3000, 4, 0x3003),
            (0x3003, 1, 0x3003),
            (0x1010, 0x3000, 0x1014),
            (1 << 52, 8, 1 << 52),
            ((1 << 64) - 8, 8, (1 << 64) - 8),
        ],
    )
    def test_the_first_missing_address(self, memory: Reader, address: int, size: int, first_bad: int) -> None:
        address, size, first_bad = (number * self.scale for number in (address, size, first_bad))
        with pytest.raises(MemoryUnavailable) as caught:
            memory.read(address, size)
        error = caught.value
        assert (error.space, error.address, error.size, error.first_bad) == ("PA", address, size, first_bad)
        assert not error.unsaved
        assert str(error).startswith(f"cannot read {size} bytes at PA {address:#x}: ")

    def test_any_part(self, tmp_path: Path) -> None:
        chance = random.Random(3)
        segments = {start: chance.randbytes(64) for start in (0x40, 0x80, 0x100, 0x140)}
        memory = self.reader(tmp_path, self.scaled(segments))
        known = {start + n: byte for start, data in segments.items() for n, byte in enumerate(data)}
        for _ in range(2000 if self.scale == 1 else 50):
            address, size = chance.randrange(0x200 * self.scale), chance.randrange(1, 0x90 * self.scale)
            wanted = [known.get(a // self.scale) for a in range(address, address + size)]
            if None in wanted:
                with pytest.raises(MemoryUnavailable) as caught:
                    memory.read(address, size)
                assert caught.value.first_bad == address + wanted.index(None)
            else:
                assert list(memory.read(address, size)) == wanted


class TestSegments(ReaderContract):
    def reader(self, folder: Path, segments: dict[int, bytes]) -> Reader:
        return FlatMemory([Segment(start, data) for start, data in segments.items()])


class TestImages(ReaderContract):
    def reader(self, folder: Path, segments: dict[int, bytes]) -> Reader:
        for start, data in segments.items():
            (folder / f"{start:x}.bin").write_bytes(data)
        return FlatMemory([open_image(f"{folder}/{start:x}.bin@{start:#x}") for start in segments])


class TestElf(ReaderContract):
    def reader(self, folder: Path, segments: dict[int, bytes]) -> Reader:
        return open_dump(core(folder / "core", segments)).memory


class TestSeveralFiles(ReaderContract):
    """Each segment in a file of its own: the first an ELF core, the others raw images."""

    def reader(self, folder: Path, segments: dict[int, bytes]) -> Reader:
        (first, data), *others = segments.items()
        for start, contents in others:
            (folder / f"{start:x}.bin").write_bytes(contents)
        images = [f"{folder}/{start:x}.bin@{start:#x}" for start, _ in others]
        return open_dump(core(folder / "core", {first: data}), images).memory


class TestJoined(ReaderContract):
    """Readers that overlap, with the same bytes."""

    def reader(self, folder: Path, segments: dict[int, bytes]) -> Reader:
        whole = FlatMemory([Segment(start, data) for start, data in segments.items()])
        parts = [FlatMemory([Segment(start, data[: 1 + len(data) // 2])]) for start, data in segments.items()]
        return Joined([*parts, whole])


class TestKdump(ReaderContract):
    scale = BLOCK

    def reader(self, folder: Path, segments: dict[int, bytes]) -> Reader:
        return open_dump(kdump(folder / "kdump", segments)).memory


class TestFlattened(ReaderContract):
    """In pieces of 1000 bytes in any order, with a first version of some of them before."""

    scale = BLOCK

    def reader(self, folder: Path, segments: dict[int, bytes]) -> Reader:
        whole = Path(kdump(folder / "kdump", segments)).read_bytes()
        pieces = [(at, whole[at : at + 1000]) for at in range(0, len(whole), 1000)]
        random.Random(4).shuffle(pieces)
        early = [(at + 100, b"wrong" * 300) for at, _ in pieces[::7] if at + 1600 < len(whole)]
        return open_dump(flatten(folder / "flat", [*early, *pieces])).memory


class TestLime(ReaderContract):
    def reader(self, folder: Path, segments: dict[int, bytes]) -> Reader:
        return open_dump(lime(folder / "lime", segments)).memory
