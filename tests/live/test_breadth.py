"""Both ends of what is supported, crossed: GDB 13.1 and 18.1, each on QEMU 7.2 and 10."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live.conftest import Attach, demo_arguments
from support import qemu, tools
from support.demo import run_to
from support.gdb_session import GdbSession


@pytest.fixture(params=["system", "newest"])
def machine(request: pytest.FixtureRequest, demo: Path, tmp_path: Path) -> Iterator[qemu.Machine]:
    """The demo hypervisor on the distribution's QEMU, and on that of its backports."""
    program = tools.qemu() if request.param == "system" else tools.newest_qemu()
    with qemu.machine(tmp_path, demo_arguments(demo), program=program) as running:
        yield running


@pytest.fixture
def session(machine: qemu.Machine, attach: Attach) -> GdbSession:
    return attach(machine)


def test_the_same_answers_everywhere(session: GdbSession, truth: Any) -> None:
    vm = truth["vms"][0]
    site = next(s for s in vm["sites"] if s["symbol"] == "guest_perm_store")
    run_to(session, site)
    status = session.json("hyp-status")
    assert (status["el"], status["world"], status["vmid"]) == (2, "hypervisor", site["vmid"])
    assert status["last_exception"]["ec"]["value"] == site["ec"]
    found = session.json("hyp-ipa")
    assert (found["ipa"], found["method"], found["stage2"]["output"]) == (
        site["ipa"],
        "stage1_walk",
        site["pa"],
    )
    mapped = [row for row in vm["map"] if row["fault"] in (None, "access_flag")]
    printed = session.run("hyp-map --stage2 --json").splitlines()
    rows = [json.loads(line) for line in printed if line.startswith("{")]
    keys = ("start", "end", "pa", "level", "page_size", "read", "write", "contiguous")
    assert [{k: r[k] for k in keys} for r in rows] == [{k: r[k] for k in keys} for r in mapped]
    assert session.json("hyp-walk $pc")["output_space"] == "PA"
    assert int(session.run("output/x $hyp_s2($hyp_ipa())"), 16) == int(site["pa"], 16)
    assert session.json("hyp-reg VTCR_EL2")["value"] == vm["vtcr"]
    session.run("hyp-trace start --source break")
    session.run("tbreak host_loop")
    session.run("continue")
    assert session.json("hyp-trace stat")["exceptions"] > 5
    session.run("hyp-trace stop")
