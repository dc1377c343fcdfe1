"""Names of the AArch32 System registers and instructions, by their coprocessor encoding.

The table is ``data/sysregs_aarch32.txt``, which says its source and form.
"""

from __future__ import annotations

from functools import cache

from gdbhyp.arch import data


@cache
def _names() -> dict[tuple[int, int, int, int], list[str]]:
    """Return the names by opc2, by (coproc, opc1, CRn, CRm)."""
    found = {}
    for line in data.text("sysregs_aarch32.txt").splitlines():
        if not line.startswith("#"):
            encoding, _, names = line.partition(": ")
            coproc, opc1, crn, crm = encoding.removeprefix("p").split()
            found[(int(coproc), int(opc1), int(crn), int(crm))] = names.split()
    return found


def name_of(coproc: int, opc1: int, crn: int, crm: int, opc2: int) -> str | None:
    """Return what MRC and MCR with this encoding access, None where the table has nothing.

    >>> name_of(15, 0, 1, 0, 0)
    'SCTLR'
    """
    names = _names().get((coproc, opc1, crn, crm), ())
    return names[opc2] if opc2 < len(names) and names[opc2] != "-" else None


def long_name_of(coproc: int, opc1: int, crm: int) -> str | None:
    """Return what MRRC and MCRR with this encoding access, None where the table has nothing.

    >>> long_name_of(15, 1, 14)
    'CNTVCT'
    """
    names = _names().get((coproc, opc1, 64, crm))
    return names[0] if names else None
