"""Each target over a fixed set of inputs; ``python -m fuzz`` goes on from there, by coverage."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.mutate import mutations
from fuzz.targets import TARGETS

INPUTS = 150
# A machine that does other things as well must not fail a test; a hang is longer than this.
SLOWEST = 10.0


@pytest.mark.parametrize("name", TARGETS)
def test_mutated(name: str) -> None:
    target = TARGETS[name]
    for data in mutations(target.seeds(), INPUTS, target.longest, seed=1):
        began = time.process_time()
        target.run(data)
        assert time.process_time() - began < SLOWEST, data.hex()


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
