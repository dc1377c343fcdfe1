"""Rings of the TCG plugin: whole, overwritten, half written, cut off, and not rings at all."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from gdbhyp.cli.main import main
from gdbhyp.errors import BadInput
from gdbhyp.trace import files
from gdbhyp.trace.events import Event, Lost, Maintained, Returned, Taken
from gdbhyp.trace.tcg_ring import LAYOUT, MAGIC, RECORD, Choice, Ring

CAPACITY = 1024
HEADER = 4096
TAKEN, RETURNED, TLBI = 1, 2, 3
ALL = 0x3FF
ESR = 0x24 << 26 | 0x07


def record(number: int, kind: int = TAKEN, has: int = ALL) -> bytes:
    return RECORD.pack(
        number, 1000 * number, 1, kind, 1, has,
        0x2400, ESR, 0x5008, 0x90, 0x9000, 0x3C5, 1, 3 << 48 | 0x1000, 0x2000, 1 << 19, 0xC6,
    )  # fmt: skip


def ring(begun: int, *, passed: int = 0, layout: int = LAYOUT, capacity: int = CAPACITY) -> bytearray:
    """A ring after ``begun`` records, the newest of which are in it."""
    identity = struct.pack("<8sII4QII", MAGIC, layout, RECORD.size, capacity, begun, passed, 5, 2, 1)
    memory = bytearray(identity.ljust(HEADER, b"\0") + bytes(CAPACITY * RECORD.size))
    for index in range(max(0, begun - CAPACITY), begun):
        put(memory, index, record(index + 1))
    return memory


def put(memory: bytearray, index: int, data: bytes) -> None:
    at = HEADER + index % CAPACITY * RECORD.size
    memory[at : at + len(data)] = data


def read(memory: bytes | bytearray, *, final: bool = False) -> list[Event]:
    return [event for batch in Ring(bytes(memory), "test").read(final=final) for event in batch]


def numbers(events: list[Event]) -> list[int]:
    return [event.seq for event in events if not isinstance(event, Lost)]


def losses(events: list[Event]) -> list[int]:
    return [event.missing for event in events if isinstance(event, Lost)]


def test_fields() -> None:
    memory = ring(3)
    put(memory, 1, record(2, RETURNED))
    put(memory, 2, record(3, TLBI))
    taken, returned, maintained = read(memory)
    vttbr, vtcr = 3 << 48 | 0x1000, 1 << 19
    assert taken == Taken(0, 1, 0x2400, 1, 1000, ESR, 0x5008, 0x90, 0x9000, 0x3C5, 1, vttbr, vtcr, 0xC6)
    assert returned == Returned(1, 1, 1, 0x9000, 2000, 1, vttbr, vtcr, 0x2000)
    assert maintained == Maintained(2, 1, 0x2400, ESR, 3000, 0xC6, 1, vttbr, vtcr)


def test_what_was_not_read_is_unknown() -> None:
    memory = ring(1)
    put(memory, 0, record(1, has=0))
    (event,) = read(memory)
    assert isinstance(event, Taken)
    assert (event.esr, event.far, event.hpfar, event.vtcr, event.x0) == (None,) * 5


@pytest.mark.parametrize("begun", [0, 1, CAPACITY - 1, CAPACITY])
def test_whole(begun: int) -> None:
    assert numbers(read(ring(begun))) == [*range(begun)]


@pytest.mark.parametrize("extra", [1, 7, CAPACITY, 5 * CAPACITY + 3])
def test_overwritten(extra: int) -> None:
    events = read(ring(CAPACITY + extra))
    assert losses(events) == [extra]
    assert numbers(events) == [*range(extra, CAPACITY + extra)]


def test_goes_on_where_it_was() -> None:
    memory = ring(10)
    reader = Ring(bytes(memory), "test")
    assert sum(len(batch) for batch in reader.read()) == 10
    reader._memory = bytes(ring(15))
    assert [event.seq for batch in reader.read() for event in batch] == [*range(10, 15)]


def test_record_that_is_being_written() -> None:
    memory = ring(10)
    put(memory, 6, struct.pack("<Q", 0))
    assert numbers(read(memory)) == [*range(6)]
    final = read(memory, final=True)
    assert (numbers(final), losses(final)) == ([0, 1, 2, 3, 4, 5, 7, 8, 9], [1])


@pytest.mark.parametrize("present", [0, 1, 5])
def test_cut_off_file(present: int) -> None:
    events = read(ring(10)[: HEADER + present * RECORD.size + 50])
    assert (numbers(events), sum(losses(events))) == ([*range(present)], 10 - present)


@pytest.mark.parametrize(
    ("memory", "said"),
    [
        (b"", "is not a ring"),
        (b"GDBHYPTR", "is not a ring"),
        (b"x" * 8192, "is not a ring"),
        (bytes(ring(0, layout=LAYOUT + 1)), "build the plugin again"),
        (bytes(ring(0, capacity=1000)), "not valid: a ring of 1000 records"),
        (bytes(ring(0, capacity=0)), "not valid"),
    ],
)
def test_not_a_ring(memory: bytes, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        Ring(memory, "test")


def test_random_bytes_do_no_harm() -> None:
    import random

    rng = random.Random(3)
    for _ in range(300):
        memory = ring(rng.randrange(3 * CAPACITY))
        for _ in range(rng.randrange(1, 40)):
            memory[rng.randrange(56, len(memory))] = rng.randrange(256)
        events = read(memory, final=True)
        begun = struct.unpack_from("<Q", memory, 24)[0]
        assert len(numbers(events)) + sum(losses(events)) == begun


def test_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "exits.ring"
    path.write_bytes(ring(CAPACITY + 6, passed=9))
    assert main(["trace", "stat", str(path), "--json"]) == 0
    stat = json.loads(capsys.readouterr().out)
    assert (stat["source"], stat["exceptions"], stat["dropped"]) == ("plugin", CAPACITY, 6)
    assert "left out 9" in stat["notes"][0]


def test_cut_off_header_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "exits.ring"
    path.write_bytes(ring(5)[:100])
    assert main(["trace", "stat", str(path)]) == 3
    assert "is not a ring" in capsys.readouterr().err


def test_maintenance_survives_a_trace_file(tmp_path: Path) -> None:
    event = Maintained(4, 1, 0x8000, 0xD50C8021, 7, 0x123, 1, 3 << 48)
    assert files.decode(files.encode(event)) == event


def test_choice() -> None:
    words = struct.unpack(
        "<4I2Q2I", Choice(vmid=3, cpus=frozenset((0, 2)), classes=frozenset((0x24,))).control(77)
    )
    assert words == (1, 1, 1, 3, 1 << 0x24, 0b101, 0b1110, 77)
