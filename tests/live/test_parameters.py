"""``set hyp`` and ``show hyp`` in real GDBs; no target is needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.gdb_session import CommandError, GdbSession

GDBINIT = Path(__file__).resolve().parents[2] / "gdbhyp" / "gdbinit.py"


@pytest.fixture
def alone(gdb_program: str, tmp_path: Path) -> Iterator[GdbSession]:
    """A GDB with the plugin and without a target."""
    with GdbSession(gdb_program, tmp_path) as session:
        session.run(f"source {GDBINIT}")
        yield session


def test_memory(alone: GdbSession) -> None:
    assert alone.run("show hyp memory") == "Physical memory is read by 'auto'.\n"
    assert alone.run("set hyp memory ram-file") == ""
    assert alone.run("show hyp memory") == "Physical memory is read by 'ram-file'.\n"
    with pytest.raises(CommandError, match="Undefined item"):
        alone.run("set hyp memory floppy")
    assert alone.run("show hyp").count("\n") >= 1
    assert "ram-file" in alone.run("show hyp")


def test_unknown_names_are_errors(alone: GdbSession) -> None:
    for verb in ("set", "show"):
        with pytest.raises(CommandError, match="gdbhyp has no parameter 'memroy'"):
            alone.run(f"{verb} hyp memroy")


def test_sourcing_again_keeps_what_is_set(alone: GdbSession) -> None:
    alone.run("set hyp memory stub")
    alone.run(f"source {GDBINIT}")
    assert "'stub'" in alone.run("show hyp memory")
