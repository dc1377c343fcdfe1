"""``hyp-find`` in real GDBs on the demo hypervisor: against the map, and remembered only while it stands still."""

from __future__ import annotations

from typing import Any

from support.demo import run_to
from support.gdb_session import GdbSession


def inputs(session: GdbSession, address: int) -> set[tuple[str, int]]:
    found = session.json(f"hyp-find {address:#x}")
    assert not found["problems"]
    return {(m["tree"], int(m["start"], 16)) for m in found["mappings"]}


def test_finds_what_the_map_shows(session: GdbSession, truth: Any) -> None:
    run_to(session, truth["vms"][0]["sites"][0])
    maps = {"VM 0 stage 2": "--stage2 --range 0x80000000+0x206000", "hypervisor stage 1": "--regime EL2"}
    for tree, options in maps.items():
        for row in session.json_lines(f"hyp-map {options}"):
            assert (tree, int(row["start"], 16)) in inputs(session, int(row["pa"], 16))


def test_what_was_found_is_forgotten_when_it_may_have_changed(session: GdbSession, truth: Any) -> None:
    """After a write to a table and after the other VM's stop, the answer is another one."""
    first, second = truth["vms"][0]["sites"][0], truth["vms"][1]["sites"][0]
    run_to(session, first)
    page = 0x44403000
    (mapping,) = inputs(session, page)
    steps = session.json(f"hyp-walk {mapping[1]:#x} --stage2")["steps"]
    leaf = int(steps[-1]["descriptor_address"], 16)
    # EL2 maps its stage-2 tables, read-only for itself: GDB writes them all the same.
    va = next(start for tree, start in inputs(session, leaf) if tree.startswith("hypervisor"))
    session.run(f"set *(unsigned long *) {va:#x} = 0")
    assert inputs(session, page) == set()
    run_to(session, second)
    trees = session.json(f"hyp-find {page:#x}")["trees"]
    assert trees == ["hypervisor stage 1", "VM 0 stage 2"]
    (mapping,) = session.json("hyp-find 0x48600000")["mappings"]
    assert mapping["vmid"] == second["vmid"]
