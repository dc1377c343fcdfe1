"""Expressions and pages of help on real hypervisors."""

from __future__ import annotations

from kvm.debugger import Debugger


def value(hyp: Debugger, expression: str) -> int:
    return int(hyp.session.run(f"output/x {expression}"), 16)


def test_a_condition_on_the_faulting_ipa(hyp: Debugger) -> None:
    """The vector of guests is watched for accesses to the device page alone."""
    hyp.stop_in_guest()
    assert hyp.session.run("output $hyp_world()") == '"guest"'
    assert value(hyp, "$hyp_pa($pc)") == int(hyp.session.json("hyp-walk $pc")["output"], 16)
    hyp.session.run(
        "thbreak *($VBAR_EL2 + 0x400) if $hyp_esr_ec() == 0x24 && !$_isvoid($hyp_ipa()) "
        "&& ($hyp_ipa() & ~0xfff) == 0x9000000"
    )
    hyp.session.run("continue")
    found = hyp.session.json("hyp-ipa")
    assert int(found["ipa"], 16) & ~0xFFF == 0x900_0000
    assert value(hyp, "$hyp_ipa()") == int(found["ipa"], 16)
    assert value(hyp, '$hyp_last("ipa")') == int(found["ipa"], 16)
    assert hyp.session.run("output $_isvoid($hyp_s2($hyp_ipa()))") == "1"


def test_help_says_what_is_here(hyp: Debugger) -> None:
    hyp.stop_in_guest()
    status = hyp.session.json("hyp-status")
    vhe, stage2 = (hyp.session.json(f"hyp-help {topic}")["here"] for topic in ("vhe", "stage2"))
    assert f"HCR_EL2.E2H = {int(status['e2h'])} " in vhe[0]
    assert f"world: {status['world']}," in vhe[1]
    assert f"VMID {status['vmid']}, root at PA {status['stage2']['root']}" in stage2[1]
    assert (
        f"{status['stage2']['ipa_bits']}-bit IPAs from level {status['stage2']['start_level']}" in stage2[2]
    )
