"""What else is known at an exception, beside its syndrome."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gdbhyp.arch.smccc import HostCall


@dataclass(frozen=True)
class SyndromeContext:
    """The state at the exception; each item makes the summary say more, none is needed.

    ``registers`` gives a general-purpose register by its number, 0 to 30, or None: a mapping or a function.
    ``ipa`` is the faulting IPA where the caller resolved it; without it HPFAR_EL2 is used where the
    architecture says that it is valid. ``guest`` says whose exception it is: True a guest's, False the
    host's, None not known; ``host_call`` names what a host asks of its own EL2 code by x0. ``stage2`` is
    False where an abort cannot be of stage 2 (HCR_EL2.TGE is 1, or the regime has none). ``aarch32`` is the
    state the exception came from; without it SPSR bit 4 is used, and ``from_el`` is SPSR.M's.
    """

    far: int | None = None
    hpfar: int | None = None
    ipa: int | None = None
    elr: int | None = None
    spsr: int | None = None
    registers: Mapping[int, int] | Callable[[int], int | None] | None = None
    aarch32: bool | None = None
    from_el: int | None = None
    guest: bool | None = None
    stage2: bool | None = None
    host_call: HostCall | None = None

    def x(self, number: int) -> int | None:
        """Return the general-purpose register ``number``; 31 is zero; None when it is not known."""
        if number == 31:
            return 0
        if self.registers is None:
            return None
        return self.registers(number) if callable(self.registers) else self.registers.get(number)

    @property
    def from_aarch32(self) -> bool:
        """Whether the exception came from AArch32 state, as far as is known."""
        if self.aarch32 is None:
            return self.spsr is not None and bool(self.spsr >> 4 & 1)
        return self.aarch32

    @property
    def source_el(self) -> int | None:
        """The Exception level that the exception came from: as given, or from SPSR.M of AArch64."""
        if self.from_el is None and self.spsr is not None and not self.spsr & 0x10:
            return self.spsr >> 2 & 3
        return self.from_el


NOTHING_KNOWN = SyndromeContext()
