"""``set hyp`` and ``show hyp`` in real GDBs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.demo import run_to
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


def test_what_is_refused_stays_as_it_was(alone: GdbSession, tmp_path: Path) -> None:
    alone.run("set hyp features ID_AA64MMFR0_EL1=0x1122")
    for line, sentence in (
        ("set hyp features nonsense", "'nonsense' is no register"),
        ("set hyp registers /nowhere", "cannot read /nowhere"),
        ("set hyp hypervisor hyper-v", "Undefined item"),
        ("set hyp featurs x", r"did you mean features\?"),
    ):
        with pytest.raises(CommandError, match=sentence):
            alone.run(line)
    assert alone.run("show hyp features") == "Registers given by hand: 'ID_AA64MMFR0_EL1=0x1122'.\n"
    assert alone.run("show hyp registers") == "How registers are had: ''.\n"


def test_saved_only_if_asked(alone: GdbSession, tmp_path: Path) -> None:
    alone.run("set hyp hypervisor xen")
    alone.run("set hyp max-tables 12")
    alone.run(f"save hyp {tmp_path / 'saved'}")
    assert (tmp_path / "saved").read_text() == "set hyp hypervisor xen\nset hyp max-tables 12\n"
    alone.run("set hyp hypervisor auto")
    alone.run(f"source {tmp_path / 'saved'}")
    assert alone.run("show hyp hypervisor") == "The hypervisor is 'xen'.\n"


def test_registers_of_another_stub(session: GdbSession, tmp_path: Path, truth: Any) -> None:
    """QEMU's stub stands for one that shows some registers by its monitor, and some not at all."""
    run_to(session, truth["vms"][0]["sites"][0])
    path = tmp_path / "map.json"
    path.write_text('{"names": {"VTCR_EL2": "VTTBR_EL2"}, "monitor": {"TPIDR_EL2": "xp /1gx 0x40218010"}}')
    session.run(f"set hyp registers {path}")
    session.run("set hyp features ID_AA64MMFR0_EL1=0x1122 NO_SUCH_EL2=7")
    for expression, value in (
        ('$hyp_reg("VTCR_EL2")', session.register("VTTBR_EL2")),
        ('$hyp_reg("TPIDR_EL2")', 0x4021C003),
        ('$hyp_reg("ID_AA64MMFR0_EL1")', 0x1122),
        ('$hyp_reg("NO_SUCH_EL2")', 7),
    ):
        assert int(session.run(f"output/x {expression}"), 16) == value, expression
    path.write_text('{"names": {"VTCR_EL2": "VTCR_EL2"}}')
    os.utime(path, (1, 1))
    assert int(session.run('output/x $hyp_reg("VTCR_EL2")'), 16) == int(truth["vms"][0]["vtcr"], 16)
    path.write_text("{")
    os.utime(path, (2, 2))
    with pytest.raises(CommandError, match="is no JSON object that maps registers"):
        session.run("hyp-status")


def test_what_is_chosen_holds(session: GdbSession, truth: Any) -> None:
    run_to(session, truth["vms"][0]["sites"][0])
    session.run("set hyp hypervisor pkvm")
    assert session.json("hyp-status")["hypervisor"] == "pkvm"
    assert "'set hyp hypervisor pkvm' says so" in session.run("hyp-status -v")
    session.run("set hyp max-tables 1")
    assert "the budget is used up" in session.run("hyp-map --stage2")
    assert "the budget is used up" not in session.run("hyp-map --stage2 --max-tables 100")
    assert "\x1b[" not in session.run("hyp-status")
    session.run("set hyp colour on")
    assert "\x1b[" in session.run("hyp-status")
    assert "\x1b[" not in session.run("hyp-status --json")
