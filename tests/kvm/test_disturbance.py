"""Nothing is disturbed on real hypervisors: a booted KVM in each mode, and Xen, with guests that were running."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.undisturbed import LONG, MOVES, Trial, each_part_once, every_name, seeded
from support.witness import Witness

from kvm.conftest import OPTIONS, attach_to
from kvm.debugger import Debugger
from kvm.rig import NVHE, boot


def _trial(debugger: Debugger, folder: Path) -> Trial:
    """Stop somewhere, with settings of a person's own, and no breakpoint that the machine could need."""
    session = debugger.session
    for line in ("set style enabled off", "set width 100", "display/x $pc", "info registers HCR_EL2"):
        session.run(line)
    work = folder / "work"
    work.mkdir(parents=True)
    return Trial(Witness(session, debugger.rig.machine, folder, work), work, limit=1.5)


def _ask(trial: Trial) -> None:
    trial.every_command(asked=1, wrong=1)
    trial.interrupted_at_random(60 if LONG else 3, seeded())


def test_by_any_command(hyp: Debugger, tmp_path: Path) -> None:
    """At a guest's exit, where all of KVM's objects can be asked."""
    hyp.stop_at_exit()
    trial = _trial(hyp, tmp_path)
    _ask(trial)
    assert {*every_name()} - trial.answered == set(MOVES)


def test_xen(xen_hyp: Debugger, tmp_path: Path) -> None:
    xen_hyp.run_until(lambda: xen_hyp.el < 2)
    trial = _trial(xen_hyp, tmp_path)
    _ask(trial)
    # Of a vCPU that was never taken off its CPU, Xen has saved nothing.
    assert {*every_name()} - trial.answered - {"hyp-vcpu"} == {*MOVES}


@pytest.mark.slow
def test_a_cpu_that_linux_never_started(initramfs: Path, tmp_path: Path) -> None:
    """The second CPU is off: asked there or from the other, VMs are the same, and nothing fails or is disturbed."""
    if not LONG:
        pytest.skip("boots a machine of its own: GDBHYP_LONG=1")
    machine = boot(tmp_path, NVHE, initramfs, f"{OPTIONS} maxcpus=1")
    with machine as rig, attach_to(rig, tmp_path, plugin=True) as hyp:
        hyp.session.run("thread 1")
        hyp.run_for(0.5)
        found = {}
        for cpu in (0, 1):
            hyp.select(cpu)
            trial = _trial(hyp, tmp_path / str(cpu))
            for line in each_part_once(trial.work):
                trial.type(line)
            trial.compare(f"all that was asked of CPU {cpu}")
            found[cpu] = hyp.session.json_lines("hyp-vms")
        assert [vm["vttbr"] for vm in found[0]] == [vm["vttbr"] for vm in found[1]]
        assert len(found[0]) == 2
