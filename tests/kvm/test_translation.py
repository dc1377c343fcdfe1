"""Real tables: what gdbhyp walks is what QEMU's own walk finds, and what Linux says about its pages."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvm.compare import compare_with_qemu
from kvm.debugger import Debugger


def _guest(debugger: Debugger) -> None:
    debugger.stop_in_guest(vm=1)


def _exit(debugger: Debugger) -> None:
    debugger.stop_at_exit()


def _host(debugger: Debugger) -> None:
    debugger.stop_in_host()


def _host_user(debugger: Debugger) -> None:
    debugger.stop_in_host_program()


@pytest.mark.parametrize("stop", [_guest, _exit, _host, _host_user], ids=lambda f: f.__name__.strip("_"))
def test_same_as_qemu(hyp: Debugger, stop: Callable[[Debugger], None]) -> None:
    """Addresses of the guests' maps, what registers point to, and random ones, in the stop's regime."""
    stop(hyp)
    compare_with_qemu(hyp)


def test_stage2_is_linux_pagemap(hyp: Debugger) -> None:
    """The VMM read from /proc/self/pagemap what page is behind an IPA: stage 2 leads to the same."""
    for vm in (0, 1):
        hyp.stop_in_guest(vm)
        pages = [line for line in hyp.rig.said("page") if line["vm"] == vm]
        walks = {page["ipa"]: hyp.session.json(f"hyp-walk --stage2 {page['ipa']:#x}") for page in pages}
        found = {ipa: int(walk["output"], 16) for ipa, walk in walks.items() if walk["output"] is not None}
        said = {page["ipa"]: page["pa"] for page in pages}
        assert found == {ipa: said[ipa] for ipa in found}
        assert {ipa for ipa in found if ipa >= 1 << 39}, "the slot above 512 GiB has to be among them"


def test_block(hyp: Debugger) -> None:
    """A huge page of the host is a 2 MiB block of stage 2, behind the second concatenated table."""
    hyp.stop_in_guest()
    walk = hyp.session.json(f"hyp-walk --stage2 {0x8000200000:#x}")
    assert walk["steps"][-1]["kind"] == "block"
    assert walk["page_size"] == 2 << 20


def test_unmapped_ipa(hyp: Debugger) -> None:
    """The MMIO page has no memory slot, so its IPA ends in a Translation fault of stage 2."""
    hyp.stop_in_guest()
    walk = hyp.session.json("hyp-walk --stage2 0x9000004")
    assert walk["output"] is None
    assert (walk["fault"]["kind"], walk["fault"]["stage"]) == ("translation", 2)


def test_read_only_slot(hyp: Debugger) -> None:
    """Stage 2 lets the guest read the read-only slot, and refuses a write to it with a Permission fault."""
    hyp.stop_in_guest()
    mapping = next(line for line in hyp.rig.said("map") if line["vm"] == 0 and line["ipa"] == 0x90000000)
    read = hyp.session.json(f"hyp-walk {mapping['va']:#x} --access read")
    write = hyp.session.json(f"hyp-walk {mapping['va']:#x} --access write")
    assert read["fault"] is None
    assert int(read["ipa"], 16) == 0x90000000
    assert (write["fault"]["kind"], write["fault"]["stage"]) == ("permission", 2)
