"""World switches of a real KVM, counted by ``hyp-trace`` and, independently, by the VMM."""

from __future__ import annotations

import time
from typing import Any

from kvm.debugger import Debugger
from kvm.rig import VHE, VHE_6_12, Rig

HVC, SMC, MSR_MRS, DATA_ABORT = 0x16, 0x17, 0x18, 0x24
_MMIO = range(0x9000004, 0x9000204, 8)
"""The IPAs that guest.S stores to once a round."""

_PATIENCE = 60.0
_IN_FLIGHT = 6
"""Rounds that the two VMs have begun at a stop, or that wait in the console's buffers."""


def _rounds(rig: Rig) -> int:
    """Return the rounds of both VMs as the VMM has printed them."""
    return sum(line["write"] and line["ipa"] in _MMIO for line in rig.said("mmio"))


def _record(debugger: Debugger, source: str) -> tuple[Any, int]:
    """Trace until both VMs have exited, where that can be told, and a round was made; return counts and rounds."""
    before = _rounds(debugger.rig)
    debugger.session.run(f"hyp-trace start --source {source}")
    deadline = time.monotonic() + _PATIENCE
    while True:
        debugger.run_for(1.0)
        stat, rounds = debugger.session.json("hyp-trace stat"), _rounds(debugger.rig) - before
        enough = rounds and (source == "log" or len(_guests(stat)) == 2)
        if enough or time.monotonic() > deadline:
            debugger.session.run("hyp-trace stop")
            return stat, rounds


def _guests(stat: Any) -> set[int | None]:
    """Return the VMIDs of the guests that exited."""
    return {row["vmid"] for row in stat["exits"] if row["world"] == "guest"}


def _guest_exits(stat: Any, ec: int) -> int:
    return sum(row["count"] for row in stat["exits"] if row["world"] == "guest" and row["ec"] == ec)


def _check(stat: Any, rounds: int) -> None:
    """A round of the guest has two HVCs, one SMC, three trapped registers and at least three Data Aborts."""
    assert sum(row["count"] for row in stat["exits"]) == stat["exceptions"]
    # Without registers, two CPUs' returns can be taken for each other's, now and then.
    assert stat["contradictions"] <= (stat["exceptions"] // 100 if stat["worlds_deduced"] else 0)
    assert rounds > 0
    for ec, each in ((HVC, 2), (SMC, 1), (MSR_MRS, 3)):
        assert abs(_guest_exits(stat, ec) - each * rounds) <= each * _IN_FLIGHT, (
            f"EC {ec:#x} in {rounds}: {stat}"
        )
    assert _guest_exits(stat, DATA_ABORT) >= 3 * (rounds - _IN_FLIGHT)


def test_breakpoints(hyp: Debugger) -> None:
    """VMIDs are observed: both VMs', and no other's."""
    vmids = set()
    for vm in (0, 1):
        hyp.stop_in_guest(vm)
        vmids.add(hyp.register("VTTBR_EL2") >> 48)
    stat, rounds = _record(hyp, "break")
    assert _guests(stat) == vmids
    _check(stat, rounds)
    if hyp.rig.target.mode != "vhe":
        calls = {row["name"].split()[0]: row["count"] for row in stat["calls"] if row["world"] == "host"}
        # Six exits of a round that EL2 leaves to the host, each in a run of its own.
        assert calls["__kvm_vcpu_run"] >= 6 * (rounds - _IN_FLIGHT)


def test_log(hyp: Debugger) -> None:
    """Worlds are deduced from a log that has neither HCR_EL2 nor VTTBR_EL2, and still every exit is counted once."""
    hyp.stop_in_guest()
    stat, rounds = _record(hyp, "log")
    assert stat["worlds_deduced"]
    _check(stat, rounds)


def test_world_switch_is_right(hyp: Debugger) -> None:
    """KVM loses and leaks nothing; whatever changed has a reason."""
    hyp.stop_in_guest()
    report = hyp.session.json("hyp-trace check --runs 20")
    assert report["findings"] == []
    assert report["guest_checks"] >= 20
    assert bool(report["host_checks"]) is (hyp.rig.target not in (VHE, VHE_6_12)), report["notes"]
