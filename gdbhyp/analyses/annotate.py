"""A log with every syndrome in it decoded: bytes in, the same bytes out, and between them what they say.

The stream is never held longer than a line (of at most 1 MiB), and nothing of it is changed: what is added is made
from numbers alone, so that nothing that a log contains can reach a terminal through it.
"""

from __future__ import annotations

import contextlib
import io
import select
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import IO, Any, ClassVar, TypeAlias

from gdbhyp.analyses.esr import EsrReport, explain
from gdbhyp.analyses.logs import Found, Interesting
from gdbhyp.analyses.logs_combine import Combiner, Step
from gdbhyp.arch.spaces import VA, Word
from gdbhyp.arch.syndrome import Syndrome, SyndromeContext, decode_esr
from gdbhyp.errors import BadInput

LONGEST_LINE = 1 << 20
"""Bytes of a line that are looked at; what is behind them passes through."""

_READ = 1 << 16
# So long a live stream may pause within a crash before what is known of it is said.
_PAUSE = 0.25


@dataclass(frozen=True)
class Annotation:
    """A syndrome that a log names: the ``text`` at byte ``offset`` of the stream, in ``line`` (from 1).

    ``source`` is who printed it: "linux", "kvm", "kvm-hyp-panic", "xen", "qemu", "tf-a", "hafnium" or "firmware".
    The registers are those printed with it, None where they were not; ``notes`` say which of them do not belong to
    the exception, and what is assumed.
    """

    line: int
    offset: int
    text: str
    source: str
    far: VA | None
    hpfar: Word | None
    elr: VA | None
    spsr: Word | None
    par: Word | None
    notes: tuple[str, ...]
    syndrome: EsrReport


Piece: TypeAlias = "bytes | Annotation"


@dataclass(frozen=True)
class AnnotatedLog:
    """A log as it comes, a batch a read: parts of it, and the annotations that follow them.

    The parts of all batches, without the annotations, are the log, or with ``only`` those lines of it that belong to
    a syndrome.
    """

    kind: ClassVar[str] = "annotate"
    binary: ClassVar[bool] = True

    batches: Iterator[list[Piece]]


def annotate(path: str, *, only: bool = False) -> AnnotatedLog:
    """Annotate the log ``path``, "-" for standard input.

    :raises BadInput: if it cannot be read, also later while the batches are made.
    """
    return AnnotatedLog(_batches(_open(path), path, only))


def _open(path: str) -> IO[bytes]:
    if path == "-":
        if sys.stdin is None:
            raise BadInput("there is no standard input")
        return sys.stdin.buffer
    try:
        return open(path, "rb")
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {path}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _batches(stream: IO[bytes], path: str, only: bool) -> Iterator[list[Piece]]:
    annotator = Annotator(only=only)
    assert isinstance(stream, io.BufferedIOBase)
    with contextlib.nullcontext() if path == "-" else stream:
        while True:
            if annotator.waiting and not _ready(stream):
                yield annotator.pause()
            try:
                data = stream.read1(_READ)
            except OSError as error:
                raise BadInput(f"cannot read {path}: {_reason(error)}") from error
            if not data:
                break
            yield annotator.feed(data)
    yield annotator.finish()


def _ready(stream: IO[bytes]) -> bool:
    """Return whether there is something to read, or the end, before a reader would wonder."""
    try:
        return bool(select.select([stream.fileno()], [], [], _PAUSE)[0])
    except (OSError, ValueError):
        return True


