"""QEMU's own dumps of a rig: with the live CPU's system registers, they answer as it does; drgn reads the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gdbhyp import api
from gdbhyp.analyses import snapshot
from gdbhyp.hypervisors.linux.roots import kernel_roots
from gdbhyp.targets.dump import Dump, open_dump
from kvm.compare_drgn import same_as_drgn
from kvm.debugger import Debugger
from kvm.rig import NVHE, VHE_6_12
from kvm.test_snapshot import live_answers, offline_answer

FORMS = {"ELF": "", "zlib": "-z", "LZO": "-l", "snappy": "-s"}


def _dumps(debugger: Debugger, folder: Path) -> dict[str, Path]:
    """Dump the rig in every form that this QEMU can write; ELF is never missing.

    It may have been built without LZO and snappy, and it gives up on a kdump-compressed file where a CPU has a larger
    SVE vector length than CPU 0, for whose notes it then has made no room.
    """
    found = {}
    for form, option in FORMS.items():
        path = folder / form
        said = debugger.rig.machine.command(f"dump-guest-memory {option} {path}")
        if not said.strip():
            found[form] = path
    assert "ELF" in found
    return found


def test_same_answers(hyp: Debugger, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A dump has memory and X0 to PSTATE; the rest is given as a file of registers, here from a snapshot."""
    if hyp.rig.target not in (NVHE, VHE_6_12):
        return
    hyp.stop_in_guest()
    hyp.session.run(f"hyp-snapshot {tmp_path / 'snapshot'} --tables-only")
    expected = live_answers(hyp)
    taken = open_dump(str(tmp_path / "snapshot"))
    registers = tmp_path / "registers.json"
    every = [{name: hex(value) for name, value in cpu.items()} for cpu in taken.cpus]
    registers.write_text(json.dumps(every))
    for form, path in _dumps(hyp, tmp_path).items():
        options = ("--cpu", str(hyp.cpu), "--registers", str(registers))
        for question, answer in expected.items():
            if question == "status":
                continue
            assert offline_answer(question, path, capsys, *options) == answer, f"{question} of {form}"
        _same_cpus(open_dump(str(path)), taken)
        _same_status(
            json.loads(offline_answer("status", path, capsys, *options)), json.loads(expected["status"])
        )
    _with_vmcoreinfo(open_dump(str(tmp_path / "ELF")), tmp_path)


def _same_cpus(dump: Dump, taken: Dump) -> None:
    """The notes of each CPU say what the stub says; the upper half of PSTATE is not in the stub's cpsr."""
    for own, live in zip(dump.cpus, taken.cpus, strict=True):
        assert {name: own[name] for name in own} == {name: live[name] for name in own}


def _same_status(own: dict[str, Any], live: dict[str, Any]) -> None:
    """All but what needs symbols, which a dump of QEMU's has none of."""
    symbols = ("symbol", "exception_from_symbol")
    assert {k: v for k, v in own.items() if k not in symbols} == {
        k: v for k, v in live.items() if k not in symbols
    }


def _with_vmcoreinfo(dump: Dump, folder: Path) -> None:
    """Compare with drgn. It takes a core for a kernel's by VMCOREINFO, which QEMU writes only where the guest tells it.

    So a snapshot is made of the dump, which has what the kernel keeps in memory.
    """
    path = folder / "with-vmcoreinfo"
    snapshot.take(dump.stop(), path, lambda what, done, total: None)
    found = open_dump(str(path))
    same_as_drgn(found, path)
    # What VMCOREINFO says is what the kernel in memory says; the one may be a level above the other.
    stops = found.stop(), dump.stop()
    said, searched = (kernel_roots(stop) for stop in stops)
    assert "VMCOREINFO" in said.why
    assert "in memory" in searched.why
    text = int((found.vmcoreinfo or {})["SYMBOL(_stext)"], 16)
    walks = (
        api.walk(stops[0], text, stages="1", regime=api.Regime.EL10, ttbr1=roots.ttbr1, tcr=roots.tcr)
        for roots in (said, searched)
    )
    assert len({walk.output for walk in walks} - {None}) == 1
