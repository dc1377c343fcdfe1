"""Xen: the same questions to a hypervisor that is not KVM."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvm.compare import compare_with_qemu
from kvm.debugger import SYNC_FROM_LOWER, Debugger
from kvm.rig import XEN, Rig


def _in_domain(debugger: Debugger) -> None:
    debugger.run_until(lambda: debugger.el < 2)


def _at_exit(debugger: Debugger) -> None:
    debugger.run_to(debugger.register("VBAR_EL2") + SYNC_FROM_LOWER)


def test_boots(xen: Rig) -> None:
    assert XEN.says in xen.text()
    assert "HYP mode not available" in xen.text(), "Linux runs as a domain"


@pytest.mark.parametrize(("stop", "world"), [(_in_domain, "guest"), (_at_exit, "hypervisor")])
def test_status(xen_hyp: Debugger, stop: Callable[[Debugger], None], world: str) -> None:
    """Xen knows no host world: its first domain is a guest, too."""
    stop(xen_hyp)
    status = xen_hyp.session.json("hyp-status")
    assert (status["hypervisor"], status["world"], status["vmid"]) == ("xen", world, 1)


@pytest.mark.parametrize("stop", [_in_domain, _at_exit])
def test_same_as_qemu(xen_hyp: Debugger, stop: Callable[[Debugger], None]) -> None:
    stop(xen_hyp)
    compare_with_qemu(xen_hyp)


def test_direct_map(xen_hyp: Debugger) -> None:
    """Xen gives its first domain memory at IPA = PA."""
    _in_domain(xen_hyp)
    kernel = xen_hyp.session.json(f"hyp-walk {xen_hyp.register('VBAR'):#x}")
    assert kernel["output"] == kernel["ipa"]
    assert any(step["stage"] == 2 for step in kernel["steps"])
