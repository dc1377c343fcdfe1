"""Whose world an exception interrupted: by registers, and deduced from a log."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from gdbhyp.trace.events import Event, Lost, Maintained, Returned, State, Taken
from gdbhyp.trace.statistics import Statistics
from gdbhyp.trace.worlds import Party, WorldTracker

HVC, DABT, SVC, WFX, SYSREG = (ec << 26 for ec in (0x16, 0x24, 0x15, 0x01, 0x18))
XEN_HVC = HVC | 0xEA1
VM, TGE, E2H = 1 << 0, 1 << 27, 1 << 34
HOST, GUEST = 0x10_0010, 0x90_0010
SYNC, IRQ, FROM_EL2 = 0x400, 0x480, 0x200


def run(events: Iterable[Event], tracker: WorldTracker | None = None) -> list[str]:
    """Return the worlds of the exceptions among ``events``, as all of them together tell."""
    tracker = tracker or WorldTracker()
    parties = [tracker.take(event) for event in events]
    return [tracker.settle(party).world for party in parties if party is not None]


class Story:
    """A log told in short: each exception and return gets the next number."""

    def __init__(self, base: int = 0x2000) -> None:
        self.base = base
        self.events: list[Event] = []

    def take(
        self, esr: int, elr: int, *, cpu: int = 0, offset: int = SYNC, el: int = 1, base: int | None = None
    ) -> Story:
        vector = (self.base if base is None else base) + offset
        self.events.append(Taken(len(self.events), cpu, vector, el, esr=esr, elr=elr))
        return self

    def back(self, pc: int, el: int = 1) -> Story:
        self.events.append(Returned(len(self.events), None, el, pc))
        return self


def boot() -> Story:
    """Firmware enters the host, which calls EL2 once for itself."""
    return Story().back(HOST).take(HVC, HOST + 4).back(HOST + 4)


def test_host_then_guest_then_host() -> None:
    story = boot().take(HVC, HOST + 8).back(GUEST).take(DABT, GUEST + 4).back(HOST + 8).take(HVC, HOST + 12)
    tracker = WorldTracker()
    assert run(story.events, tracker) == ["host", "host", "guest", "host"]
    assert tracker.switches == 2
    assert not tracker.observed


def test_exit_that_the_hypervisor_handles_itself() -> None:
    story = boot().take(HVC, HOST + 8).back(GUEST).take(DABT, GUEST + 4).back(GUEST + 8).take(HVC, GUEST + 12)
    tracker = WorldTracker()
    assert run(story.events, tracker) == ["host", "host", "guest", "guest"]
    assert tracker.switches == 1


def test_two_cpus_with_the_same_addresses() -> None:
    """CPU 0 enters its guest while CPU 1 makes a call that comes back: the returns say no CPU."""
    story = boot().back(HOST).take(HVC, HOST + 4, cpu=1).back(HOST + 4)
    story.take(HVC, HOST + 8).take(HVC, HOST + 8, cpu=1).back(GUEST).back(HOST + 8)
    story.take(DABT, GUEST + 4).take(HVC, HOST + 12, cpu=1)
    assert run(story.events) == ["host", "host", "host", "host", "guest", "host"]


def test_boot_of_another_cpu_in_between() -> None:
    """The first return of CPU 1 comes while CPU 0 is in EL2, and is no guest that CPU 0 starts."""
    story = boot().take(HVC, HOST + 8).back(0x4000_0000).back(HOST + 8)
    story.take(HVC, HOST + 12, cpu=1).back(HOST + 12).take(HVC, HOST + 12)
    assert run(story.events) == ["host"] * 4


def test_log_that_begins_in_a_guest() -> None:
    story = Story().take(WFX, GUEST).back(HOST).take(HVC, HOST + 4).back(GUEST + 4).take(SYSREG, GUEST + 8)
    assert run(story.events) == ["guest", "host", "guest"]


def test_log_that_begins_in_a_host() -> None:
    """A call alone says nothing, but what comes after it does: an unknown world is not what runs from then on."""
    story = Story().take(HVC, HOST).back(GUEST).take(WFX, GUEST + 4, base=0x8000)
    story.back(HOST).take(HVC, HOST + 8).back(GUEST + 8)
    story.take(DABT, GUEST + 8, base=0x8000).back(HOST + 8).take(HVC, HOST + 12)
    assert run(story.events) == ["unknown", "guest", "host", "guest", "host"]


def test_separate_vectors_of_a_guest() -> None:
    """nVHE: after a loss the vector base still tells."""
    story = boot().take(HVC, HOST + 8).back(GUEST).take(DABT, GUEST + 4, base=0x8000).back(HOST + 8)
    story.events.append(Lost(len(story.events), 5, "test"))
    story.take(DABT, GUEST + 8, base=0x8000)
    assert run(story.events)[-1] == "guest"


def test_vhe() -> None:
    """The host moves to EL2; its user space and a guest come from below, by different vectors."""
    story = Story(0x1000).back(HOST).take(HVC, HOST + 4).back(HOST + 4, el=2)
    story.back(0x400, el=0).take(SVC, 0x404, el=0, base=0x8000)
    story.take(0, HOST + 8, el=2, offset=FROM_EL2 + 0x80, base=0x8000).back(HOST + 8, el=2)
    story.back(GUEST).take(DABT, GUEST + 4, base=0x9000).back(GUEST + 8, el=0)
    story.take(DABT, 0x500, el=0, base=0x9000)
    tracker = WorldTracker()
    assert run(story.events, tracker) == ["host", "host", "host", "guest", "guest"]
    assert tracker.vhe
    assert tracker.switches == 4


def test_xen_has_no_host() -> None:
    story = Story().back(HOST).take(SYSREG, HOST + 4).back(HOST + 8).take(XEN_HVC, HOST + 12)
    tracker = WorldTracker()
    assert run(story.events, tracker) == ["guest", "guest"]
    assert tracker.blind
    assert tracker.switches == 0


def test_xen_switches_stacks() -> None:
    """Xen returns to EL2 where another CPU's, or another domain's, interrupt was taken: that is no VHE host."""
    story = boot().take(XEN_HVC, HOST + 12).back(0x7777, el=2)
    story.take(0, 0x7000, el=2, offset=FROM_EL2 + 0x80)
    tracker = WorldTracker()
    assert run(story.events, tracker) == ["guest", "guest", "hypervisor"]
    assert not tracker.vhe


def test_missing_return_is_noticed() -> None:
    story = boot().take(HVC, HOST + 8).take(HVC, HOST + 12)
    tracker = WorldTracker()
    run(story.events, tracker)
    assert tracker.contradictions == 1


@pytest.mark.parametrize(
    ("hcr", "vttbr", "from_el", "party"),
    [
        (0, 0, 1, Party("host")),
        (0, 0x0003_0000_4000_0000, 1, Party("host")),
        (VM, 0, 1, Party("host")),
        (VM, 0x0000_0000_4000_0000, 1, Party("host")),
        (VM, 0x0003_0000_4000_0000, 1, Party("guest", 3)),
        (VM, 0x0003_0000_4000_0000, 0, Party("guest", 3)),
        (VM | TGE | E2H, 0x0003_0000_4000_0000, 0, Party("host")),
        (VM | TGE | E2H, 0x0003_0000_4000_0000, 2, Party("host")),
        (VM | E2H, 0x0003_0000_4000_0000, 1, Party("guest", 3)),
        (VM, 0x0003_0000_4000_0000, 2, Party("hypervisor")),
    ],
)
def test_registers_decide(hcr: int, vttbr: int, from_el: int, party: Party) -> None:
    event = Taken(0, 0, 0x2400, from_el, hcr=hcr, vttbr=vttbr)
    assert WorldTracker().take(event) == party


@pytest.mark.parametrize(("vtcr", "vmid"), [(0, 0x34), (1 << 19, 0x1234)])
def test_width_of_a_vmid(vtcr: int, vmid: int) -> None:
    event = Taken(0, 0, 0x2400, 1, hcr=VM, vttbr=0x1234_0000_4000_0000, vtcr=vtcr)
    assert WorldTracker().take(event) == Party("guest", vmid)


def test_switch_between_guests() -> None:
    guests = [
        Taken(n, 0, 0x2400, 1, hcr=VM, vttbr=vmid << 48 | 0x1000) for n, vmid in enumerate((1, 1, 2, 2, 1))
    ]
    tracker = WorldTracker()
    run(guests, tracker)
    assert tracker.switches == 2
    assert tracker.observed


def test_bases_outweigh_a_return_that_was_another_cpus() -> None:
    """Host and guest have vectors of their own (KVM's nVHE modes): which were taken is better evidence than returns."""
    guests = 0x4000
    story = boot()
    for _ in range(100):
        story.take(HVC, HOST + 8).back(GUEST).take(DABT, GUEST + 4, base=guests).back(HOST + 8)
    # This return was of a CPU that the log does not show; the host goes on, and calls again.
    story.take(HVC, HOST + 8).back(GUEST).take(HVC, HOST + 12).back(HOST + 12).take(HVC, HOST + 16)
    tracker = WorldTracker()
    assert run(story.events, tracker)[-3:] == ["host", "host", "host"]
    assert tracker.contradictions == 1


def test_a_state_without_registers_is_nobodys() -> None:
    """A CPU of which neither HCR_EL2 nor VTTBR_EL2 is shown when a recording begins may be in a guest."""
    for known in ({}, {"hcr": VM}, {"vttbr": 3 << 48 | 0x1000}):
        tracker = WorldTracker()
        tracker.take(State(-1, 0, 1, 0x2000, **known))
        assert tracker.below(0) is None
    tracker = WorldTracker()
    tracker.take(State(-1, 0, 1, 0x2000, hcr=VM, vttbr=3 << 48 | 0x1000))
    assert tracker.below(0) == Party("guest")


def test_a_return_to_a_place_that_is_not_shown_tells_nothing() -> None:
    tracker = WorldTracker()
    tracker.take(Taken(0, 0, 0x2400, 1, esr=HVC, hcr=0, vttbr=0))
    tracker.take(Returned(1, 0, 1, HOST))
    assert tracker.below(0) == Party("host")
    tracker.take(Taken(2, 0, 0x2400, 1, esr=HVC, hcr=0, vttbr=0))
    tracker.take(Returned(3, 0, 1, None))
    assert tracker.below(0) is None


def test_maintenance_of_a_vmid_that_is_not_shown() -> None:
    statistics = Statistics("test")
    statistics.add(Maintained(0, 0, 0x1000, 0xD508_831F))
    (row,) = statistics.report().tlb_maintenance
    assert row.vmid is None
