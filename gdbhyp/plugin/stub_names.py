"""What stubs call the registers, where it is not the architecture's name.

Source: the target descriptions that QEMU 7.2 and 10.0 send for ``-cpu max``, ``cortex-a57`` and ``neoverse-n1``.
QEMU names a register that AArch32 shares by its AArch32 name, and marks ID registers that a CPU model leaves reserved.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

QEMU = {
    "SCTLR_EL1": ("SCTLR",),
    "CPACR_EL1": ("CPACR",),
    "VBAR_EL1": ("VBAR",),
    "AMAIR_EL1": ("AMAIR0",),
    "CNTKCTL_EL1": ("CNTKCTL",),
    "CONTEXTIDR_EL1": ("CONTEXTIDR",),
    "MIDR_EL1": ("MIDR",),
    "MPIDR_EL1": ("MPIDR",),
    "PAR_EL1": ("PAR",),
    "CLIDR_EL1": ("CLIDR",),
    "CSSELR_EL1": ("CSSELR",),
    "ID_AA64PFR2_EL1": ("ID_AA64PFR2_EL1_RESERVED",),
    "ID_AA64ISAR2_EL1": ("ID_AA64ISAR2_EL1_RESERVED",),
    "ID_AA64ISAR3_EL1": ("ID_AA64ISAR3_EL1_RESERVED",),
    "ID_AA64MMFR2_EL1": ("ID_AA64MMFR2_EL1_RESERVED",),
    "ID_AA64MMFR3_EL1": ("ID_AA64MMFR3_EL1_RESERVED",),
    "ID_AA64MMFR4_EL1": ("ID_AA64MMFR4_EL1_RESERVED",),
    "ID_AA64DFR2_EL1": ("ID_AA64DFR2_EL1_RESERVED",),
    "CPSR": ("cpsr",),
    "PC": ("pc",),
    "SP": ("sp",),
}


# Views of the vector registers, which have no integer value of their own, and of halves of the general ones.
_VIEWS = re.compile(r"[vqdshbzwp]\d+(_.*)?|ffr|v\d+_.*")


def integer_names(shown: Iterable[str]) -> list[str]:
    """Return all names under which a question may ask for one of the registers ``shown``, the stub's among them."""
    names = {name for name in shown if not _VIEWS.fullmatch(name)}
    known = (*QEMU, *(f"X{number}" for number in range(31)))
    return sorted(names | {name for name in known if not names.isdisjoint(stub_names(name))})


def stub_names(name: str) -> tuple[str, ...]:
    """Return the names under which a stub may show the register, the architectural one first."""
    if name[0] == "X" and name[1:].isdigit():
        return (name.lower(),)
    return (name, *QEMU.get(name, ()))
