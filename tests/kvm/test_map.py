"""Whole tables of a real machine, against the VMM's own knowledge and QEMU's walk."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from kvm.debugger import Debugger

_PAGE = 0x1000
_SAMPLES = 40
MMIO, HIGH = 0x9000000, 0x8000200000


@dataclass(frozen=True)
class Map:
    """The rows of ``hyp-map`` with addresses as integers, and the ranges that it says it cannot know."""

    rows: list[dict[str, Any]]
    unknown: list[tuple[int, int]]

    def row_at(self, address: int) -> dict[str, Any] | None:
        return next((row for row in self.rows if row["start"] <= address < row["end"]), None)


def _map(debugger: Debugger, options: str) -> Map:
    """Run ``hyp-map``; its rows are JSON lines, and what it has to say about gaps are sentences (on stderr)."""
    lines = debugger.session.run(f"hyp-map {options} --json").splitlines()
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    gaps = [line.split() for line in lines if not line.startswith("{")]
    return Map(
        [{**row, **{name: int(row[name], 16) for name in ("start", "end", "pa")}} for row in rows],
        [(int(words[0], 16), int(words[2], 16)) for words in gaps],
    )


def test_stage2(hyp: Debugger) -> None:
    """Stage 2 maps the VMM's pages where Linux has them, nothing outside its slots, and the high slot as a block."""
    hyp.stop_in_guest()
    found = _map(hyp, "--stage2")
    rows = found.rows
    assert not found.unknown
    assert all(before["end"] <= row["start"] for before, row in itertools.pairwise(rows))
    slots = [slot for slot in hyp.rig.said("slot") if slot["vm"] == 0]
    for row in rows:
        inside = [s for s in slots if s["ipa"] <= row["start"] and row["end"] <= s["ipa"] + s["size"]]
        assert inside, f"{row} is in no slot"
        assert row["write"] <= (inside[0]["flags"] & 2 == 0), "a read-only slot is never writable"
    pages = [page for page in hyp.rig.said("page") if page["vm"] == 0]
    mapped = {page["ipa"]: found.row_at(page["ipa"]) for page in pages}
    high = mapped[HIGH]
    assert high is not None
    assert high["page_size"] == 2 << 20
    for page in pages:
        if at := mapped[page["ipa"]]:
            assert page["ipa"] - at["start"] + at["pa"] == page["pa"]
    assert found.row_at(MMIO) is None


def test_guest_stage1(hyp: Debugger) -> None:
    """Stage 1 of the guest is what the VMM wrote, in one row for each mapping: VA to IPA.

    A table that the guest has not used since the last doorbell is not in stage 2; then the gap is named.
    """
    for vm in (0, 1):
        hyp.stop_in_guest(vm)
        found = _map(hyp, "--stage1")
        rows = {(row["start"], row["pa"], row["end"] - row["start"]) for row in found.rows}
        said = {(line["va"], line["ipa"], line["size"]) for line in hyp.rig.said("map") if line["vm"] == vm}
        assert rows <= said
        for va, _, size in said - rows:
            assert any(start <= va and va + size <= end for start, end in found.unknown), (
                f"{va:#x} is missing"
            )


def _in_guest(debugger: Debugger) -> None:
    debugger.stop_in_guest()


def _at_exit(debugger: Debugger) -> None:
    debugger.stop_at_exit()


def _in_host(debugger: Debugger) -> None:
    debugger.stop_in_host()


@pytest.mark.parametrize("stop", [_in_guest, _at_exit, _in_host], ids=["guest", "exit", "host"])
def test_same_as_qemu(hyp: Debugger, stop: Callable[[Debugger], None]) -> None:
    """The current regime's map, both stages together: at edges and inside of rows, and between them."""
    stop(hyp)
    pan = bool(hyp.register("cpsr") >> 22 & 1)
    found = _map(hyp, "")
    rows = found.rows
    chance = random.Random(2)
    compared = 0
    for row in chance.sample(rows, min(_SAMPLES, len(rows))):
        readable = row["read"] and row["access_flag"] and not (pan and row["el0_read"])
        for va in (row["start"], row["end"] - 1, chance.randrange(row["start"], row["end"])):
            expected = (
                (va & _PAGE - 1 if row["constant"] else va - row["start"]) + row["pa"] if readable else None
            )
            assert hyp.gva2gpa(va) == expected, f"{va:#x} in {row}"
            compared += expected is not None
        if found.row_at(row["end"]) is None:
            assert hyp.gva2gpa(row["end"] & (1 << 64) - 1) is None, f"after {row}"
    assert compared >= 3
