"""A snapshot opened in GDB, with the plugin: the file answers what the machine answered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live.conftest import GDBINIT
from live.test_robustness import INTERRUPT
from support.demo import run_to
from support.gdb_session import CommandError, GdbSession

QUESTIONS = (
    "hyp-status",
    "hyp-esr",
    "hyp-ipa",
    "hyp-reg *_EL2",
    "hyp-walk $pc",
    "hyp-walk $ELR_EL2 --regime EL1",
    "hyp-walk --stage2 0x80204000",
    "hyp-map --stage2",
    "hyp-map --regime EL2",
    "hyp-at S12E1R $ELR_EL2",
)


@pytest.fixture
def taken(session: GdbSession, demo: Path, truth: Any, tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A snapshot of the demo hypervisor, and what the machine answered then."""
    run_to(session, next(s for s in truth["vms"][0]["sites"] if s["symbol"] == "guest_perm_store"))
    addresses = {name: hex(session.register(name)) for name in ("pc", "ELR_EL2")}
    asked = [q.replace("$pc", addresses["pc"]).replace("$ELR_EL2", addresses["ELR_EL2"]) for q in QUESTIONS]
    path = tmp_path / "demo.snapshot"
    session.run(f"hyp-snapshot {path} --range 0x40000000+0x400000 --range 0x44000000+0x500000")
    return path, {question: session.run(question) for question in asked}


@pytest.fixture
def on_core(
    gdb_program: str, taken: tuple[Path, dict[str, str]], demo: Path, tmp_path: Path
) -> Iterator[GdbSession]:
    """A new GDB on the snapshot, with the demo's symbols."""
    folder = tmp_path / "core"
    folder.mkdir()
    with GdbSession(gdb_program, folder) as session:
        session.run(f"file {demo / 'demo.elf'}")
        session.run(f"source {GDBINIT}")
        session.run(f"core {taken[0]}")
        yield session


def test_same_answers(on_core: GdbSession, taken: tuple[Path, dict[str, str]]) -> None:
    for question, answer in taken[1].items():
        assert on_core.run(question) == answer, question


def test_virtual_addresses(on_core: GdbSession) -> None:
    """GDB itself reads memory by the addresses of the CPU's own regime."""
    assert on_core.run("x/i $pc").startswith("=> 0x6e0000200788")


def test_nothing_runs(on_core: GdbSession) -> None:
    with pytest.raises(CommandError, match="a core file does not run"):
        on_core.run("hyp-trace start")


def test_ctrl_c_leaves_no_half_file(session: GdbSession, tmp_path: Path) -> None:
    """Whenever a snapshot is interrupted, there is all of it or nothing, and the stub is as it was."""
    session.run(f"source {INTERRUPT}")
    folder = tmp_path / "snapshots"
    folder.mkdir()
    path = folder / "demo.snapshot"
    endings = []
    for delay in (0.05, 0.1, 0.2, 0.6):
        ended = session.python(f"interrupted('hyp-snapshot {path}', [{delay}], 1)")
        assert ended in (None, "Quit", "late"), ended
        endings.append(ended)
        found = [entry.name for entry in folder.iterdir()]
        assert found == ([] if ended == "Quit" else [path.name])
        path.unlink(missing_ok=True)
        assert '"0"' in session.run("maintenance packet qqemu.PhyMemMode")
    assert "Quit" in endings
