"""What the rest of the state adds to a syndrome's summary."""

from __future__ import annotations

from gdbhyp.arch.syndrome import Abort, SyndromeContext, decode_esr


def summary(esr: int, el: int = 2, **known: object) -> str:
    return decode_esr(esr, el=el, context=SyndromeContext(**known)).summary  # type: ignore[arg-type]


def abort(esr: int, el: int = 2, **known: object) -> Abort:
    found = decode_esr(esr, el=el, context=SyndromeContext(**known)).abort  # type: ignore[arg-type]
    assert found is not None
    return found


def test_ipa_from_hpfar() -> None:
    assert summary(0x93850045, far=0x9000004, hpfar=0x90000) == (
        "guest write of 4 bytes from w5 to IPA 0x9000004 (stage-2 translation fault, level 1)"
    )


def test_page_offset_from_far() -> None:
    found = abort(0x93850045, far=0xFFFF_8000_0001_0FFC, hpfar=0xF_FFFF_FF90_0000)
    assert found.ipa == 0xFF_FFFF_9000_0FFC
    assert not found.ipa_page_only
    assert found.far == 0xFFFF_8000_0001_0FFC


def test_secure_bit_of_hpfar_is_no_address() -> None:
    assert abort(0x93850045, far=4, hpfar=1 << 63 | 0x90000).ipa == 0x9000004


def test_hpfar_not_valid_for_permission() -> None:
    found = abort(0x9200004F, far=0x1234, hpfar=0x90000)
    assert (found.hpfar_valid, found.ipa) == (False, None)


def test_hpfar_valid_for_permission_on_a_walk() -> None:
    found = abort(0x920000CF, far=0x1234, hpfar=0x90000)
    assert (found.hpfar_valid, found.ipa, found.ipa_page_only) == (True, 0x9000000, True)


def test_resolved_ipa_wins() -> None:
    assert abort(0x9200004F, far=0x1234, hpfar=0x90000, ipa=0x8000_1234).ipa == 0x8000_1234


def test_walk_fault_in_words() -> None:
    assert summary(0x92000086, far=0x1234, hpfar=0x90000) == (
        "guest stage-1 table walk for a read at IPA page 0x9000000 "
        "(stage-2 translation fault, level 2), VA 0x1234"
    )


def test_fnv_hides_far() -> None:
    found = abort(0x92000410, far=0x1234)
    assert (found.fnv, found.far) == (True, None)


def test_without_stage_2() -> None:
    assert summary(0x92000046, far=0x1234, guest=False, stage2=False, from_el=0) == (
        "host EL0 write to VA 0x1234 (stage-1 translation fault, level 2)"
    )


def test_guest_access_through_vncr() -> None:
    assert summary(0x96002005).startswith("guest read (stage-1 translation fault, level 1, register access")


def test_stage_1_at_el1() -> None:
    assert abort(0x96000045, 1).stage == 1


def test_external_abort_has_no_stage() -> None:
    assert abort(0x92000010).stage is None


def test_written_value() -> None:
    assert summary(0x62300460, registers={3: 0x1234}) == "msr SCTLR_EL1, x3 trapped (x3 = 0x1234)"


def test_zero_register() -> None:
    assert summary(0x623003E0 | 0x20400).endswith("xzr trapped")


def test_aarch32_registers() -> None:
    assert summary(0x93930045, aarch32=True).startswith("guest write of 4 bytes from SP_svc")


def test_aarch32_from_spsr() -> None:
    assert "from r5" in summary(0x93850045, spsr=0x1D3)


def test_source_el_from_spsr() -> None:
    assert summary(0x07E00000, spsr=0x3C5, guest=True) == "guest wfi trapped"
    assert summary(0x07E00000, spsr=0x3C0, guest=True) == "guest EL0 wfi trapped"
    assert summary(0x1FE00000, spsr=0x3C9).startswith("EL2 floating-point")


def test_psci() -> None:
    decoded = decode_esr(0x5A000000, context=SyndromeContext(registers={0: 0xC400_0003}.get))
    assert decoded.call == "PSCI_CPU_ON (SMC64)"
    assert decoded.summary == "hvc #0: PSCI_CPU_ON (SMC64) (x0 = 0xc4000003)"


def test_xen_number_is_in_x16() -> None:
    assert (
        decode_esr(0x5A000EA1, context=SyndromeContext(registers={16: 18})).call == "Xen hypercall console_io"
    )


def test_call_of_kvm_host() -> None:
    known = {0: 0xC600_0012}
    assert (
        decode_esr(0x5A000000, context=SyndromeContext(registers=known, guest=False)).call
        == "KVM host call 18"
    )
    assert "KVM host" not in summary(0x5A000000, registers=known, guest=True)


def test_unknown_registers_say_nothing() -> None:
    decoded = decode_esr(0x5A000000, context=SyndromeContext(registers={1: 5}))
    assert (decoded.call, decoded.summary) == (None, "hvc #0")


def test_class_of_another_level() -> None:
    assert decode_esr(0x5A000000, el=1).ec.name == "HVC (AArch64) (not possible at EL1)"
    assert "not possible" not in decode_esr(0x5A000000, el=2).summary


def test_field_lookup() -> None:
    decoded = decode_esr(0x93C58045)
    assert (decoded.field("SRT"), decoded.field("imm16")) == (5, None)


def test_sixty_four_byte_access() -> None:
    found = abort(0x93C59045)
    assert (found.size, found.register) == (64, "x5")
