"""Every exit of a machine's whole life, recorded by the TCG plugin and by QEMU's log at once, against KVM's counters.

KVM counts an exit for each run of a vCPU. On nVHE hosts that is one call of ``__kvm_vcpu_run``, also when EL2 defers
the entry for a pending interrupt; of the guest's exceptions, those that EL2 settles itself (a first use of the FP
registers) are no exits. In VHE there is no such call, and a deferred entry leaves no trace.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support import tools

from gdbhyp.cli.main import main
from gdbhyp.trace.tcg_build import build
from kvm.rig import HVHE_6_12, NVHE, PKVM, VHE, XEN, Rig, Target, boot, boot_xen

HVC, SMC, FP, SYSREG, WFX = 0x16, 0x17, 0x07, 0x18, 0x01
_RECORDS = 1 << 20
_PATIENCE = 90.0
# No spinning and no idling: as many exits as the machine can make in this time.
_OPTIONS = "rig.vms=2 rig.spin=0 rig.wfi=0 rig.mmio-lines=1 rig.mmio-rate=1 rig.seconds=2"

_EXCEPTION = re.compile(
    rb"^Taking exception (\d+) .*\n\.\.\.from EL\d to EL\d\n\.\.\.with ESR 0x([0-9a-f]+)/.*\n"
    rb"(?:\.\.\.with (?:FAR|SPSR|ELR) .*\n)+\.\.\.to EL2 PC 0x[0-9a-f]+([0-9a-f]{3}) ",
    re.MULTILINE,
)


class Recorded:
    """What both sources say of one machine."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capture = capture

    @property
    def options(self) -> list[str]:
        """QEMU's options."""
        plugin = build(str(self.folder / "gdbhyp-trace.so")).path
        return [
            *("-plugin", f"{plugin},ring={self.folder / 'ring'},on=on,records={_RECORDS}"),
            *("-d", "int", "-D", str(self.folder / "log")),
        ]

    def stat(self, name: str) -> Any:
        """Return the statistics of "ring" or "log"."""
        self._capture.readouterr()
        assert main(["trace", "stat", str(self.folder / name), "--json"]) == 0
        return json.loads(self._capture.readouterr().out)

    def raw(self) -> tuple[Counter[int | None], int]:
        """Count exceptions to EL2 by class in the log, without gdbhyp: no class for what is not synchronous.

        Those of which the lines of two CPUs are mixed have no class that is so easily told; they are counted apart.
        """
        log = (self.folder / "log").read_bytes()
        whole = _EXCEPTION.findall(log)
        counts = Counter(int(ec, 16) if int(offset, 16) & 0x180 == 0 else None for _, ec, offset in whole)
        return counts, log.count(b"...to EL2 PC ") - len(whole)


@pytest.fixture
def recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Recorded:
    tools.need("cc")
    return Recorded(tmp_path, capsys)


def by_class(stat: Any, world: str | None = None) -> Counter[int | None]:
    counts: Counter[int | None] = Counter()
    for row in stat["exits"]:
        if world in (None, row["world"]):
            counts[row["ec"]] += row["count"]
    return counts


def run_to_the_end(rig: Rig) -> dict[str, int]:
    """Wait until the VMM is done and the machine is off; return KVM's counters."""
    rig.machine.process.wait(_PATIENCE)
    (kernel,) = rig.said("kernel")
    return kernel


def check_sources(recorded: Recorded) -> tuple[Any, Any]:
    """Both sources have everything, and say the same."""
    ring, log = recorded.stat("ring"), recorded.stat("log")
    assert ring["dropped"] == log["dropped"] == ring["contradictions"] == 0
    assert by_class(ring) == by_class(log)
    counts, mixed = recorded.raw()
    assert mixed <= sum(counts.values()) // 1000
    assert counts - by_class(ring) == Counter()
    assert sum((by_class(ring) - counts).values()) == mixed
    assert ring["returns"] == log["returns"]
    assert not ring["worlds_deduced"]
    return ring, log


@pytest.mark.parametrize("target", [NVHE, VHE, PKVM, HVHE_6_12], ids=str)
def test_kvm(target: Target, recorded: Recorded, initramfs: Path) -> None:
    program = tools.newest_qemu()
    with boot(recorded.folder, target, initramfs, _OPTIONS, program=program, more=recorded.options) as rig:
        kernel = run_to_the_end(rig)
    ring, log = check_sources(recorded)
    rounds = sum(line["rounds"] for line in rig.said("count")[-2:])
    guest = by_class(ring, "guest")
    assert guest[HVC] == kernel["hvc"]
    # Each round that was finished, and up to one more of each guest.
    assert rounds <= guest[SMC] <= rounds + 2
    assert guest[WFX] == kernel["wfi"] + kernel["wfe"]
    # The log has every exception, but whose it was is deduced: of two CPUs' returns one may be taken for the other's.
    deduced = by_class(log, "guest")
    for ec in (HVC, SMC, WFX):
        assert abs(deduced[ec] - guest[ec]) <= 2 + guest[ec] // 50, f"EC {ec:#x} by the log: {log}"
    exits = guest.total() - guest[FP]
    if target is VHE:
        assert exits <= kernel["exits"]
    else:
        runs = next(row["count"] for row in ring["calls"] if row["world"] == "host")
        assert runs == kernel["exits"]
        handed_over = sum(row["handed_over"] for row in ring["worlds"] if row["world"] == "guest")
        assert exits <= handed_over <= kernel["exits"]
    assert kernel["exits"] - exits < kernel["exits"] // 10


def test_xen(recorded: Recorded, initramfs: Path) -> None:
    """Xen has no counters to ask; QEMU's own log has been counted without gdbhyp."""
    with boot_xen(recorded.folder, initramfs, program=tools.newest_qemu(), more=recorded.options) as rig:
        rig.machine.command("stop")
        rig.machine.process.terminate()
        rig.machine.process.wait(_PATIENCE)
    assert XEN.says in rig.text()
    ring, _ = check_sources(recorded)
    assert {row["vmid"] for row in ring["exits"] if row["world"] == "guest"} == {1}
    assert by_class(ring, "guest")[HVC] > 100
