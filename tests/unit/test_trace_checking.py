"""What a world switch may change, and what it may not."""

from __future__ import annotations

import pytest

from gdbhyp.trace.checking import Checker, CheckReport, Snapshot
from gdbhyp.trace.worlds import Party

HOST, GUEST, OTHER = Party("host"), Party("guest", 3), Party("guest", 4)
HVC, DABT, SYS64, WFX = (ec << 26 for ec in (0x16, 0x24, 0x18, 0x01))
ISV, WNR = 1 << 24, 1 << 6
SYNC, IRQ = 0, 1


class Story:
    """Worlds that are left and entered; each says what its registers are."""

    def __init__(self) -> None:
        self.checker = Checker()
        self.number = 0

    def left(self, party: Party, esr: int | None = HVC, *, cpu: int = 0, **registers: int) -> Story:
        self.checker.taken(self._snapshot(party, esr, cpu, registers))
        return self

    def entered(self, party: Party, *, cpu: int = 0, **registers: int) -> Story:
        self.checker.returned(self._snapshot(party, None, cpu, registers))
        return self

    def _snapshot(self, party: Party, esr: int | None, cpu: int, registers: dict[str, int]) -> Snapshot:
        self.number += 1
        known = {"VMPIDR_EL2": 0x8000_0000, "ELR_EL2": 0x1000, "SPSR_EL2": 5, "SCTLR_EL1": 1, **registers}
        return Snapshot(self.number, cpu, 0x2400, IRQ if esr is None else SYNC, party, esr, known)

    def report(self) -> CheckReport:
        return self.checker.report()


def test_nothing_changes() -> None:
    report = Story().left(GUEST, X1=1, TTBR0_EL1=2).entered(GUEST, X1=1, TTBR0_EL1=2).report()
    assert (report.guest_runs, report.guest_checks) == (1, 1)
    assert report.findings == ()
    assert report.explained == ()


def test_lost() -> None:
    (finding,) = Story().left(GUEST, WFX, TPIDR_EL1=7).entered(GUEST, TPIDR_EL1=0).report().findings
    assert (finding.kind, finding.register, finding.expected, finding.found) == ("lost", "TPIDR_EL1", 7, 0)
    assert (finding.vmid, finding.vcpu, finding.whose) == (3, 0x8000_0000, None)
    assert (finding.left.number, finding.entered.number) == (1, 2)


def test_host_leaks_into_guest() -> None:
    story = Story().left(GUEST, TPIDR_EL0=7).left(HOST, TPIDR_EL0=9).entered(GUEST, TPIDR_EL0=9)
    (finding,) = story.report().findings
    assert (finding.kind, finding.whose) == ("leak", "the host")


def test_guest_leaks_into_host() -> None:
    story = Story().left(HOST, X23=7).entered(GUEST, X23=9).left(GUEST, X23=9).entered(HOST, X23=9)
    (finding,) = story.report().findings
    assert (finding.kind, finding.world, finding.register) == ("leak", "host", "X23")
    assert finding.whose == "vCPU 0x80000000 of VMID 3"


def test_guest_leaks_into_guest() -> None:
    story = Story().left(GUEST, X20=7).left(OTHER, X20=9).entered(GUEST, X20=9)
    (finding,) = story.report().findings
    assert finding.whose == "vCPU 0x80000000 of VMID 4"


def test_same_finding_is_counted() -> None:
    story = Story()
    for _ in range(3):
        story.left(GUEST, WFX, X20=7).entered(GUEST, X20=8)
    (finding,) = story.report().findings
    assert finding.count == 3


def test_vcpu_that_moves_to_another_cpu() -> None:
    (finding,) = Story().left(GUEST, X20=7, cpu=0).entered(GUEST, X20=8, cpu=1).report().findings
    assert (finding.left.cpu, finding.entered.cpu) == (0, 1)


def test_vcpus_of_one_vm_are_told_apart() -> None:
    story = Story().left(GUEST, X20=7).entered(GUEST, X20=8, VMPIDR_EL2=0x8000_0001)
    assert story.report().guest_checks == 0


