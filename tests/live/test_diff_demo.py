"""``hyp-diff`` in real GDBs on the demo hypervisor: what a test changes between two stops."""

from __future__ import annotations

from typing import Any

import pytest
from support.demo import run_to
from support.gdb_session import CommandError, GdbSession

IPA, DISTANCE = 0x80200000, 0x6E0000200000 - 0x40200000


def test_what_changed_since(session: GdbSession, truth: Any) -> None:
    sites = truth["vms"][0]["sites"]
    run_to(session, sites[0])
    with pytest.raises(CommandError, match="hyp-map --save"):
        session.run("hyp-diff before")
    kept = session.json("hyp-map --stage2 --save before")
    assert kept["ranges"] == len(
        [line for line in session.run("hyp-map --stage2 --json").splitlines() if line.startswith("{")]
    )
    run_to(session, sites[1])
    leaf = int(session.json(f"hyp-walk --stage2 {IPA:#x}")["steps"][-1]["descriptor_address"], 16) + DISTANCE
    session.run(f"set *(unsigned long *) {leaf + 8:#x} = 0")
    session.run(f"set *(unsigned long *) {leaf + 16:#x} = 0x444447ff")
    found = session.json("hyp-diff before")
    (tree,) = found["trees"]
    assert [(c["kind"], c["start"], c["what"]) for c in tree["changes"]] == [
        ("removed", hex(IPA + 0x1000), []),
        ("moved", hex(IPA + 0x2000), ["pa", "rights", "exec"]),
    ]
    assert (tree["removed"], tree["moved"], tree["added"]) == (0x1000, 0x1000, 0)
    changed = {register["name"]: register for register in found["registers"]}
    assert int(changed["ESR_EL2"]["before"], 16) == int(sites[0]["esr"], 16)
    assert int(changed["ESR_EL2"]["after"], 16) == int(sites[1]["esr"], 16)
    assert found["registers_compared"] > 100
    session.run("hyp-map --stage2 --save after")
    assert session.json("hyp-diff before after")["trees"] == found["trees"]
    # Nothing is left of the difference against oneself.
    assert session.json("hyp-diff after")["trees"][0]["changes"] == []
