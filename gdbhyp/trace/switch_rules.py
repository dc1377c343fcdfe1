"""What a world switch has to preserve, and which registers may change all the same, with the reason for each.

Sources: Arm ARM (DDI 0487), "Exception return" and the register descriptions; the Procedure Call Standard (AAPCS64) and
the SMC Calling Convention (DEN 0028) for what a call may change; Linux's arch/arm64/kvm for what it switches lazily.
"""

from __future__ import annotations

from dataclasses import dataclass

GENERAL = tuple(f"X{number}" for number in range(31))

_KEYS = tuple(f"AP{key}KEY{half}_EL1" for key in ("IA", "IB", "DA", "DB", "GA") for half in ("LO", "HI"))

EL1 = (
    *("SP_EL0", "SP_EL1", "ELR_EL1", "SPSR_EL1", "ESR_EL1", "FAR_EL1", "AFSR0_EL1", "AFSR1_EL1", "PAR_EL1"),
    *("SCTLR_EL1", "CPACR_EL1", "TTBR0_EL1", "TTBR1_EL1", "TCR_EL1", "MAIR_EL1", "AMAIR_EL1", "VBAR_EL1"),
    *("CONTEXTIDR_EL1", "TPIDR_EL1", "TPIDR_EL0", "TPIDRRO_EL0", "CSSELR_EL1", "MDSCR_EL1"),
    *("CNTKCTL_EL1", "CNTV_CTL_EL0", "CNTV_CVAL_EL0"),
    *_KEYS,
)
"""What belongs to whoever runs below EL2, and to nobody else."""

CONTROLS = (
    *("HCR_EL2", "VTTBR_EL2", "VTCR_EL2", "CPTR_EL2", "MDCR_EL2", "HSTR_EL2", "CNTHCTL_EL2", "CNTVOFF_EL2"),
    *("VMPIDR_EL2", "VPIDR_EL2", "VBAR_EL2"),
)
"""What EL2 sets for each world."""

OF_CPU = ("TPIDR_EL2",)
"""What EL2 keeps for itself, and has to find again when the same world runs on the same CPU."""

PC, PSTATE = "ELR_EL2", "SPSR_EL2"

REGISTERS = (*GENERAL, *EL1, *CONTROLS, *OF_CPU, PC, PSTATE)


@dataclass(frozen=True)
class Allowance:
    """``registers`` may change, in the bits of ``mask``, for ``reason``."""

    registers: tuple[str, ...]
    reason: str
    mask: int = (1 << 64) - 1


def _bits(*positions: int | tuple[int, int]) -> int:
    """Return a mask of bits and of fields (msb, lsb)."""
    mask = 0
    for position in positions:
        msb, lsb = position if isinstance(position, tuple) else (position, position)
        mask |= (1 << msb + 1) - (1 << lsb)
    return mask


ALWAYS = (
    Allowance(("CNTV_CTL_EL0",), "ISTATUS follows the time", _bits(2)),
    Allowance(
        ("CNTV_CTL_EL0",),
        "IMASK is set by a hypervisor that has given the timer's interrupt to the guest (Xen)",
        _bits(1),
    ),
    Allowance(
        ("HCR_EL2",), "VSE, VI and VF are interrupts that the hypervisor has for the guest", _bits((8, 6))
    ),
    Allowance(
        ("HCR_EL2",),
        "TWI and TWE: a guest that has the CPU for itself need not be trapped when it waits",
        _bits(14, 13),
    ),
    Allowance(("HCR_EL2",), "TVM is only set until the guest has switched its caches on", _bits(26)),
    Allowance(
        ("HCR_EL2",), "API and APK: pointer authentication is given to a guest that uses it", _bits(41, 40)
    ),
    Allowance(
        ("CPTR_EL2",),
        "floating point, SVE and SME are given to a guest that uses them (TFP, TZ, TSM; FPEN, ZEN, SMEN)",
        _bits(8, 10, 12, (17, 16), (21, 20), (25, 24)),
    ),
    Allowance(
        ("MDCR_EL2",),
        "TDE, TDA, TDOSA and TDRA: debug registers are given to a guest that uses them",
        _bits((11, 8)),
    ),
)
"""For guests, from one entry to the next; and what time alone changes."""

MOVED = (Allowance((PC,), "the hypervisor, or who emulates for it, says where the guest goes on"),)

STEPPED = (
    Allowance(
        (PSTATE,),
        "SS and BTYPE (or IT) are cleared when an instruction is stepped over",
        _bits(21, (26, 25), (15, 10)),
    ),
)

INJECTED = (
    Allowance(
        ("ELR_EL1", "SPSR_EL1", "ESR_EL1", "FAR_EL1", PSTATE), "the hypervisor gave the guest an exception"
    ),
)

CALL = Allowance(
    tuple(f"X{number}" for number in range(18)),
    "x0 to x17 are results or scratch registers of a call (SMCCC)",
)
PLATFORM = Allowance(
    ("X18",), "x18 is the platform's: a call of the host may change it unless the host says otherwise"
)


# HCR_EL2.API [41] and APK [40].
_HCR_KEYS = _bits(41, 40)


def out_of_reach(hcr: int) -> tuple[Allowance, ...]:
    """Return what a world with this HCR_EL2 cannot see, so that it need not be its own.

    A hypervisor that signs its own pointers (pKVM) leaves its keys there.
    """
    if hcr & _HCR_KEYS:
        return ()
    return (
        Allowance(
            _KEYS, "API and APK are 0: the keys of pointer authentication are out of the guest's reach"
        ),
    )


def emulated(esr: int | None) -> tuple[Allowance, ...]:
    """Return what emulating the exit with this syndrome may change; None for an interrupt, which changes nothing."""
    if esr is None:
        return ()
    ec, iss = esr >> 26 & 0x3F, esr & 0x1FF_FFFF
    if ec in (0x12, 0x13, 0x16, 0x17):
        return (CALL,)
    if ec == 0x18 and iss & 1:
        return _loaded(iss >> 5 & 0x1F, "the value of the register that was read")
    if ec in (0x03, 0x05, 0x08) and iss & 1:
        return _loaded(iss >> 5 & 0x1F, "the value of the coprocessor register that was read")
    if ec in (0x04, 0x0C) and iss & 1:
        # Rt2 [14:10], Rt [9:5].
        return (
            *_loaded(iss >> 5 & 0x1F, "the value of the coprocessor register that was read"),
            *_loaded(iss >> 10 & 0x1F, "the value of the coprocessor register that was read"),
        )
    # ISV [24], SRT [20:16], WnR [6].
    if ec == 0x24 and iss >> 24 & 1 and not iss >> 6 & 1:
        return _loaded(iss >> 16 & 0x1F, "what an emulated load returned")
    return ()


def _loaded(register: int, reason: str) -> tuple[Allowance, ...]:
    return () if register == 31 else (Allowance((f"X{register}",), reason),)


def is_vector(pc: int, vbar: int) -> bool:
    """Return whether ``pc`` is a vector of EL1: 16 of 0x80 bytes at VBAR_EL1."""
    return 0 <= pc - vbar < 0x800 and pc % 0x80 == 0
