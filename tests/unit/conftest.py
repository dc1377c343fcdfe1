"""What tests of single modules share."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest
from support import fake_gdb as stand_in


@pytest.fixture
def fake_gdb(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module ``gdb`` that has what the plugin's modules name when they are imported."""
    yield from stand_in.fake_gdb(monkeypatch)
