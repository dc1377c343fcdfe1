"""Short names of exception classes, as people type them.

Source: Arm ARM, ESR_ELx.EC. The names are gdbhyp's own; ``gdbhyp.arch.syndrome`` has what each class is.
"""

from __future__ import annotations

from gdbhyp.errors import UsageError

CLASSES = {
    "unknown": 0x00,
    "wfx": 0x01,
    "cp15-mcr": 0x03,
    "cp15-mcrr": 0x04,
    "cp14-mcr": 0x05,
    "cp14-ldc": 0x06,
    "fp": 0x07,
    "vmrs": 0x08,
    "pauth": 0x09,
    "other": 0x0A,
    "cp14-mrrc": 0x0C,
    "bti": 0x0D,
    "illegal-state": 0x0E,
    "svc32": 0x11,
    "hvc32": 0x12,
    "smc32": 0x13,
    "sysreg128": 0x14,
    "svc": 0x15,
    "hvc": 0x16,
    "smc": 0x17,
    "sysreg": 0x18,
    "sve": 0x19,
    "eret": 0x1A,
    "pauth-failure": 0x1C,
    "sme": 0x1D,
    "iabt-lower": 0x20,
    "iabt-same": 0x21,
    "pc-alignment": 0x22,
    "dabt-lower": 0x24,
    "dabt-same": 0x25,
    "sp-alignment": 0x26,
    "mops": 0x27,
    "fp-exception32": 0x28,
    "fp-exception": 0x2C,
    "gcs": 0x2D,
    "serror": 0x2F,
    "breakpoint-lower": 0x30,
    "breakpoint-same": 0x31,
    "step-lower": 0x32,
    "step-same": 0x33,
    "watchpoint-lower": 0x34,
    "watchpoint-same": 0x35,
    "bkpt32": 0x38,
    "vector-catch32": 0x3A,
    "brk": 0x3C,
    "profiling": 0x3D,
}


def exception_class(text: str, option: str) -> int:
    """Return ESR_ELx.EC for a short name or a number (decimal unless it says 0x).

    :raises UsageError: with the nearest name, if it is neither.
    """
    known = CLASSES.get(text.lower())
    if known is not None:
        return known
    try:
        number = int(text, 0)
    except ValueError:
        number = -1
    if 0 <= number < 64:
        return number
    from gdbhyp.commands.parsing import did_you_mean

    raise UsageError(
        f"{option} takes an exception class, such as dabt-lower or 0x24, not '{text}'{did_you_mean(text, CLASSES)}"
    )
