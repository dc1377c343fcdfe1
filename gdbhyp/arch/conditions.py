"""AArch32 condition codes, as the COND field of a syndrome holds them.

Source: Arm Architecture Reference Manual (DDI 0487), C1.2.4 and F1.4, "Condition code".
"""

from __future__ import annotations

CONDITIONS = ("EQ", "NE", "CS", "CC", "MI", "PL", "VS", "VC", "HI", "LS", "GE", "LT", "GT", "LE", "AL", "NV")

CONDITION_TEXTS = {
    0x0: "EQ (Z == 1)",
    0x1: "NE (Z == 0)",
    0x2: "CS (C == 1)",
    0x3: "CC (C == 0)",
    0x4: "MI (N == 1)",
    0x5: "PL (N == 0)",
    0x6: "VS (V == 1)",
    0x7: "VC (V == 0)",
    0x8: "HI (C == 1 and Z == 0)",
    0x9: "LS (C == 0 or Z == 1)",
    0xA: "GE (N == V)",
    0xB: "LT (N != V)",
    0xC: "GT (Z == 0 and N == V)",
    0xD: "LE (Z == 1 or N != V)",
    0xE: "AL (always)",
    0xF: "NV (always)",
}

# DDI 0487, D1.21, "Mapping of the AArch32 general-purpose registers": what x13 to x30 hold for AArch32 code.
_BANKED = (
    *("SP_usr", "LR_usr", "SP_hyp", "LR_irq", "SP_irq", "LR_svc", "SP_svc", "LR_abt", "SP_abt"),
    *("LR_und", "SP_und", "r8_fiq", "r9_fiq", "r10_fiq", "r11_fiq", "r12_fiq", "SP_fiq", "LR_fiq"),
)


def aarch32_register(number: int) -> str:
    """Return the AArch32 register that x0 to x31, by ``number``, is the view of: ``"r3"``, ``"LR_svc"``."""
    if number < 13:
        return f"r{number}"
    return _BANKED[number - 13] if number < 31 else "PC"


def suffix(condition: int) -> str:
    """Return what a condition (0 to 15) adds to a mnemonic: ``"eq"``; nothing for "always"."""
    return CONDITIONS[condition].lower() if condition < 14 else ""
