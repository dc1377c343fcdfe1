"""What commands send to the stub: how many packets, and nothing that could be taken for another address space."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import qemu, tools
from support.demo import run_to
from support.gdb_session import GdbSession
from support.stub_proxy import Proxy, physical, proxy

GDBINIT = tools.ROOT / "gdbhyp" / "gdbinit.py"

RAM = range(0x4000_0000, 0x5000_0000)

# Registers that are read, and reads of physical memory. One of the registers is the PC, which is asked for once more to
# see that the CPU stands where GDB thinks.
COUNTS = {
    "hyp-walk $pc": (15, 4),
    "hyp-walk --stage2 0x80204128": (21, 3),
    "hyp-walk --regime EL1 $ELR_EL2": (22, 5),
    "hyp-ipa": (30, 13),
    "hyp-esr": (30, 11),
    "hyp-status": (30, 12),
    "hyp-map": (15, 12),
    "hyp-map --stage2": (21, 14),
}
MORE = (
    "hyp-vms",
    "hyp-audit",
    "hyp-x $pc",
    "hyp-find 0x44206080",
    "hyp-map --regime EL1 --both",
)


@dataclass
class Line:
    """A GDB at the demo hypervisor, and what stands between the two."""

    session: GdbSession
    proxy: Proxy

    def requests(self, command: str) -> list[bytes]:
        """Return what ``command`` makes GDB ask, where it knows no register of this stop yet."""
        self.session.run(command)  # what is asked once a connection is no part of a command
        self.session.run("maintenance flush register-cache")
        del self.proxy.requests[:]
        self.session.run(command)
        return list(self.proxy.requests)


@pytest.fixture
def line(gdb_program: str, machine: qemu.Machine, demo: Path, truth: Any, tmp_path: Path) -> Iterator[Line]:
    """A GDB through the proxy, where a guest's store was trapped, which reads memory by the stub."""
    with proxy(tmp_path / "line.sock", machine.gdb) as running, GdbSession(gdb_program, tmp_path) as session:
        session.run(f"file {demo / 'demo.elf'}")
        session.run(f"source {GDBINIT}")
        session.run(f"target remote {running.path}")
        session.run("set hyp memory stub")
        run_to(session, next(s for s in truth["vms"][0]["sites"] if s["symbol"] == "guest_perm_store"))
        yield Line(session, running)


def test_packets(line: Line) -> None:
    """Each register and each piece of memory is asked for once, and the mode of the stub is switched as seldom."""
    for command, expected in COUNTS.items():
        requests = line.requests(command)
        registers = [request for request in requests if request[:1] in (b"p", b"g")]
        reads = [request for request in physical(requests) if request[:1] in (b"m", b"x")]
        assert (len(registers), len(reads)) == expected, (command, requests)
        assert len(set(reads)) == len(reads), command
        twice = {request for request in registers if registers.count(request) > 1}
        assert not twice, command


def test_no_virtual_address_is_read_as_a_physical_one(line: Line) -> None:
    """GDB looks at the code around the PC when it has forgotten its frames: never while the stub is ours.

    The demo hypervisor's own addresses are no memory of the machine; others could be a device.
    """
    for command in (*COUNTS, *MORE):
        for request in physical(line.requests(command)):
            if request[:1] in (b"m", b"x"):
                assert int(request[1:].partition(b",")[0], 16) in RAM, (command, request)
