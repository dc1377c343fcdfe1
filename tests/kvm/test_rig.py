"""The rig itself: it boots, KVM runs in the mode that was asked for, and the VMM tells the truth in full."""

from __future__ import annotations

import pytest

from kvm.debugger import IS_WRITE, MMIO_ABORT, PERMISSION_ABORT, Debugger, within
from kvm.rig import Rig

IPA_MMIO, IPA_ROM = 0x9000000, 0x90000000


def test_mode(rig: Rig) -> None:
    assert rig.target.says in rig.text()


def test_slots(rig: Rig) -> None:
    for vm in (0, 1):
        slots = {slot["slot"]: slot for slot in rig.said("slot") if slot["vm"] == vm}
        assert len(slots) == 5
        assert slots[4]["ipa"] > 1 << 39, "one slot lies above 512 GiB"


def test_mmio_lines(rig: Rig) -> None:
    """A write carries the guest's round, which gives the IPA by guest.S, computed here again."""
    lines = rig.said("mmio")
    assert len(lines) > 6
    for line in lines:
        turn = line["data"]
        if line["write"] and line["ipa"] not in (IPA_MMIO + 0xFF0, IPA_MMIO + 0xFF8):
            rom = IPA_ROM + turn % 16 * 0x1000 + turn % 1024 * 4
            assert line["ipa"] in (IPA_MMIO + 4 + turn % 64 * 8, rom)
            assert line["len"] == 4


def test_guest_stop(debugger: Debugger) -> None:
    """A breakpoint at a guest's VA stops in that guest; its registers are those that guest.S set."""
    for vm in (1, 0):
        debugger.stop_in_guest(vm)
        assert debugger.el == 1
        assert debugger.register("TTBR0_EL1") == 0xB0000000
        assert debugger.register("VTTBR_EL2") >> 48


@pytest.mark.parametrize(
    ("condition", "base"), [(MMIO_ABORT, IPA_MMIO), (PERMISSION_ABORT, IPA_ROM)], ids=["mmio", "permission"]
)
def test_exit_as_vmm_says(debugger: Debugger, condition: str, base: int) -> None:
    """At the EL2 vector, HPFAR_EL2 and FAR_EL2 give the IPA that the VMM prints for that same exit.

    QEMU fills HPFAR_EL2 for Permission faults too, which the architecture does not promise.
    """
    debugger.stop_at_exit(f"{condition} && {IS_WRITE} && {within('HPFAR_EL2', base >> 8, 0x1000)}")
    ipa = debugger.register("HPFAR_EL2") << 8 | debugger.register("FAR_EL2") & 0xFFF
    assert debugger.vmm_is_told(ipa, debugger.register("x20"))
