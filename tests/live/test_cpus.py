"""Asking every CPU of the machine from one of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live.conftest import Attach, demo_arguments
from support import qemu
from support.demo import run_to
from support.gdb_session import GdbSession

_ASK = """python
import gdbhyp.plugin.target as target
with target.live_stop() as stop:
    stop.machine.memory.read(0x40000000, 8)
    asked = [(cpu.cpu, cpu.register("PC"), cpu.ram()[-1]) for cpu in stop.cpus()]
    stop.machine.memory.read(0x40001000, 8)
end"""


@pytest.fixture
def two(demo: Path, tmp_path: Path) -> Iterator[qemu.Machine]:
    with qemu.machine(tmp_path, demo_arguments(demo, 2)) as running:
        yield running


def test_all_cpus_and_nothing_changed(two: qemu.Machine, attach: Attach, truth: Any) -> None:
    session: GdbSession = attach(two)
    run_to(session, truth["vms"][0]["sites"][0])
    pcs = []
    for number in (1, 2):
        session.run(f"thread {number}")
        pcs.append(session.register("pc"))
    for selected in (1, 2):
        session.run(f"thread {selected}")
        before = session.run("info threads")
        session.run(_ASK)
        asked = session.python("asked")
        assert [(cpu, pc) for cpu, pc, _ in asked] == list(enumerate(pcs))
        assert [ram for _, _, ram in asked] == [[0x4000_0000, 0x5000_0000]] * 2
        assert session.run("info threads") == before
        assert "0" in session.run("maintenance packet qqemu.PhyMemMode").splitlines()[-1]
