"""No file crashes gdbhyp, or keeps it for long: small dumps of each form, damaged in every way.

Whatever is in a file, the command line answers with a table and what is missing, or with one sentence and status 3.
"""

from __future__ import annotations

import struct
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from unit.cores import core, note, prstatus
from unit.kdumps import flatten, kdump, lime

from gdbhyp.cli.main import main
from gdbhyp.targets import notes, snapshot

BASE = 0x4000_0000
VTCR = 0x8002_3558
ROOTS = ("--stage2", "--vttbr", hex(BASE), "--vtcr", hex(VTCR), "--json")
_SECONDS, _BYTES = 5.0, 64 << 20


def _tables() -> bytes:
    """Stage-2 tables in eight pages: two levels, with a block, and the rest empty."""
    memory = bytearray(0x8000)
    struct.pack_into("<Q", memory, 8 * 2, BASE + 0x2000 | 3)
    struct.pack_into("<Q", memory, 0x2000, 0x9000_07FD)
    return bytes(memory)


def _notes() -> bytes:
    said = snapshot.Snapshot(
        gdbhyp="0",
        created="2026-01-01T00:00:00Z",
        versions={"QEMU": "7.2"},
        contents="all",
        selected=0,
        cpus=({"HCR_EL2": 1, "PC": 4},),
        ram=((BASE, BASE + 0x8000),),
        symbols={4: "start+4"},
    )
    own = note(b"gdbhyp", snapshot.NOTE_TYPE, snapshot.encode(said))
    return prstatus(1, 2, 3, 0x3C5) + note(b"VMCOREINFO", 0, b"PAGESIZE=4096\nOSRELEASE=6.1\n") + own


def samples(folder: Path) -> dict[str, bytes]:
    """Return a small dump of each form."""
    memory = {BASE: _tables()}
    names = {
        "core": core(folder / "core", memory, prstatus(1, 2, 3, 0x3C5)),
        "snapshot": core(folder / "snapshot", memory, _notes()),
        "kdump": kdump(folder / "kdump", memory, notes=prstatus(1, 2, 3, 0x3C5)),
        "lime": lime(folder / "lime", memory),
    }
    whole = Path(names["kdump"]).read_bytes()
    pieces = [(at, whole[at : at + 3000]) for at in range(0, len(whole), 3000)]
    names["flattened"] = flatten(folder / "flattened", pieces)
    return {form: Path(name).read_bytes() for form, name in names.items()}


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return samples(tmp_path_factory.mktemp("samples"))


def check(contents: bytes, folder: Path, capsys: pytest.CaptureFixture[str]) -> int:
    """Ask a file with these contents in several ways; return the worst status."""
    path = folder / "dump"
    path.write_bytes(contents)
    statuses = []
    for words in (("map", *ROOTS), ("walk", "0x80000000", *ROOTS), ("status", "--json")):
        capsys.readouterr()
        tracemalloc.start()
        started = time.process_time()
        status = main([words[0], str(path), *words[1:]])
        spent, (_, most) = time.process_time() - started, tracemalloc.get_traced_memory()
        tracemalloc.stop()
        shown = capsys.readouterr()
        assert status in (0, 1, 3), shown.err
        assert spent < _SECONDS
        assert most < _BYTES
        if status == 3:
            assert len(shown.err.splitlines()) == 1
            assert shown.out == ""
        statuses.append(status)
    return max(statuses)


FORMS = ("core", "snapshot", "kdump", "flattened", "lime")


@pytest.mark.parametrize("form", FORMS)
def test_whole(
    form: str, dumps: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The samples themselves are read: otherwise the tests below would test nothing."""
    path = tmp_path / "dump"
    path.write_bytes(dumps[form])
    assert main(["map", str(path), *ROOTS]) == 0
    assert '"pa": "0x90000000"' in capsys.readouterr().out


@pytest.mark.parametrize("form", FORMS)
def test_truncated(
    form: str, dumps: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cut at every boundary of a structure and next to it: headers, notes, bitmaps, descriptors, pages."""
    whole = dumps[form]
    edges = {0, 1, 64, 120, 176, 464, 1024, 4096, 4112, len(whole)} | set(range(0, len(whole), 4093))
    for edge in sorted(edges):
        for length in (edge - 1, edge, edge + 1):
            if 0 <= length <= len(whole):
                check(whole[:length], tmp_path, capsys)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [512, 4096, 8192])
def test_all_ones(
    form: str, size: int, dumps: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = dumps[form]
    damaged = whole[:16] + b"\xff" * size + whole[16 + size :]
    assert check(damaged, tmp_path, capsys) == 3


NUMBERS = st.sampled_from(
    [0, 1, 7, 0x7F, 0xFF, 0xFFFF, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 63) - 1, (1 << 64) - 1]
)
DAMAGE = st.lists(
    st.one_of(
        st.tuples(st.just("word"), st.integers(0, 6000), NUMBERS),
        st.tuples(st.just("byte"), st.integers(0, 6000), st.integers(0, 255)),
        st.tuples(st.just("cut"), st.integers(0, 40_000), st.just(0)),
        st.tuples(st.just("repeat"), st.integers(0, 2000), st.integers(1, 400)),
        st.tuples(st.just("drop"), st.integers(0, 6000), st.integers(1, 200)),
    ),
    min_size=1,
    max_size=6,
)


def damaged(contents: bytes, damage: list[tuple[str, int, int]]) -> bytes:
    """Apply damage: a word or byte overwritten, the end cut off, bytes repeated or dropped."""
    found = bytearray(contents)
    for kind, at, value in damage:
        if kind == "word" and at + 8 <= len(found):
            struct.pack_into("<Q", found, at, value)
        elif kind == "byte" and at < len(found):
            found[at] = value
        elif kind == "cut":
            del found[at:]
        elif kind == "repeat":
            found[at:at] = found[at : at + value] * 3
        elif kind == "drop":
            del found[at : at + value]
    return bytes(found)


@pytest.mark.parametrize("form", FORMS)
@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(damage=DAMAGE)
@example(damage=[("word", 32, (1 << 64) - 1)])
@example(damage=[("word", 56, (1 << 64) - 1)])
def test_any_damage(
    form: str,
    damage: list[tuple[str, int, int]],
    dumps: dict[str, bytes],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    check(damaged(dumps[form], damage), tmp_path, capsys)


def test_many_overlapping_segments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sixty thousand segments, all of the same bytes, at addresses that overlap."""
    count = 60_000
    headers = b"".join(
        struct.pack("<IIQQQQQQ", 1, 7, 64, 0, BASE + 16 * (n % 1000), 1 << 20, (1 << 64) - 1, 0)
        for n in range(count)
    )
    ident = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        *(4, 183, 1, 0, 64, 0, 0, 64, 56, count, 0, 0, 0),
    )
    check(ident + headers, tmp_path, capsys)


def test_many_notes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = note(b"A", 7, b"")
    path = Path(core(tmp_path / "core", {BASE: _tables()}, small * (notes.MOST_NOTES + 10)))
    assert check(path.read_bytes(), tmp_path, capsys) == 3
