"""``hyp-catch`` on a real KVM: it stops at the exit that was asked for, and the VMM is told of the same one."""

from __future__ import annotations

from kvm.debugger import Debugger

_PATIENCE = 60.0
_MMIO, _ROM = (0x9000000, 0x9000FFF), (0x90000000, 0x9FFFFFFF)


def _catch(debugger: Debugger, words: str) -> None:
    """Catch, run into it, and select its CPU for the monitor too."""
    number = debugger.session.json(f"hyp-catch {words}")["catches"][0]["number"]
    debugger.run_for(_PATIENCE)
    assert debugger.session.json("hyp-catch")["catches"][0]["hits"] == 1, debugger.rig.tail()
    debugger.session.run(f"delete {number}")
    debugger.select(debugger.cpu)
    assert debugger.el == 2


def test_writes(hyp: Debugger) -> None:
    """A device, where HPFAR_EL2 tells the IPA, and a read-only slot, where only a walk does."""
    for (first, last), method in ((_MMIO, "hpfar"), (_ROM, "stage1_walk")):
        _catch(hyp, f"dabt --ipa {first:#x}-{last:#x} --write")
        report = hyp.session.json("hyp-ipa")
        ipa, data = int(report["ipa"], 16), hyp.register("x20") & 0xFFFF_FFFF
        assert report["method"] == method
        assert first <= ipa <= last
        assert hyp.vmm_is_told(ipa, data)


def test_call_and_entry(hyp: Debugger) -> None:
    """The host's own calls come by the same vectors, or others, and are not taken for the guest's."""
    _catch(hyp, "hvc #0x1234")
    assert hyp.register("ESR_EL2") == 0x5A001234
    assert hyp.register("x0") == 0xC600BEEF
    vmid = hyp.register("VTTBR_EL2") >> 48
    _catch(hyp, f"enter --vmid {vmid}")
    assert hyp.register("VTTBR_EL2") >> 48 == vmid
    assert hyp.register("SPSR_EL2") & 0xF == 5, "the guest runs at EL1h"
