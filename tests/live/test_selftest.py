"""The comparison with QEMU's own translation: it agrees, it notices what does not, and it leaves no trace."""

from __future__ import annotations

from typing import Any

from support.demo import run_to
from support.gdb_session import GdbSession


def stops(session: GdbSession, truth: Any) -> list[str]:
    """Yield to the hypervisor at EL2, and to the guest and the host below it."""
    site = next(s for s in truth["vms"][0]["sites"] if s["symbol"] == "guest_perm_store")
    run_to(session, site)
    return ["el1_sync", f"*{site['elr']}", "host_loop"]


def test_all_agree_in_each_regime(session: GdbSession, truth: Any) -> None:
    regimes = set()
    for number, place in enumerate(stops(session, truth)):
        if number:
            session.run(f"thbreak {place}")
            session.run("continue")
        answer = session.json("hyp-selftest --samples 300")
        assert answer["differences"] == []
        assert answer["problems"] == []
        assert answer["asked"] == 300
        assert answer["agreed"] == 300 - answer["set_aside"] > 250
        assert answer["mapped"] > 50
        regimes.add((answer["regime"], answer["el"]))
    assert regimes == {("EL2", 2), ("EL1&0", 1)}


def test_a_seed_draws_the_same(session: GdbSession, truth: Any) -> None:
    stops(session, truth)
    assert session.run("hyp-selftest --seed 7 --json") == session.run("hyp-selftest --seed 7 --json")


def test_a_difference_is_shown(session: GdbSession, truth: Any) -> None:
    """A stand-in for a monitor that lies about one address in four."""
    stops(session, truth)
    session.run("python import gdbhyp.plugin.oracle as oracle")
    session.run("python oracle.honest = oracle.gva2gpa")
    session.run("python oracle.gva2gpa = lambda va: 0x1234000 if va >> 3 & 3 == 0 else oracle.honest(va)")
    answer = session.json("hyp-selftest --seed 3")
    lied = [d for d in answer["differences"] if d["theirs"] == "0x1234000"]
    assert lied
    assert lied == answer["differences"]
    assert answer["agreed"] == answer["asked"] - len(lied) - answer["set_aside"]
    assert lied[0]["va"] in session.run("hyp-selftest --seed 3")


def test_the_monitors_cpu_stays(session: GdbSession, truth: Any) -> None:
    stops(session, truth)
    before = session.run("monitor info cpus")
    session.run("hyp-selftest --samples 5")
    assert session.run("monitor info cpus") == before
