"""A log passes through the annotator byte for byte, however it comes, and as it comes."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdbhyp.analyses import annotate
from gdbhyp.analyses.annotate import AnnotatedLog, Annotator, Decoded, Piece
from gdbhyp.render import stream
from gdbhyp.render.style import Style

COMMAND = [sys.executable, "-m", "gdbhyp.cli.main", "annotate"]
PANIC = b"PS:600003c9 PC:0000f418011a3750 ESR:00000000f2000800\nFAR:ffff000439200000 HPFAR:0000000004792000\n"

_HEX = st.integers(0, (1 << 64) - 1)
_FORMATS = (
    *("PS:{:08x} PC:{:016x} ESR:{:016x}", "FAR:{:016x} HPFAR:{:016x} PAR:{:016x}", "VCPU:{:016x}"),
    *("Unable to handle kernel paging request at virtual address {:016x}", "  ESR = {:#018x}"),
    *("Internal error: Oops: {:016x} [#1] SMP", "SError Interrupt on CPU0, code {:#018x} -- SError"),
    *("(XEN)    ESR_EL2: {:016x}", "(XEN)  HPFAR_EL2: {:016x}", "(XEN)    FAR_EL2: {:016x}", "esr: {:#x}"),
    *("x0             = {:#018x}", "spsr_el3       = {:#018x}", "esr_el3        = {:#018x}"),
    *("Taking exception 4 [Data Abort] on CPU 0", "Taking exception 5 [IRQ] on CPU 1", "...from EL1 to EL2"),
    *("...from EL0 to EL2", "...with ESR 0x24/{:#x}", "...with FAR {:#x}", "...with SPSR {:#x}"),
    *(
        "...with ELR {:#x}",
        "...to EL2 PC {:#x} PSTATE 0x3c9",
        "...handled as PSCI call",
        "ESR_EL1: {:#x} FAR: {:#x}",
    ),
)


@st.composite
def _log_line(draw: st.DrawFn) -> bytes:
    text = draw(st.sampled_from(_FORMATS))
    return text.format(*(draw(_HEX) for _ in range(text.count("{")))).encode()


_JUNK = st.binary(max_size=40)
_ENDING = st.sampled_from([b"\n", b"\r\n", b"\n\n", b"", b" "])
LOGS = st.lists(st.tuples(_JUNK | st.just(b""), _log_line() | _JUNK, _ENDING), max_size=30).map(
    lambda lines: b"".join(b"".join(line) for line in lines)
)


def pieces(log: bytes, cuts: list[int], *, only: bool = False) -> list[Piece]:
    annotator = Annotator(only=only)
    places = [0, *sorted(cut % (len(log) + 1) for cut in cuts), len(log)]
    made = [piece for begin, end in pairwise(places) for piece in annotator.feed(log[begin:end])]
    return [*made, *annotator.finish()]


def passed(made: list[Piece]) -> bytes:
    return b"".join(piece for piece in made if isinstance(piece, bytes))


def printed(made: list[Piece]) -> bytes:
    out = io.BytesIO()
    stream.write(AnnotatedLog(iter([made])), out, form="text", style=Style())
    return out.getvalue()


@given(LOGS, st.lists(st.integers(0, 5000), max_size=5))
def test_identity(log: bytes, cuts: list[int]) -> None:
    assert passed(pieces(log, cuts)) == log


@given(st.binary(max_size=3000))
def test_identity_of_anything(log: bytes) -> None:
    assert passed(pieces(log, [1000])) == log


@given(LOGS, st.lists(st.integers(0, 5000), max_size=5))
def test_cuts_do_not_matter(log: bytes, cuts: list[int]) -> None:
    assert printed(pieces(log, cuts)) == printed(pieces(log, []))


@given(LOGS)
def test_places(log: bytes) -> None:
    for piece in pieces(log, []):
        if isinstance(piece, Decoded):
            assert log[piece.found.offset :].startswith(piece.found.text.encode())
            assert piece.found.line == log[: piece.found.offset].count(b"\n") + 1


@given(LOGS)
def test_json_is_lines_of_objects(log: bytes) -> None:
    out, made = io.BytesIO(), pieces(log, [])
    stream.write(AnnotatedLog(iter([made])), out, form="json", style=Style())
    rows = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [row["syndrome"]["esr"] for row in rows] == [
        hex(piece.found.esr) for piece in made if isinstance(piece, Decoded)
    ]


@given(LOGS)
def test_added_lines_stand_alone(log: bytes) -> None:
    out = printed(pieces(log, []))
    kept = [line for line in out.splitlines(keepends=True) if not line.startswith(b"    => ")]
    # An annotation of a last line that has no end needs one before it.
    assert b"".join(kept) in (log, log + b"\n")


@given(LOGS)
def test_only_is_a_part(log: bytes) -> None:
    lines = iter(log.splitlines(keepends=True))
    made = pieces(log, [], only=True)
    assert all(part in lines for part in passed(made).splitlines(keepends=True))
    assert [p for p in made if isinstance(p, Decoded)] == [
        p for p in pieces(log, []) if isinstance(p, Decoded)
    ]


@given(LOGS, st.lists(st.integers(0, 5000), max_size=20), st.booleans())
def test_long_lines(log: bytes, cuts: list[int], only: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(annotate, "LONGEST_LINE", 64)
        made = pieces(log, cuts, only=only)
    assert only or passed(made) == log


def test_a_line_of_megabytes() -> None:
    line = b"ESR_EL2: 0x96000045 " + b"\xff\x00\x1b[31m" * (1 << 19) + b" ESR_EL2: 0x96000004\n"
    log = line + b"esr: 0x5a000000\n"
    made = pieces(log, list(range(0, len(log), 1 << 16)))
    assert passed(made) == log
    found = [(each.found.line, each.found.esr) for each in made if isinstance(each, Decoded)]
    assert found == [(1, 0x96000045), (2, 0x5A000000)]
    assert max(len(piece) for piece in made if isinstance(piece, bytes)) <= annotate.LONGEST_LINE + (1 << 16)


def test_what_could_be_slow() -> None:
    for log in (
        b"ESR" + b" " * (1 << 20),
        b"ESR" * (1 << 18),
        b"Internal error: " * (1 << 16),
        b"x0 = " * (1 << 17),
    ):
        assert passed(pieces(log, [])) == log


def test_line_endings_are_followed() -> None:
    assert printed(pieces(b"esr: 0x5a000000\r\n", [])).count(b"\r\n") == 3
    assert printed(pieces(b"esr: 0x5a000000", [])).startswith(b"esr: 0x5a000000\n    => ESR")


def test_lines_come_out_as_they_go_in() -> None:
    with subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"hello\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"hello\n"
        # The rest of the panic does not come, nor does the end of the log: what is known is said all the same.
        process.stdin.write(PANIC)
        process.stdin.flush()
        assert [process.stdout.readline() for _ in range(3)][2].startswith(
            b"    => ESR_EL2 0xf2000800: EL2 brk"
        )
        process.stdin.close()
        process.stdout.read()
    assert process.returncode == 0


def test_a_reader_that_has_seen_enough(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(PANIC * 20000)
    with subprocess.Popen([*COMMAND, str(log)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"PS:")
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_interrupted() -> None:
    """Ctrl-C as at a terminal, also where these tests run in a shell's background, which ignores it."""
    with subprocess.Popen(
        COMMAND,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b"hello\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"hello\n"
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        assert process.stderr.read() == b""
