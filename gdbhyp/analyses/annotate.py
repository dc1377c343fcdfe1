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
from typing import IO, ClassVar, NamedTuple, TypeAlias

from gdbhyp.analyses.esr import EsrReport, explain
from gdbhyp.analyses.logs import Found, Interesting
from gdbhyp.analyses.logs_combine import Combiner, Step
from gdbhyp.analyses.logs_explain import Said, say
from gdbhyp.arch.spaces import VA, Word
from gdbhyp.arch.syndrome import decode_esr
from gdbhyp.errors import BadInput

LONGEST_LINE = 1 << 20
"""Bytes of a line that are looked at; what is behind them passes through."""

_READ = 1 << 16
# So long a live stream may pause within a crash before what is known of it is said.
_PAUSE = 0.25
# Lines that are kept until it is known whether they belong to a syndrome; TF-A prints some forty before its ESR.
_MOST_KEPT = 128


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


class Decoded(NamedTuple):
    """A syndrome that a log names, as far as a line of text needs it."""

    found: Found
    said: Said

    def report(self) -> Annotation:
        """Return all of it, every field of the ESR included."""
        found, said = self
        syndrome = replace(decode_esr(found.esr, el=said.el), **said.explanation._asdict())
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
            said.notes,
            explain(syndrome),
        )


Piece: TypeAlias = "bytes | Decoded"


@dataclass(frozen=True)
class AnnotatedLog:
    """A log as it comes, a batch a read: parts of it, and the syndromes that they end with, decoded.

    The parts of all batches, without what is decoded, are the log, or with ``only`` those lines of it that belong to
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
            self._pieces.extend(Decoded(each, say(each)) for each in found)

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