class Annotator:
    """Annotates a stream that comes in any cut; memory stays within a few lines."""

    def __init__(self, *, only: bool = False) -> None:
        self._only = only
        self._combiner = Combiner()
        self._rest = b""
        # Inside a line that is longer than LONGEST_LINE, and what is to be said when it ends.
        self._in_long_line = False
        self._after_long_line: tuple[Found, ...] = ()
        self._line = 1
        self._offset = 0
        # With ``only``: lines that may turn out to belong to a syndrome.
        self._kept: list[bytes] = []
        self._pieces: list[Piece] = []

    @property
    def waiting(self) -> bool:
        """Whether a syndrome was seen that further lines may add to."""
        return self._combiner.busy

    def feed(self, data: bytes) -> list[Piece]:
        """Return what ``data`` completes: its whole lines, and annotations."""
        if self._in_long_line:
            data = self._skip(data)
        data = self._rest + data
        end = data.rfind(b"\n") + 1
        self._rest = data[end:]
        if end:
            self._lines(data[:end])
        if len(self._rest) >= LONGEST_LINE:
            self._begin_long_line()
        return self._take()

    def pause(self) -> list[Piece]:
        """Return the annotations that waited for more, for the stream has paused."""
        self._say(self._combiner.pause())
        return self._take()

    def finish(self) -> list[Piece]:
        """Return what is left at the end of the stream."""
        if self._rest:
            self._lines(self._rest)
            self._rest = b""
        self._say((*self._after_long_line, *self._combiner.finish()))
        return self._take()

    def _take(self) -> list[Piece]:
        pieces, self._pieces = self._pieces, []
        return pieces

    def _lines(self, data: bytes) -> None:
        """Pass whole lines through, and look at those that are worth it."""
        interesting = Interesting(data)
        position = passed = 0
        while position < len(data):
            if not self._combiner.busy:
                place = interesting.after(position)
                begin = len(data) if place == len(data) else data.rfind(b"\n", position, place) + 1
                begin = max(begin, position)
                self._line += data.count(b"\n", position, begin)
                position = begin
                if place == len(data):
                    break
            end = data.find(b"\n", position) + 1 or len(data)
            line = data[position:end]
            step = self._combiner.line(line, self._line, self._offset + position)
            if self._only:
                self._keep(line, step)
            elif step.before or step.after:
                self._pass(data[passed:position])
                self._say(step.before)
                self._pass(line)
                self._say(step.after)
                passed = end
            self._line += 1
            position = end
        if not self._only:
            self._pass(data[passed:])
        self._offset += len(data)

    def _keep(self, line: bytes, step: Step) -> None:
        self._say(step.before)
        if step.part:
            self._kept.append(line)
            del self._kept[:-_MOST_KEPT]
        if step.discarded:
            self._kept.clear()
        self._say(step.after)

    def _pass(self, data: bytes) -> None:
        if data:
            self._pieces.append(data)

    def _say(self, found: tuple[Found, ...]) -> None:
        if found:
            self._pieces.extend(self._kept)
            self._kept.clear()
            self._pieces.extend(_annotation(each) for each in found)

    def _begin_long_line(self) -> None:
        piece, self._rest = self._rest, b""
        step = self._combiner.line(piece, self._line, self._offset)
        if self._only:
            self._say(step.before)
            if step.after:
                self._pieces.append(piece + b"\n")
                self._say(step.after)
        else:
            self._say(step.before)
            self._pass(piece)
            self._after_long_line = step.after
        self._offset += len(piece)
        self._in_long_line = True

    def _skip(self, data: bytes) -> bytes:
        """Pass the rest of a long line through; return what follows it."""
        end = data.find(b"\n") + 1
        tail = data[:end] if end else data
        self._offset += len(tail)
        if not self._only:
            self._pass(tail)
        if not end:
            return b""
        self._say(self._after_long_line)
        self._after_long_line = ()
        self._in_long_line = False
        self._line += 1
        return data[end:]


_MOST_KEPT = 128


def _annotation(found: Found) -> Annotation:
    report, notes = _decoded(found[_PLACE:])
    return Annotation(
        found.line,
        found.offset,
        found.text,
        found.source,
        None if found.far is None else VA(found.far),
        None if found.hpfar is None else Word(found.hpfar),
        None if found.elr is None else VA(found.elr),
        None if found.spsr is None else Word(found.spsr),
        None if found.par is None else Word(found.par),
        notes,
        report,
    )


# The items of Found that say where it was found, which does not matter to what it means.
_PLACE = 4


