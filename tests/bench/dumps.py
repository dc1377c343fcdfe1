"""The map of a machine that is not there any more: of a snapshot, read in this process."""

from __future__ import annotations

import contextlib
import io
import statistics
from collections.abc import Sequence
from pathlib import Path

from bench.measure import MS, Row, timed

from gdbhyp.cli.main import main
from gdbhyp.targets.dump import open_dump


def from_a_dump(
    name: str, file: Path, words: Sequence[str], reads: Sequence[tuple[int, int]], rounds: int
) -> Row:
    """Measure ``gdbhyp map FILE`` from the opening of the file to its last line, without the start of Python.

    The floor is to open the file and to read the same tables, each an address and a size.
    """

    def read() -> None:
        memory = open_dump(str(file)).stop().machine.memory
        for address, size in reads:
            memory.read(address, size)

    ask(file, words)
    times = timed(lambda: ask(file, words), rounds)
    floor = statistics.median(timed(read, rounds))
    return Row(name, 1e3 * statistics.median(times), MS, None, 1e3 * floor, least=1e3 * min(times))


def ask(file: Path, words: Sequence[str]) -> str:
    """Return what ``gdbhyp map`` prints."""
    said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    with contextlib.redirect_stdout(said):
        status = main(["map", str(file), *words])
    said.seek(0)
    answer = said.read()
    assert status == 0, answer
    return answer
