"""The oracle of the rig: QEMU's own walk."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable

from kvm.debugger import Debugger

_PAGE = 0x1000
_RANDOM = 20
_TABLES, _RANGES = 64, 12
_GENERAL = [f"x{n}" for n in range(31)]
_POINTERS = ("pc", "sp", "VBAR", "VBAR_EL2", "ELR_EL1", "ELR_EL2", "FAR_EL1", "FAR_EL2", "TPIDR_EL1")


def compare_with_qemu(debugger: Debugger) -> None:
    """Walk a sample of addresses as the selected CPU would read them, and compare with ``monitor gva2gpa``.

    QEMU's walk is a read by the CPU as it stands, its exception level and PSTATE.PAN included; only to a page that
    has no access flag it goes all the same, for it is a debugger's read. Such pages, which Linux has taken back from
    a process to see whether it uses them, are set aside. The sample: the edges and insides of the guests' own maps,
    some of what the current tables map, what the registers point to and near that, and random addresses.
    """
    access = "--access read" + (" --el0" if debugger.el == 0 else "")
    mapped = 0
    for va in sorted(set(_addresses(debugger))):
        walk = debugger.session.json(f"hyp-walk {va:#x} {access}")
        if walk["fault"] is not None and walk["fault"]["kind"] == "access_flag":
            continue
        expected = debugger.gva2gpa(va)
        found = None if walk["output"] is None else int(walk["output"], 16)
        assert found == expected, f"{va:#x} in the {walk['regime']} regime: {walk}"
        assert (walk["fault"] is None) == (expected is not None)
        mapped += expected is not None
    assert mapped >= 5, "the sample has to reach mapped memory"


def _addresses(debugger: Debugger) -> Iterable[int]:
    chance = random.Random(1)
    for line in debugger.rig.said("map"):
        start, end = line["va"], line["va"] + line["size"]
        yield from (start - 1, start, end - 1, end)
        yield from (chance.randrange(start, end) for _ in range(3))
    for start, end in _mapped(debugger):
        yield from (start, chance.randrange(start, end))
    for name in (*_POINTERS, *_GENERAL):
        value = debugger.register(name)
        yield from (value, (value + chance.randrange(-16 * _PAGE, 16 * _PAGE)) & (1 << 64) - 1)
    for _ in range(_RANDOM):
        low = chance.getrandbits(chance.choice((32, 40, 48, 52, 56)))
        yield from (low, low | 0xFFFF << 48)


def _mapped(debugger: Debugger) -> Iterable[tuple[int, int]]:
    """Return the first ranges that the current tables map, as (start, end)."""
    lines = debugger.session.run(f"hyp-map --max-tables {_TABLES} --json").splitlines()
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    return [(int(row["start"], 16), int(row["end"], 16)) for row in rows[:_RANGES]]
