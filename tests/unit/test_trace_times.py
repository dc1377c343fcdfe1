"""How long exits took, and who ran: a small history with round numbers."""

from __future__ import annotations

import random

import pytest

from gdbhyp.trace.events import Event, Lost, Maintained, Returned, Taken
from gdbhyp.trace.statistics import Statistics, StatReport
from gdbhyp.trace.times import Spread

VM, E2H_TGE = 1, 1 << 34 | 1 << 27
HVC, DABT = 0x16 << 26, 0x24 << 26 | 0x07


def host_calls(time: int, *, cpu: int = 0) -> Taken:
    return Taken(0, cpu, 0x2400, 1, time, HVC, elr=0x100, hcr=0, vttbr=0, x0=12)


def host_goes_on(time: int, *, cpu: int = 0) -> Returned:
    return Returned(0, cpu, 1, 0x100, time, 0, 0)


def guest_enters(time: int, *, vmid: int = 3, cpu: int = 0) -> Returned:
    return Returned(0, cpu, 1, 0x9000, time, VM, vmid << 48 | 0x1000)


def guest_exits(time: int, *, vmid: int = 3, cpu: int = 0, esr: int = DABT) -> Taken:
    return Taken(0, cpu, 0x4400, 1, time, esr, 0x5000, 0x90, 0x9000, hcr=VM, vttbr=vmid << 48 | 0x1000)


def report(*events: Event) -> StatReport:
    statistics = Statistics("test")
    statistics.extend(events)
    return statistics.report()


def handling(stat: StatReport, world: str = "guest") -> list[tuple[int, int | None, int | None, int | None]]:
    return [(r.handled, r.min_ns, r.avg_ns, r.max_ns) for r in stat.exits if r.world == world]


ROUND = (
    host_calls(1000),
    guest_enters(1100),
    guest_exits(1600),
    host_goes_on(1630),
    host_calls(1900),
    guest_enters(2000),
)


def test_round() -> None:
    stat = report(*ROUND)
    # An exit is handled when the guest runs again, a call when EL2 is left.
    assert handling(stat) == [(1, 400, 400, 400)]
    assert handling(stat, "host") == [(2, 100, 100, 100)]
    guest, host = stat.worlds
    assert (guest.world, guest.vmid, guest.exits, guest.entries, guest.handed_over) == ("guest", 3, 1, 2, 1)
    assert (guest.running_ns, guest.el2_ns) == (500, 30)
    assert (host.running_ns, host.el2_ns, host.entries, host.handed_over) == (270, 200, 1, None)
    assert guest.running_share + guest.el2_share + host.running_share + host.el2_share == pytest.approx(1)


def test_exit_that_el2_settles_is_not_handed_over() -> None:
    stat = report(*ROUND, guest_exits(2500), guest_enters(2510))
    assert handling(stat) == [(2, 10, 205, 400)]
    assert next(row.handed_over for row in stat.worlds if row.world == "guest") == 1


def test_another_guest_in_between_is_no_handling() -> None:
    """The vCPU that exited may have been taken to another CPU: its exit's time is not known."""
    stat = report(guest_exits(100), guest_enters(150, vmid=4), guest_exits(200, vmid=4), guest_enters(250))
    assert {(row.vmid, row.handled, row.total_ns) for row in stat.exits} == {(3, 0, None), (4, 0, None)}


def test_cpus_are_apart() -> None:
    stat = report(guest_exits(100), guest_exits(110, cpu=1), guest_enters(160, cpu=1), guest_enters(300))
    assert handling(stat) == [(2, 50, 125, 200)]


def test_a_gap_ends_what_is_measured() -> None:
    stat = report(guest_exits(100), Lost(0, 5, "test"), guest_enters(10_000), guest_exits(10_100))
    assert handling(stat) == [(0, None, None, None)]
    assert stat.dropped == 5
    assert [row.running_ns for row in stat.worlds] == [100]


def test_missing_returns_are_no_time() -> None:
    """Breakpoints on vectors alone: nobody knows when EL2 was left."""
    stat = report(host_calls(100), guest_exits(500), host_calls(900))
    assert stat.worlds == ()
    assert all(row.handled == 0 for row in stat.exits)


def test_host_at_el2() -> None:
    """Under VHE nothing says whether EL2 has settled an exit itself."""
    svc = Taken(0, 0, 0x400, 0, 1000, 0x15 << 26, elr=0x100, hcr=E2H_TGE, vttbr=3 << 48)
    back = Returned(0, 0, 0, 0x100, 1500, E2H_TGE, 3 << 48)
    stat = report(svc, guest_enters(1100), guest_exits(1200), back)
    assert [row.handed_over for row in stat.worlds] == [None, None]
    assert {row.world: row.running_ns for row in stat.worlds} == {"guest": 100, "host": 0}
    # It went from user space to the guest, which is no handling of the system call.
    assert handling(stat, "host") == [(0, None, None, None)]


def test_maintenance_is_counted_by_vmid() -> None:
    ipas2e1is = 0xD50C8021
    stat = report(*(Maintained(0, 0, 0x8000, ipas2e1is + rt, vttbr=3 << 48) for rt in (0, 5)))
    assert stat.maintenance == 2
    assert [(row.vmid, row.instruction, row.count) for row in stat.tlb_maintenance] == [
        (3, "TLBI IPAS2E1IS", 2)
    ]
    assert stat.events == 0


def test_host_calls_by_name() -> None:
    statistics = Statistics("test")
    for x0 in (0xC600000C, 0xC600000C, 0xC600000D, 0xC6000001):
        statistics.add(host_calls(10)._replace(x0=x0))
    assert statistics.host_calls() == {0xC600000C, 0xC600000D, 0xC6000001}
    rows = statistics.report(names={0xC600000C: "run", 0xC600000D: "flush"}).calls
    assert [(row.name, row.count) for row in rows] == [
        ("run (KVM host call 12)", 2),
        ("flush (KVM host call 13)", 1),
        ("KVM host call 1", 1),
    ]


def test_more_places_than_are_kept_apart() -> None:
    """Memory is bounded; what is counted by class stays exact."""
    statistics = Statistics("test")
    for n in range(50_000):
        statistics.add(guest_exits(n)._replace(elr=n * 4, hpfar=n << 4))
    stat = statistics.report()
    assert [(row.count, row.share) for row in stat.exits] == [(50_000, 1.0)]
    assert len(stat.pcs) == 10


def test_percentile_is_within_one_percent() -> None:
    rng = random.Random(1)
    durations = [int(rng.lognormvariate(10, 2)) for _ in range(10_000)]
    spread = Spread()
    for duration in durations:
        spread.add(duration)
    exact = sorted(durations)[9899]
    assert exact * 0.99 <= spread.percentile(99) <= exact
    assert (spread.least, spread.most, spread.total) == (min(durations), max(durations), sum(durations))
    assert spread.percentile(100) <= spread.most


def test_percentile_of_few() -> None:
    spread = Spread()
    spread.add(7)
    assert spread.percentile(99) == 7
