"""Nothing is disturbed on real hypervisors: a booted KVM in each mode, and Xen, with guests that were running."""

from __future__ import annotations

from pathlib import Path

from support.undisturbed import LONG, MOVES, Trial, every_name, seeded
from support.witness import Witness

from kvm.debugger import Debugger


def _trial(debugger: Debugger, folder: Path) -> Trial:
    """Stop somewhere, with settings of a person's own, and no breakpoint that the machine could need."""
    session = debugger.session
    for line in ("set style enabled off", "set width 100", "display/x $pc", "info registers HCR_EL2"):
        session.run(line)
    work = folder / "work"
    work.mkdir()
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
    assert {*every_name()} - trial.answered == {*MOVES, "hyp-vcpu"}, "Xen keeps vCPUs otherwise than KVM"
