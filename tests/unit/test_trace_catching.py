"""Which exits a catch matches, and how few registers it asks for."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from gdbhyp.errors import UsageError
from gdbhyp.trace.catching import Wanted, check, faulting_ipa
from gdbhyp.trace.worlds import Party, party_below

VM = 1 << 0
TRANSLATION, PERMISSION, S1PTW, WRITE = 0x07, 0x0F, 1 << 7, 1 << 6
DABT, HVC, SYS64 = 0x24 << 26 | 1 << 25, 0x16 << 26 | 1 << 25, 0x18 << 26 | 1 << 25
# op0 3, op2 5, op1 0, CRn 12, CRm 11: ICC_SGI1R_EL1; the same with op2 0, CRn 0, CRm 4: ID_AA64PFR0_EL1.
WRITE_SGI = SYS64 | 3 << 20 | 5 << 17 | 12 << 10 | 11 << 1
READ_PFR0 = SYS64 | 3 << 20 | 4 << 1 | 1


@dataclasses.dataclass
class Exit:
    """A CPU at a vector; ``asked`` are the registers that were needed."""

    registers: dict[str, int]
    offset: int = 0x400
    cpu: int = 0
    walked: int | None = None
    asked: list[str] = dataclasses.field(default_factory=list)

    def get(self, name: str, /) -> int | None:
        self.asked.append(name)
        return self.registers.get(name)

    @property
    def kind(self) -> int:
        return self.offset >> 7 & 3

    @property
    def saved_el(self) -> int:
        return 1

    @property
    def party(self) -> Party:
        return party_below(self.get("HCR_EL2") or 0, self.get("VTTBR_EL2") or 0, 0)

    def walked_ipa(self) -> int | None:
        return self.walked


def exit_of(esr: int, vmid: int = 3, offset: int = 0x400, walked: int | None = None, **more: int) -> Exit:
    registers = {"ESR_EL2": esr, "HCR_EL2": VM, "VTTBR_EL2": vmid << 48 | 0x1000, "ELR_EL2": 0x8000, **more}
    return Exit(registers, offset, walked=walked)


@pytest.mark.parametrize(
    ("wanted", "at", "expected"),
    [
        (Wanted("dabt"), exit_of(DABT | TRANSLATION), True),
        (Wanted("dabt"), exit_of(HVC), False),
        (Wanted("dabt"), exit_of(DABT | TRANSLATION, offset=0x600), True),
        # At the IRQ vector, ESR_EL2 is of an older exception.
        (Wanted("dabt"), exit_of(DABT | TRANSLATION, offset=0x480), False),
        (Wanted("irq"), exit_of(DABT | TRANSLATION, offset=0x480), True),
        (Wanted("exit"), exit_of(0, offset=0x500), True),
        (Wanted("exit", write=True), exit_of(DABT | WRITE, offset=0x480), False),
        (Wanted("ec", ec=0x24), exit_of(DABT), True),
        (Wanted("ec", ec=0x2F), exit_of(0x2F << 26, offset=0x580), True),
        (Wanted("dabt", write=True), exit_of(DABT | TRANSLATION | WRITE), True),
        (Wanted("dabt", write=True), exit_of(DABT | TRANSLATION), False),
        (Wanted("dabt", write=False), exit_of(DABT | TRANSLATION), True),
        (Wanted("dabt"), exit_of(DABT, vmid=0), False),
        (Wanted("dabt", world="host"), exit_of(DABT, vmid=0), True),
        (Wanted("dabt", world=None), exit_of(DABT, vmid=0), True),
        (Wanted("vmid", vmid=3), exit_of(HVC, vmid=3), True),
        (Wanted("vmid", vmid=3), exit_of(HVC, vmid=4), False),
        (Wanted("hvc", cpu=1), exit_of(HVC), False),
        (Wanted("hvc", pc=(0x8000, 0x8000)), exit_of(HVC), True),
        (Wanted("hvc", pc=(0x8001, 0x9000)), exit_of(HVC), False),
        (Wanted("hvc", immediate=0x1234), exit_of(HVC | 0x1234), True),
        (Wanted("hvc", immediate=0x1234), exit_of(HVC), False),
        (Wanted("hvc", call=0x84000000), exit_of(HVC, X0=0x84000000), True),
        (Wanted("hvc", call=0x84000000), exit_of(HVC, X0=0xFFFF_FFFF_8400_0000), True),
        (Wanted("hvc", call="psci_version"), exit_of(HVC, X0=0x84000000), True),
        (Wanted("hvc", call="PSCI_CPU_ON"), exit_of(HVC, X0=0xC4000003), True),
        (Wanted("hvc", call="PSCI_CPU_ON"), exit_of(HVC, X0=0x84000000), False),
        (Wanted("sysreg"), exit_of(WRITE_SGI), True),
        (Wanted("sysreg", register="ICC_SGI1R_EL1"), exit_of(WRITE_SGI), True),
        (Wanted("sysreg", register="ICC_SGI1R_EL1"), exit_of(READ_PFR0), False),
        (Wanted("sysreg", register="ID_AA64PFR0_EL1", write=False), exit_of(READ_PFR0), True),
        (Wanted("sysreg", register="ID_AA64PFR0_EL1", write=True), exit_of(READ_PFR0), False),
        (Wanted("sysreg", write=True), exit_of(WRITE_SGI), True),
        (Wanted("enter"), exit_of(0), True),
        (Wanted("enter", vmid=4), exit_of(0), False),
    ],
)
def test_matches(wanted: Wanted, at: Exit, expected: bool) -> None:
    assert wanted.matches(at) is expected


@pytest.mark.parametrize(
    ("esr", "walked", "ipa"),
    [
        (DABT | TRANSLATION, None, (0x9000048, 0x9000048)),
        (DABT | PERMISSION | S1PTW, None, (0x9000000, 0x9000FFF)),
        # HPFAR_EL2 is UNKNOWN for a permission fault: only a walk tells.
        (DABT | PERMISSION, 0x80204048, (0x80204048, 0x80204048)),
        (DABT | PERMISSION, None, None),
        (DABT | 0x10, None, None),
        (HVC, None, None),
    ],
)
def test_ipa(esr: int, walked: int | None, ipa: Any) -> None:
    at = exit_of(esr, walked=walked, FAR_EL2=0xFFFF_8000_0000_1048 & ~0xFFF | 0x48, HPFAR_EL2=0x9000 << 4)
    assert faulting_ipa(at) == ipa
    if ipa is not None:
        assert Wanted("dabt", ipa=(ipa[0], ipa[0])).matches(at)
        assert not Wanted("dabt", ipa=(0, ipa[0] - 1)).matches(at)
        assert not Wanted("dabt", ipa=(ipa[1] + 1, 1 << 50)).matches(at)


def test_what_is_not_the_kind_costs_one_register_at_most() -> None:
    other = exit_of(HVC)
    assert not Wanted("dabt", ipa=(0, 1), vmid=3).matches(other)
    assert other.asked == ["ESR_EL2"]
    interrupt = exit_of(0, offset=0x480)
    assert not Wanted("dabt").matches(interrupt)
    assert interrupt.asked == []


@pytest.mark.parametrize(
    "wanted",
    [Wanted("wfx", ipa=(0, 1)), Wanted("irq", write=True), Wanted("dabt", world="host", vmid=3)],
)
def test_impossible(wanted: Wanted) -> None:
    with pytest.raises(UsageError):
        check(wanted)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (
            Wanted("dabt", ipa=(0x9000000, 0x9000FFF), write=True),
            "hyp-catch dabt --ipa 0x9000000-0x9000fff --write",
        ),
        (Wanted("vmid", "3", vmid=3), "hyp-catch vmid 3"),
        (Wanted("hvc", world=None, cpu=1, pc=(16, 16)), "hyp-catch hvc --world any --cpu 1 --pc 0x10"),
        (Wanted("exit", vmid=2, write=False), "hyp-catch exit --vmid 2 --read"),
    ],
)
def test_words(wanted: Wanted, words: str) -> None:
    assert wanted.words == words
