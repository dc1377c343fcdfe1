"""The layouts of registers agree with two extracts of Arm's own descriptions, in data/layouts_*.txt.

data/layout_differences.txt says why where they do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from gdbhyp.arch.registers import layout_of

DATA = Path(__file__).parent / "data"


def their_fields(source: str) -> Iterator[tuple[str, str, int, int]]:
    """Yield register, field, msb, lsb."""
    for line in (DATA / f"layouts_{source}.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        register, *fields = line.split()
        for field in fields:
            name, _, bits = field.rpartition("=")
            msb, _, lsb = bits.partition(":")
            yield register, name, int(msb), int(lsb or msb)


def our_fields(register: str) -> set[tuple[str, int, int]]:
    """Return the fields of all layouts of a register, names in capitals."""
    layouts = [
        layout_of(register, value, e2h=e2h) for value in (0, 1, 0x10, 1 << 32) for e2h in (False, True)
    ]
    return {(field.name.upper(), field.msb, field.lsb) for layout in layouts for field in layout.fields}


def reasons(source: str) -> list[list[str]]:
    """Return [register pattern, field pattern, reason]."""
    lines = (DATA / "layout_differences.txt").read_text(encoding="utf-8").splitlines()
    rows = [[part.strip() for part in line.split("|")] for line in lines if line and line[0] != "#"]
    return [row[1:] for row in rows if row[0] == source]


@pytest.mark.parametrize("source", ["sail", "aarchmrs"])
def test_agreement(source: str) -> None:
    listed = reasons(source)
    used = set()
    same, differing, unlisted = 0, 0, []
    for register, name, msb, lsb in their_fields(source):
        if (name.upper(), msb, lsb) in our_fields(register):
            same += 1
            continue
        row = next((r for r in listed if fnmatchcase(register, r[0]) and fnmatchcase(name, r[1])), None)
        if row is None:
            unlisted.append(f"{source} | {register} | {name} {msb}:{lsb}")
            continue
        used.add(tuple(row))
        differing += not row[2].startswith("notation")
    assert not unlisted, "\n".join(unlisted)
    assert used == {tuple(row) for row in listed}, "a listed difference is none"
    assert same > 1700
    assert same / (same + differing) >= 0.99, f"{source}: {same} fields agree, {differing} do not"
    print(f"{source}: {same} fields agree, {differing} do not")
