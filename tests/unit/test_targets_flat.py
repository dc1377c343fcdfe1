"""Raw images of physical memory: what is one, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from gdbhyp.errors import BadInput, MemoryUnavailable
from gdbhyp.targets.flat import FlatMemory, Segment, open_image


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
