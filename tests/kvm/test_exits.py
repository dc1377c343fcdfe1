"""Real guest exits: the syndrome, and the IPA that the VMM is told for the same store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kvm.debugger import Debugger, is_mmio_abort, is_permission_abort

IPA_MMIO, IPA_ROM, IPA_LOG, IPA_TABLES = 0x9000000, 0x90000000, 0xA0000000, 0xB0000000
_MEGABYTE = ~0xFFFFF


def _is_write(esr: int) -> bool:
    return bool(esr >> 6 & 1)


def _stop_at(debugger: Debugger, wanted: Callable[[int], bool], va_of: int) -> dict[str, int]:
    """Stop at an exit whose FAR_EL2 lies in a guest's mapping of the IPA ``va_of``; return that mapping."""
    mappings = [line for line in debugger.rig.said("map") if line["ipa"] == va_of and line["va"] != va_of]
    hit: list[dict[str, int]] = []

    def in_mapping(esr: int) -> bool:
        far = debugger.register("FAR_EL2")
        hit[:] = [line for line in mappings if line["va"] <= far < line["va"] + line["size"]]
        return wanted(esr) and bool(hit)

    debugger.stop_at_exit(in_mapping)
    return hit[0]


def _ipa_of(debugger: Debugger, mapping: dict[str, int]) -> int:
    """Return the IPA of FAR_EL2 by the VMM's own map."""
    return debugger.register("FAR_EL2") - mapping["va"] + mapping["ipa"]


def _vmm_sees(debugger: Debugger, vm: int, ipa: int, data: int) -> bool:
    """Run until the VMM has printed that store."""
    for _ in range(50):
        debugger.run_for(0.1)
        if any(
            (line["vm"], line["ipa"], line["data"]) == (vm, ipa, data)
            for line in debugger.rig.said("mmio")
            if line["write"]
        ):
            return True
    return False


def test_mmio(hyp: Debugger) -> None:
    """No slot: a Translation fault, HPFAR_EL2 is valid, and the syndrome describes the store."""
    mapping = _stop_at(hyp, lambda esr: is_mmio_abort(esr) and _is_write(esr), IPA_MMIO)
    report = hyp.session.json("hyp-ipa")
    ipa, data = int(report["ipa"], 16), hyp.register("x20") & 0xFFFFFFFF
    assert (report["method"], report["hpfar_valid"]) == ("hpfar", True)
    assert ipa == _ipa_of(hyp, mapping)
    assert _syndrome(hyp) >= {"WnR": 1, "ISV": 1, "SRT": 20, "SAS": 2}.items()
    assert _vmm_sees(hyp, mapping["vm"], ipa, data)


def test_read_only_slot(hyp: Debugger) -> None:
    """A Permission fault: HPFAR_EL2 is UNKNOWN, and the walk of the guest's stage 1 gives the VMM's IPA."""
    mapping = _stop_at(hyp, lambda esr: is_permission_abort(esr) and _is_write(esr), IPA_ROM)
    report = hyp.session.json("hyp-ipa")
    ipa, data = int(report["ipa"], 16), hyp.register("x20") & 0xFFFFFFFF
    assert (report["method"], report["hpfar_valid"]) == ("stage1_walk", False)
    assert ipa == _ipa_of(hyp, mapping)
    assert _vmm_sees(hyp, mapping["vm"], ipa, data)


def test_logged_slot(hyp: Debugger) -> None:
    """Dirty logging: a Permission fault that the kernel settles by itself, so only the VMM's map can tell."""
    mapping = _stop_at(hyp, is_permission_abort, IPA_LOG)
    report = hyp.session.json("hyp-ipa")
    assert (report["method"], report["hpfar_valid"]) == ("stage1_walk", False)
    assert int(report["ipa"], 16) == _ipa_of(hyp, mapping)


def test_stage1_walk_fault(hyp: Debugger) -> None:
    """The VMM took the guest's tables out of stage 2: a fault on a stage-1 walk, at a descriptor's IPA."""
    hyp.stop_at_exit(lambda esr: esr >> 26 in (0x20, 0x24) and bool(esr >> 7 & 1))
    report = hyp.session.json("hyp-ipa")
    assert (report["s1ptw"], report["hpfar_valid"], report["method"]) == (True, True, "hpfar")
    tables = next(line for line in hyp.rig.said("slot") if line["ipa"] == IPA_TABLES)
    assert 0 <= int(report["ipa"], 16) - IPA_TABLES < tables["size"]


@pytest.mark.parametrize(
    ("wanted", "word"),
    [
        pytest.param(lambda esr: esr >> 26 == 0x16 and esr & 0xFFFF == 0x1234, "0x1234", id="hvc"),
        pytest.param(lambda esr: esr >> 26 == 0x17, "smc", id="smc"),
        pytest.param(lambda esr: esr >> 26 == 0x18 and esr & 1 == 1, "ID_AA64", id="mrs"),
        pytest.param(lambda esr: esr >> 26 == 0x18 and esr & 1 == 0, "OSLAR_EL1", id="msr"),
        pytest.param(lambda esr: esr >> 26 == 0x01, "wfi", id="wfi"),
        pytest.param(lambda esr: esr >> 26 == 0x07, "floating-point", id="fp"),
    ],
)
def test_syndrome(hyp: Debugger, wanted: Callable[[int], bool], word: str) -> None:
    """Each kind of exit that guest.S makes is named for what it is."""
    esr = hyp.stop_at_exit(wanted)
    report = hyp.session.json("hyp-esr")
    assert int(report["esr"], 16) == esr
    assert word in report["summary"]


def _syndrome(debugger: Debugger) -> Any:
    """Return the fields of the last syndrome, as a set of pairs of name and value."""
    return {field["name"]: field["value"] for field in debugger.session.json("hyp-esr")["fields"]}.items()
