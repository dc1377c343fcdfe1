"""Real guest exits: the syndrome, and the IPA that the VMM is told for the same store."""

from __future__ import annotations

from typing import Any

from kvm.debugger import IS_WRITE, MMIO_ABORT, PERMISSION_ABORT, Debugger, within

IPA_MMIO, IPA_ROM, IPA_LOG, IPA_TABLES = 0x9000000, 0x90000000, 0xA0000000, 0xB0000000


def _stop_at(debugger: Debugger, condition: str, ipa: int) -> dict[str, int]:
    """Stop at an exit of VM 0 whose FAR_EL2 lies in its mapping of the slot at ``ipa``; return that mapping."""
    mapping = next(line for line in debugger.rig.said("map") if line["ipa"] == ipa and line["va"] != ipa)
    debugger.stop_at_exit(f"{condition} && {within('FAR_EL2', mapping['va'], mapping['size'])}")
    return mapping


def _ipa_of(debugger: Debugger, mapping: dict[str, int]) -> int:
    """Return the IPA of FAR_EL2 by the VMM's own map."""
    return debugger.register("FAR_EL2") - mapping["va"] + mapping["ipa"]


def test_mmio(hyp: Debugger) -> None:
    """No slot: a Translation fault, HPFAR_EL2 is valid, and the syndrome describes the store."""
    mapping = _stop_at(hyp, f"{MMIO_ABORT} && {IS_WRITE}", IPA_MMIO)
    report = hyp.session.json("hyp-ipa")
    ipa, data = int(report["ipa"], 16), hyp.register("x20") & 0xFFFFFFFF
    assert (report["method"], report["hpfar_valid"]) == ("hpfar", True)
    assert ipa == _ipa_of(hyp, mapping)
    assert _syndrome(hyp) >= {"WnR": 1, "ISV": 1, "SRT": 20, "SAS": 2}.items()
    assert hyp.vmm_is_told(ipa, data, mapping["vm"])


def test_read_only_slot(hyp: Debugger) -> None:
    """A Permission fault: HPFAR_EL2 is UNKNOWN, and the walk of the guest's stage 1 gives the VMM's IPA."""
    mapping = _stop_at(hyp, f"{PERMISSION_ABORT} && {IS_WRITE}", IPA_ROM)
    report = hyp.session.json("hyp-ipa")
    ipa, data = int(report["ipa"], 16), hyp.register("x20") & 0xFFFFFFFF
    assert (report["method"], report["hpfar_valid"]) == ("stage1_walk", False)
    assert ipa == _ipa_of(hyp, mapping)
    assert hyp.vmm_is_told(ipa, data, mapping["vm"])


def test_logged_slot(hyp: Debugger) -> None:
    """Dirty logging: a Permission fault that the kernel settles by itself, so only the VMM's map can tell."""
    mapping = _stop_at(hyp, PERMISSION_ABORT, IPA_LOG)
    report = hyp.session.json("hyp-ipa")
    assert (report["method"], report["hpfar_valid"]) == ("stage1_walk", False)
    assert int(report["ipa"], 16) == _ipa_of(hyp, mapping)


def test_stage1_walk_fault(hyp: Debugger) -> None:
    """The VMM took the guest's tables out of stage 2: a fault on a stage-1 walk, at a descriptor's IPA."""
    hyp.stop_at_exit("($ESR_EL2 >> 26 == 0x20 || $ESR_EL2 >> 26 == 0x24) && ($ESR_EL2 & 0x80)")
    report = hyp.session.json("hyp-ipa")
    assert (report["s1ptw"], report["hpfar_valid"], report["method"]) == (True, True, "hpfar")
    tables = next(line for line in hyp.rig.said("slot") if line["ipa"] == IPA_TABLES)
    assert 0 <= int(report["ipa"], 16) - IPA_TABLES < tables["size"]


_KINDS = {
    "0x1234": "$ESR_EL2 >> 26 == 0x16 && ($ESR_EL2 & 0xffff) == 0x1234",
    "smc": "$ESR_EL2 >> 26 == 0x17",
    "ID_AA64": "$ESR_EL2 >> 26 == 0x18 && ($ESR_EL2 & 1) == 1",
    "OSLAR_EL1": "$ESR_EL2 >> 26 == 0x18 && ($ESR_EL2 & 1) == 0",
    "wfi": "$ESR_EL2 >> 26 == 0x01",
    "floating-point": "$ESR_EL2 >> 26 == 0x07",
}


def test_syndromes(hyp: Debugger) -> None:
    """Each kind of exit that guest.S makes is named for what it is."""
    for word, condition in _KINDS.items():
        esr = hyp.stop_at_exit(condition)
        report = hyp.session.json("hyp-esr")
        assert int(report["esr"], 16) == esr
        assert word in report["summary"]


def _syndrome(debugger: Debugger) -> Any:
    """Return the fields of the last syndrome, as a set of pairs of name and value."""
    return {field["name"]: field["value"] for field in debugger.session.json("hyp-esr")["fields"]}.items()
