"""Each target over a fixed set of inputs; ``python -m fuzz`` goes on from there, by coverage."""

from __future__ import annotations

import contextlib
import signal
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.limits import TRACED, TooSlow, bound_time
from fuzz.mutate import mutations
from fuzz.targets import TARGETS

INPUTS = 150
# A machine that does other things as well must not fail a test; a hang is longer than this.
SLOWEST = 10.0


@pytest.mark.parametrize("name", TARGETS)
def test_mutated(name: str) -> None:
    target = TARGETS[name]
    inputs = [*mutations(target.seeds(), INPUTS, target.longest, seed=1)]
    tracemalloc.start()
    try:
        for data in inputs:
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            began = time.process_time()
            target.run(data)
            assert time.process_time() - began < SLOWEST, data.hex()
            assert tracemalloc.get_traced_memory()[1] - before < TRACED, data.hex()
    finally:
        tracemalloc.stop()


def test_a_hang_is_a_failure() -> None:
    """Also one that catches every Exception, as long as it is Python."""

    def hang(_data: bytes) -> None:
        while True:
            with contextlib.suppress(Exception):
                pass

    before = signal.getsignal(signal.SIGPROF)
    try:
        with pytest.raises(TooSlow):
            bound_time(hang, seconds=0.01)(b"")
    finally:
        signal.signal(signal.SIGPROF, before)


FINDINGS = sorted(Path(__file__).with_name("findings").iterdir())


@pytest.mark.parametrize("path", FINDINGS, ids=lambda path: path.name)
def test_finding(path: Path) -> None:
    """What once failed, by the name of its target and of what was wrong."""
    TARGETS[path.name.partition("-")[0]].run(path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=25, deadline=None)
@given(data=st.binary(max_size=512))
def test_anything(name: str, data: bytes) -> None:
    TARGETS[name].run(data)
