"""Translation regimes, Security states and physical address spaces.

Source: Arm ARM (DDI 0487) D8.1 "Address translation", Arm's ASL v9.4 ``TranslationRegime``, ``ELIsInHost``,
``SecurityStateAtEL``, ``EL2Enabled`` and the descriptions of HCR_EL2 and SCR_EL3.
"""

from __future__ import annotations

from enum import Enum


class Regime(Enum):
    """A stage-1 translation regime; only EL1&0 has a second stage."""

    EL10 = "EL1&0"
    EL2 = "EL2"
    EL20 = "EL2&0"
    EL3 = "EL3"

    @property
    def has_unprivileged(self) -> bool:
        """Whether EL0 runs in this regime, which also gives it an upper VA range and a second TTBR."""
        return self is Regime.EL10 or self is Regime.EL20


class Space(Enum):
    """A physical address space; also the Security state whose own space it is."""

    SECURE = "Secure"
    NON_SECURE = "Non-secure"
    ROOT = "Root"
    REALM = "Realm"

    # That of Enum asks Python for the name; spaces are in the keys of what is remembered of each table.
    __hash__ = object.__hash__
