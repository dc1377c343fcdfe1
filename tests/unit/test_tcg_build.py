"""Building the TCG plugin: what a compiler leaves when it is killed is not left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from gdbhyp.errors import NoTarget
from gdbhyp.trace.tcg_build import build


def test_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that dies, as by Ctrl-C, does not remove its own files."""
    temporary, target, compiler = tmp_path / "tmp", tmp_path / "target", tmp_path / "cc"
    temporary.mkdir()
    compiler.write_text('#!/bin/sh\n: > "${TMPDIR:-/tmp}/cc123456.s"\nkill -KILL $$\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    monkeypatch.setenv("TMPDIR", str(temporary))
    with pytest.raises(NoTarget, match="cannot build"):
        build(str(target / "plugin.so"))
    assert [*temporary.iterdir(), *target.iterdir()] == []
