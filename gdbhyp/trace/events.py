"""What a trace consists of: exceptions taken to EL2, returns from EL2, TLB maintenance there, and gaps.

Sources differ in what they see. A field that a source did not observe is None and stays None: what is deduced from
several events is the business of ``gdbhyp.trace.worlds``, which says so.

Source of the vector layout: Arm Architecture Reference Manual (DDI 0487), "Exception vectors": 16 vectors of 0x80
bytes; bits [10:9] of the offset say where the exception came from, bits [8:7] what kind it is.
"""

from __future__ import annotations

from typing import NamedTuple

SYNC, IRQ, FIQ, SERROR = 0, 1, 2, 3
"""The kind of an exception: bits [8:7] of the offset of its vector."""

KIND_NAMES = ("sync", "irq", "fiq", "serror")

EC_WFX = 0x01
EC_SERROR = 0x2F
EC_SVC64 = 0x15
EC_HVC64 = 0x16
EC_SMC64 = 0x17
EC_SYS64 = 0x18
EC_IABT_LOWER = 0x20
EC_DABT_LOWER = 0x24


CLASS_ONLY = 1 << 63
"""Set in ``Taken.esr`` where a source tells only the exception class: no bit of a register, ESR_ELx[63:56] are RES0."""


class Taken(NamedTuple):
    """An exception taken to EL2.

    ``vector`` is the address of the vector, ``time`` nanoseconds of the source's own clock, ``seq`` counts from 0.
    ``esr`` is as the source found it: for an IRQ or FIQ the register is stale, use ``syndrome``. ``x0`` is recorded at
    an HVC or SMC. ``vtcr`` matters for the width of a VMID. ``world`` and ``vmid`` are whom the exception interrupted
    where that was found out when it was recorded.
    """

    seq: int
    cpu: int
    vector: int
    from_el: int
    time: int | None = None
    esr: int | None = None
    far: int | None = None
    hpfar: int | None = None
    elr: int | None = None
    spsr: int | None = None
    hcr: int | None = None
    vttbr: int | None = None
    vtcr: int | None = None
    x0: int | None = None
    world: str | None = None
    vmid: int | None = None

    @property
    def base(self) -> int:
        """The vector base, VBAR_EL2."""
        return self.vector & ~0x7FF

    @property
    def kind(self) -> int:
        """SYNC, IRQ, FIQ or SERROR."""
        return self.vector >> 7 & 3

    @property
    def from_aarch32(self) -> bool:
        """Whether a lower EL in AArch32 state was interrupted."""
        return self.vector >> 9 & 3 == 3

    @property
    def syndrome(self) -> int | None:
        """ESR_EL2 where it describes this exception: never for IRQ and FIQ, which leave the old value there."""
        esr = self.esr
        return None if self.ec is None or esr is None or esr & CLASS_ONLY else esr

    @property
    def ec(self) -> int | None:
        """The exception class, None for what has no syndrome."""
        esr = self.esr
        if esr is None:
            return None
        kind = self.vector >> 7 & 3
        ec = esr >> 26 & 0x3F
        return ec if kind == SYNC or (kind == SERROR and ec == EC_SERROR) else None


class Returned(NamedTuple):
    """An exception return from EL2 to ``to_el``, 2 included, at ``pc``; None where the target does not show ELR_EL2.

    ``cpu`` is None when the source does not say which CPU returned. ``vector_base`` is VBAR_EL2 at the return, that is
    where the next exception will arrive. ``world`` is who goes on where the source says that and no register.
    """

    seq: int
    cpu: int | None
    to_el: int
    pc: int | None
    time: int | None = None
    hcr: int | None = None
    vttbr: int | None = None
    vtcr: int | None = None
    vector_base: int | None = None
    world: str | None = None


class Maintained(NamedTuple):
    """A TLB maintenance instruction executed at EL2, with its operand and the registers that say whose TLB entries."""

    seq: int
    cpu: int
    pc: int
    instruction: int
    time: int | None = None
    operand: int | None = None
    hcr: int | None = None
    vttbr: int | None = None
    vtcr: int | None = None


class Lost(NamedTuple):
    """``missing`` events are not here, for ``reason``."""

    seq: int
    missing: int
    reason: str
    cpu: int | None = None


class State(NamedTuple):
    """What a CPU did when the recording began: its exception level, and EL2's registers. ``base`` is VBAR_EL2."""

    seq: int
    cpu: int
    el: int
    base: int
    esr: int | None = None
    elr: int | None = None
    hcr: int | None = None
    vttbr: int | None = None
    vtcr: int | None = None


Event = Taken | Returned | Maintained | Lost | State