@lru_cache(maxsize=4096)
def _decoded(values: tuple[Any, ...]) -> tuple[EsrReport, tuple[str, ...]]:
    """Decode a syndrome with its registers, the items of a Found behind its place."""
    found = Found(0, 0, "", "", *values)
    level = _assumed_level(found.esr) if found.level is None else found.level
    context = SyndromeContext(
        far=found.far if _sets_far(found.esr) else None,
        hpfar=found.hpfar,
        ipa=found.ipa,
        elr=found.elr,
        spsr=found.spsr,
        from_el=found.from_el,
        guest=found.guest,
        registers=dict(found.registers) if found.registers else None,
    )
    syndrome = decode_esr(found.esr, el=level, context=context)
    notes = list(_notes(found, syndrome))
    if _stage_unknown(found, syndrome):
        syndrome = _without_stage(found, level, context)
        notes.append(
            "of stage 1 if HCR_EL2.TGE was 1 (a process of a VHE host), else of stage 2: the log does not say"
        )
    if found.from_el is not None:
        syndrome = replace(syndrome, summary=_by_level(syndrome.summary, found.from_el))
    return explain(syndrome), tuple(notes)


def _by_level(summary: str, from_el: int) -> str:
    """Name who took an exception to EL2 by its Exception level: whether it was a guest or pKVM's host is not known."""
    if summary.startswith("guest EL0 "):
        return summary.removeprefix("guest ")
    return f"EL{from_el} {summary.removeprefix('guest ')}" if summary.startswith("guest ") else summary


def _assumed_level(esr: int) -> int:
    """Return the Exception level of an ESR of which nothing is said: EL1, unless only EL2 reports such a thing."""
    abort = decode_esr(esr, el=2).abort
    if abort is not None and abort.stage == 2 and (abort.isv or abort.s1ptw):
        return 2
    return 2 if "not possible" in decode_esr(esr, el=1).summary else 1


# The exception classes for which the architecture defines what FAR_ELx holds.
_FAR_CLASSES = frozenset((0x1E, 0x20, 0x21, 0x22, 0x24, 0x25, 0x34, 0x35))


def _sets_far(esr: int) -> bool:
    return esr >> 26 & 0x3F in _FAR_CLASSES


def _stage_unknown(found: Found, syndrome: Syndrome) -> bool:
    """Return whether an abort from EL0 to EL2 may as well be of stage 1, as a VHE host's own processes have them."""
    abort = syndrome.abort
    return (
        abort is not None and found.from_el == 0 and syndrome.el == 2 and abort.stage == 2 and not abort.s1ptw
    )


def _without_stage(found: Found, level: int, context: SyndromeContext) -> Syndrome:
    syndrome = decode_esr(found.esr, el=level, context=replace(context, stage2=False, hpfar=None))
    assert syndrome.abort is not None
    summary = syndrome.summary.replace("(stage-1 ", "(")
    return replace(syndrome, summary=summary, abort=replace(syndrome.abort, stage=None))


def _notes(found: Found, syndrome: Syndrome) -> Iterator[str]:
    if found.esr == 0:
        yield "no exception leaves 0 here (with EC 0, IL is 1): the register was never written, or was cleared"
    elif found.level is None:
        yield f"the log does not say whose ESR this is; read as ESR_EL{syndrome.el}"
    stale = list(_stale(found, syndrome))
    if stale:
        yield f"{' and '.join(stale)}: not architecturally valid for this exception (stale)"
    if found.par is not None and _is_poison(found.par):
        yield f"PAR_EL1 {found.par:#x}: KVM's reset value of a vCPU's registers, so no AT instruction has written it"


def _stale(found: Found, syndrome: Syndrome) -> Iterator[str]:
    """Yield the registers that were printed and that the architecture does not define for this exception."""
    abort = syndrome.abort
    if found.far and (not _sets_far(found.esr) or (abort is not None and abort.fnv)):
        yield f"FAR_EL{syndrome.el} {found.far:#x}"
    if found.hpfar and not (abort is not None and abort.hpfar_valid):
        yield f"HPFAR_EL2 {found.hpfar:#x}"


# KVM's reset value of a guest's registers. Of PAR_EL1 the processor drops bits that are RES0, and it may set the RES1
# bit 11.
_POISON = 0x1DE7_EC7E_DBAD_C0DE
_PAR_RES1 = 1 << 11
_MOST_DROPPED = 14


def _is_poison(par: int) -> bool:
    kept = par & ~_PAR_RES1
    return not kept & ~_POISON and kept.bit_count() >= _POISON.bit_count() - _MOST_DROPPED
