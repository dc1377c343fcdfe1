"""Trace files: written, read again, and refused in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdbhyp.errors import BadInput
from gdbhyp.trace import files
from gdbhyp.trace.events import Event, Lost, Returned, State, Taken
from gdbhyp.trace.ring import Recording

HEADER = files.Header("break", host_calls={0xC600000C: "__kvm_vcpu_run"})
EVENTS: list[Event] = [
    Taken(
        0, 1, 0x2400, 1, 12, 0x5A000000, elr=0x1004, spsr=0x3C5, hcr=1, vttbr=3 << 48 | 0x1000, x0=0x84000000
    ),
    Returned(1, 1, 1, 0x1004, 20, vector_base=0x2000),
    Lost(2, 7, "test"),
    Taken(3, 0, 0x2480, 0),
    State(-1, 0, 2, 0x2000, elr=0x1000, hcr=1),
]

words = st.none() | st.integers(0, (1 << 64) - 1)
taken = st.builds(
    Taken,
    st.integers(0, 1 << 64),
    st.integers(0, 511),
    st.integers(0, (1 << 64) - 1),
    st.integers(0, 2),
    st.none() | st.integers(0, 1 << 64),
    *[words] * 9,
    st.none() | st.sampled_from(["host", "guest"]),
    st.none() | st.integers(0, 65535),
)


def read(path: Path) -> list[Event]:
    return [event for batch in files.open_trace(str(path)).batches for event in batch]


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    assert files.write(str(path), HEADER, EVENTS) == len(EVENTS)
    assert files.open_trace(str(path)).header == HEADER
    assert read(path) == EVENTS


@given(taken)
def test_line_round_trip(event: Taken) -> None:
    assert files.decode(files.encode(event)) == event


def test_dropped_events_are_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    files.write(str(path), files.Header("break", dropped=5), EVENTS)
    gap, *rest = read(path)
    assert isinstance(gap, Lost)
    assert gap.missing == 5
    assert rest == EVENTS


def test_cut_off_line_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    files.write(str(path), HEADER, EVENTS)
    path.write_bytes(path.read_bytes()[:-10])
    trace = files.open_trace(str(path))
    assert [event for batch in trace.batches for event in batch] == EVENTS[:4]
    assert "line 6 is cut off" in trace.notes[0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"hello\n", "is not a trace: neither"),
        (b"\x7fELF\0\0\0", "is not a trace: neither"),
        (b'{"format": "other"}\n', "its first line is not the header"),
        (b"{broken\n", "its first line is not the header"),
        (b'{"format": "gdbhyp-trace", "version": 9}\n', "has version 9"),
        (b'{"format": "gdbhyp-trace", "version": 1, "dropped": "x"}\n', "a header that is not valid"),
    ],
)
def test_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "bad"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=said):
        files.open_trace(str(path))


@pytest.mark.parametrize(
    "line",
    [
        b"[]\n",
        b"7\n",
        b"nonsense\n",
        b'{"event": "other"}\n',
        b'{"event": "exception", "seq": 0}\n',
        b'{"event": "exception", "seq": "0", "cpu": 0, "vector": "0x0", "from_el": 1}\n',
        b'{"event": "exception", "seq": 0, "cpu": 0, "vector": 5, "from_el": 1}\n',
        b'{"event": "exception", "seq": 0, "cpu": 0, "vector": "0xg", "from_el": 1}\n',
        b'{"event": "exception", "seq": 0, "cpu": 0, "vector": "0x10000000000000000", "from_el": 1}\n',
        b'{"event": "exception", "seq": 0, "cpu": 0, "vector": "0x0", "from_el": 1, "world": "moon"}\n',
        b'{"event": "exception", "seq": 0, "cpu": -1, "vector": "0x0", "from_el": 1}\n',
        b'{"event": "exception", "seq": 0, "cpu": 0, "vector": "0x0", "from_el": 4}\n',
    ],
)
def test_line_that_is_no_event(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "bad"
    path.write_bytes(files.encode_header(HEADER).encode() + b"\n" + line)
    with pytest.raises(BadInput, match="line 2, is not an event"):
        read(path)


def test_missing_and_unwritable(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot read"):
        files.open_trace(str(tmp_path / "none"))
    with pytest.raises(BadInput, match="cannot read"):
        files.open_trace(str(tmp_path))
    with pytest.raises(BadInput, match="cannot write"):
        files.write(str(tmp_path / "no" / "file"), HEADER, EVENTS)


def test_recording_is_bounded() -> None:
    recording = Recording("test", capacity=10)
    for seq in range(25):
        recording.add(Taken(seq, 0, 0x2400, 1, esr=0x5A000000))
    assert [event.seq for event, _ in recording.exceptions()] == list(range(15, 25))
    assert recording.overwritten == 15
    assert recording.missing_before == 15
    assert recording.statistics.report().exceptions == 25
