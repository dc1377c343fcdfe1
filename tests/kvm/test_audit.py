"""The audit of real hypervisors: no alarm but those that say what explains them, and one that is real."""

from __future__ import annotations

from typing import Any

from kvm.debugger import Debugger
from kvm.rig import HVHE_6_12, PKVM

# Rules that may find something on a machine that is as it should be, and say why.
EXPLAINED = {
    "alias-memory-type",
    "host-reaches-guest",
    "vm-shared-memory",
    "hyp-text-writable",
    "erratum",
    "hyp-execute-never",
    "vmid-reused",
}
MOST_STACKS = 2


def audit(debugger: Debugger) -> Any:
    return debugger.session.json("hyp-audit")


def alarms(report: Any) -> list[Any]:
    """Return the findings that nothing explains."""
    return [f for f in report["findings"] if f["rule"] not in EXPLAINED or not f["explanation"]]


def test_in_the_guest(hyp: Debugger) -> None:
    hyp.stop_in_guest()
    report = audit(hyp)
    for finding in alarms(report):
        assert hyp.rig.target in (PKVM, HVHE_6_12), finding
        check_stacks(finding)
    assert {rule["name"] for rule in report["rules"] if not rule["not_judged"]} > {
        "vm-reaches-hypervisor",
        "vm-reaches-tables",
        "hyp-writable-executable",
        "hyp-text-writable",
        "trap-hole",
        "cnp-different-roots",
    }
    assert report["own_size"] > 0


def check_stacks(finding: Any) -> None:
    """Linux leaves the stacks of pKVM's EL2 with the host, which reaches them where it has their block mapped."""
    assert finding["rule"] == "host-reaches-hypervisor", finding
    assert finding["size"] <= MOST_STACKS * 0x1000, finding
    assert any(item["register"] == "SP_EL2" for item in finding["evidence"]), finding


def test_in_the_host(hyp: Debugger) -> None:
    hyp.stop_in_host()
    for finding in alarms(audit(hyp)):
        assert hyp.rig.target in (PKVM, HVHE_6_12), finding
        check_stacks(finding)


def test_xen(xen_hyp: Debugger) -> None:
    report = audit(xen_hyp)
    assert report["hypervisor"] == "xen"
    assert not alarms(report)
    assert "direct map" in report["owns"]
    (text,) = (f for f in report["findings"] if f["rule"] == "hyp-text-writable")
    assert "direct map" in text["message"]
