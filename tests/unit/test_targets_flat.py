"""Readers keep one contract: exactly the bytes that were asked for, or the first address that is missing."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from gdbhyp.engine.machine import Reader
from gdbhyp.errors import BadInput, MemoryUnavailable
from gdbhyp.targets.flat import FlatMemory, Segment, open_image


class ReaderContract:
    """What every reader of physical memory must do; a subclass says how to make one of segments."""

    def reader(self, folder: Path, segments: dict[int, bytes]) -> Reader:
        raise NotImplementedError

    @pytest.fixture
    def memory(self, tmp_path: Path) -> Reader:
        #  0x1000      0x1008      0x1010   0x1014            0x3000   0x3003
        #    |  A: 8     |  B: 8     |  C: 4  |     nothing     |  D: 3  |
        return self.reader(
            tmp_path,
            {
                0x1000: b"AAAAaaaa",
                0x1008: b"BBBBbbbb",
                0x1010: b"CCcc",
                0x3000: b"DDd",
            },
        )

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
        read = memory.read(address, size)
        assert bytes(read) == data
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
        with pytest.raises(MemoryUnavailable) as caught:
            memory.read(address, size)
        error = caught.value
        assert (error.space, error.address, error.size, error.first_bad) == ("PA", address, size, first_bad)
        assert str(error).startswith(f"cannot read {size} bytes at PA {address:#x}: ")

    def test_any_part(self, tmp_path: Path) -> None:
        chance = random.Random(3)
        segments = {start: chance.randbytes(64) for start in (0x40, 0x80, 0x100, 0x140)}
        memory = self.reader(tmp_path, segments)
        known = {start + n: byte for start, data in segments.items() for n, byte in enumerate(data)}
        for _ in range(2000):
            address, size = chance.randrange(0x200), chance.randrange(1, 0x90)
            wanted = [known.get(a) for a in range(address, address + size)]
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


def test_no_image_has_no_memory() -> None:
    with pytest.raises(MemoryUnavailable):
        FlatMemory([]).read(0, 1)


def test_an_empty_file_is_no_memory(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    memory = FlatMemory([open_image(f"{tmp_path}/empty@0x1000"), Segment(0x1000, b"x")])
    assert memory.read(0x1000, 1) == b"x"
    with pytest.raises(MemoryUnavailable):
        FlatMemory([open_image(f"{tmp_path}/empty@0x1000")]).read(0x1000, 1)


@pytest.mark.parametrize(
    "segments",
    [
        [Segment(0x1000, bytes(16)), Segment(0x100F, bytes(1))],
        [Segment(0x1008, bytes(4)), Segment(0x1000, bytes(16))],
        [Segment(0x1000, bytes(4)), Segment(0x1000, bytes(4))],
        [Segment(0x1000, bytes(0x1000)), Segment(0x1010, bytes(4)), Segment(0x1800, bytes(4))],
    ],
)
def test_overlapping_images_are_refused(segments: list[Segment]) -> None:
    with pytest.raises(BadInput, match="two images overlap at PA 0x1"):
        FlatMemory(segments)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("ram.bin", "'ram.bin' is not FILE@ADDRESS"),
        ("@0x1000", "'@0x1000' is not FILE@ADDRESS"),
        ("ram.bin@", "is not a hexadecimal address"),
        ("ram.bin@zz", "'zz' in 'ram.bin@zz' is not a hexadecimal address"),
        ("ram.bin@0x100000000000000", "is not a physical address"),
        ("ram.bin@-1", "is not a physical address"),
        ("no/such/file@0x0", "cannot read no/such/file: No such file or directory"),
        ("/@0x0", "cannot read /: Is a directory"),
    ],
)
def test_what_is_no_image(text: str, sentence: str) -> None:
    with pytest.raises(BadInput) as caught:
        open_image(text)
    assert sentence in str(caught.value)
    assert caught.value.exit_status == 3


def test_a_name_may_hold_an_at_sign(tmp_path: Path) -> None:
    (tmp_path / "vm@home").write_bytes(b"x")
    assert FlatMemory([open_image(f"{tmp_path}/vm@home@40000000")]).read(0x4000_0000, 1) == b"x"
