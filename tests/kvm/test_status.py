"""Whose world it is, at real stops."""

from __future__ import annotations

from kvm.debugger import Debugger
from kvm.rig import HVHE_6_12, PKVM, VHE, VHE_6_12

_VHE = (VHE, VHE_6_12)


def test_guests(hyp: Debugger) -> None:
    vmids = set()
    for vm in (0, 1):
        hyp.stop_in_guest(vm)
        status = hyp.session.json("hyp-status")
        assert (status["el"], status["world"], status["tge"]) == (1, "guest", False)
        assert status["vmid"] == hyp.register("VTTBR_EL2") >> 48
        _is_expected_hypervisor(hyp, status)
        vmids.add(status["vmid"])
    assert len(vmids) == 2


def test_exit(hyp: Debugger) -> None:
    """At the vector the CPU is the hypervisor's, and the guest's stage 2 is still loaded."""
    hyp.stop_at_exit()
    status = hyp.session.json("hyp-status")
    assert (status["el"], status["world"]) == (2, "hypervisor")
    assert status["vmid"] == hyp.register("VTTBR_EL2") >> 48
    _is_expected_hypervisor(hyp, status)


def test_host(hyp: Debugger) -> None:
    """VHE: at EL2 with a stale VTTBR_EL2; pKVM: behind a stage 2 with VMID 0; nVHE: none."""
    hyp.stop_in_host()
    status = hyp.session.json("hyp-status")
    assert status["world"] == "host"
    assert (status["e2h"], status["tge"]) == {
        **dict.fromkeys(map(str, _VHE), (True, True)),
        str(HVHE_6_12): (True, False),
    }.get(str(hyp.rig.target), (False, False))
    _is_expected_hypervisor(hyp, status)


def test_host_program(hyp: Debugger) -> None:
    hyp.stop_in_host_program()
    status = hyp.session.json("hyp-status")
    assert (status["el"], status["world"]) == (0, "host")
    _is_expected_hypervisor(hyp, status)


def test_host_call(hyp: Debugger) -> None:
    """The hypervisor works for the host, with the vectors that it has for the host."""
    if hyp.rig.target in _VHE:
        hyp.stop_in_host()
        assert hyp.el == 2, "a VHE host is in EL2 and has nobody to call"
        return
    hyp.stop_at_host_call()
    status = hyp.session.json("hyp-status")
    assert (status["el"], status["world"]) == (2, "hypervisor")
    _is_expected_hypervisor(hyp, status)


def _is_expected_hypervisor(debugger: Debugger, status: dict[str, object]) -> None:
    target = debugger.rig.target
    assert status["hypervisor"] == target.hypervisor
    protected = target in (PKVM, HVHE_6_12)
    if target not in _VHE:
        assert status["identity"]["protected"] is protected  # type: ignore[index]
