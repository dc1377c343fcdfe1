"""``hyp-audit`` in real GDBs on the demo hypervisor: what its build leaves open, and what a test breaks."""

from __future__ import annotations

from typing import Any

from support.demo import run_to
from support.gdb_session import GdbSession

# EL2's data and the level-3 table of VM a; EL2 maps both, at one distance.
HYP_DATA, HYP_DISTANCE = 0x40240000, 0x6E0000200000 - 0x40200000
IPA = 0x80200000


def test_what_the_demo_leaves_open(session: GdbSession, truth: Any) -> None:
    """Its guests may do more to the processor than KVM's, and one of their pages is mapped beyond the PA size."""
    run_to(session, truth["vms"][0]["sites"][0])
    report = session.json("hyp-audit")
    assert {finding["rule"] for finding in report["findings"]} == {"trap-hole", "reserved-descriptor"}
    assert not report["problems"]
    (reserved,) = (f for f in report["findings"] if f["rule"] == "reserved-descriptor")
    (evidence,) = reserved["evidence"]
    address = int(evidence["descriptor_address"], 16)
    assert session.python(f"int(gdb.parse_and_eval('*(unsigned long *) {address + HYP_DISTANCE}'))") == int(
        evidence["descriptor"], 16
    )


def test_a_guest_that_is_given_the_hypervisors_memory(session: GdbSession, truth: Any) -> None:
    run_to(session, truth["vms"][0]["sites"][0])
    leaf = session.json(f"hyp-walk --stage2 {IPA:#x}")["steps"][-1]
    address = int(leaf["descriptor_address"], 16)
    broken = int(leaf["descriptor"], 16) & 0xFFF | HYP_DATA
    session.run(f"set *(unsigned long *) {address + HYP_DISTANCE:#x} = {broken:#x}")
    report = session.json("hyp-audit --rule vm-reaches-hypervisor")
    (finding,) = report["findings"]
    assert finding["severity"] == "critical"
    assert finding["ranges"] == [{"start": hex(HYP_DATA), "end": hex(HYP_DATA + 0x1000)}]
    mine, theirs = finding["evidence"]
    assert (mine["input"], mine["descriptor"]) == (hex(IPA), hex(broken))
    assert mine["descriptor_address"] == hex(address)
    assert int(theirs["input"], 16) == HYP_DATA + HYP_DISTANCE