@pytest.mark.parametrize(
    ("esr", "before", "after"),
    [
        (HVC, {"X0": 1, "X17": 1}, {"X0": 2, "X17": 2}),
        (DABT | ISV | 4 << 16, {"X4": 1}, {"X4": 2, "ELR_EL2": 0x1004}),
        (SYS64 | 3 << 5 | 1, {"X3": 1}, {"X3": 2, "ELR_EL2": 0x1004}),
        (WFX, {"SPSR_EL2": 1 << 21 | 1 << 10 | 5}, {"SPSR_EL2": 5, "ELR_EL2": 0x1004}),
        (
            DABT,
            {"VBAR_EL1": 0x8000, "ELR_EL1": 0},
            {"VBAR_EL1": 0x8000, "ELR_EL2": 0x8200, "ELR_EL1": 0x1000, "ESR_EL1": 1, "SPSR_EL2": 0x3C5},
        ),
        (WFX, {"CNTV_CTL_EL0": 1}, {"CNTV_CTL_EL0": 5}),
        (None, {"CNTV_CTL_EL0": 5}, {"CNTV_CTL_EL0": 7}),
        (WFX, {"APIAKEYLO_EL1": 1, "HCR_EL2": 1}, {"APIAKEYLO_EL1": 2}),
    ],
)
def test_explained(esr: int | None, before: dict[str, int], after: dict[str, int]) -> None:
    report = Story().left(GUEST, esr, **before).entered(GUEST, **{**before, **after}).report()
    assert report.findings == ()
    assert report.explained


@pytest.mark.parametrize(
    ("esr", "before", "after"),
    [
        (HVC, {"X18": 1}, {"X18": 2}),
        (None, {"X0": 1}, {"X0": 2}),
        (DABT | ISV | WNR | 4 << 16, {"X4": 1}, {"X4": 2}),
        (DABT | ISV | 4 << 16, {"X5": 1}, {"X5": 2}),
        (SYS64 | 3 << 5, {"X3": 1}, {"X3": 2}),
        (WFX, {"SPSR_EL2": 5}, {"SPSR_EL2": 4, "ELR_EL2": 0x1004}),
        (WFX, {"ELR_EL1": 1}, {"ELR_EL1": 2, "ELR_EL2": 0x1004}),
        (WFX, {"CNTV_CTL_EL0": 1}, {"CNTV_CTL_EL0": 4}),
        (WFX, {"APIAKEYLO_EL1": 1, "HCR_EL2": 1 << 41}, {"APIAKEYLO_EL1": 2}),
    ],
)
def test_unexplained(esr: int | None, before: dict[str, int], after: dict[str, int]) -> None:
    report = Story().left(GUEST, esr, **before).entered(GUEST, **{**before, **after}).report()
    assert len(report.findings) == 1


def test_controls_follow_the_vcpu() -> None:
    """VI may differ from entry to entry, VTCR_EL2 may not; a host's own have to be as they were."""
    story = (
        Story()
        .entered(GUEST, HCR_EL2=1, VTCR_EL2=5)
        .left(GUEST, WFX)
        .entered(GUEST, HCR_EL2=0x81, VTCR_EL2=6)
    )
    (finding,) = story.report().findings
    assert (finding.register, finding.why) == ("VTCR_EL2", "its entry before")
    story = Story().left(HOST, VTTBR_EL2=0).entered(GUEST, VTTBR_EL2=9).entered(HOST, VTTBR_EL2=9)
    (finding,) = story.report().findings
    assert (finding.world, finding.register, finding.kind) == ("host", "VTTBR_EL2", "leak")


def test_host_that_ran_no_guest_is_not_compared() -> None:
    assert Story().left(HOST, CNTVOFF_EL2=1).entered(HOST, CNTVOFF_EL2=2).report().host_checks == 0


def test_vhe_host_is_not_compared() -> None:
    """Another thread of the host's user space may go on."""
    tge = 1 << 34 | 1 << 27
    story = Story().left(HOST, X23=1, HCR_EL2=tge).entered(GUEST).entered(HOST, X23=2, HCR_EL2=tge)
    assert story.report().host_checks == 0


def test_restart_is_not_compared() -> None:
    story = Story().left(GUEST, X5=1).entered(GUEST, X5=0, SCTLR_EL1=0, ELR_EL2=0x4000)
    report = story.report()
    assert (report.restarts, report.guest_checks, report.findings) == (1, 0, ())


def test_going_on_at_a_place_that_is_not_shown_accuses_nobody() -> None:
    """Without ELR_EL2 the guest may have been stepped or given an exception: what that changes is no finding."""
    checker = Checker()
    registers = {"VMPIDR_EL2": 1, "SPSR_EL2": 5, "ELR_EL1": 2, "TPIDR_EL1": 7}
    changed = registers | {"SPSR_EL2": 5 | 1 << 10, "ELR_EL1": 3, "TPIDR_EL1": 8}
    checker.taken(Snapshot(1, 0, 0x2400, SYNC, GUEST, WFX, registers))
    checker.returned(Snapshot(2, 0, 0x2400, SYNC, GUEST, None, changed))
    (finding,) = checker.report().findings
    assert (finding.register, finding.left.pc, finding.entered.pc) == ("TPIDR_EL1", None, None)
