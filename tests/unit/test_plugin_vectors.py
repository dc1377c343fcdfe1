"""Where GDB leaves a breakpoint's address alone, with a stand-in for the ``gdb`` module."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from gdbhyp.errors import NoTarget
from gdbhyp.trace.catching import Wanted

EL2_52, EL2_48, KERNEL = 0x000A_AE3D_20FC_D400, 0x0000_B0D6_C0DC_6C00, 0xFFFF_8000_8001_0C00
GUEST = {"": 0xFFFF_0000_0000_0000, "_high": 0xFFFF_0000_0000_0000}
HOST = {"": 0x00F0_0000_0000_0000, "_high": 0xFFF0_0000_0000_0000}
"""What QEMU 10 shows as pauth_cmask and pauth_cmask_high in a guest of 48-bit addresses, and in a host of 52."""


@pytest.fixture
def vectors(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module, imported with what it names of GDB 18; ``masks`` are those of the CPU that is selected."""
    module: Any = ModuleType("gdb")
    module.VERSION = "18.1"
    module.error = type("error", (RuntimeError,), {})
    module.Breakpoint = object
    module.RemoteTargetConnection = object
    module.TYPE_CODE_VOID = 0
    module.masks = {}

    def parse_and_eval(expression: str) -> Any:
        half = expression.removeprefix("$pauth_cmask").removeprefix("$pauth_dmask")
        value = module.masks.get(half)

        class Value(int):
            type = SimpleNamespace(code=0 if value is None else 8)

        return Value(value or 0)

    def shown_names(_architecture: object) -> Any:
        return SimpleNamespace(shown={f"pauth_{kind}mask{half}" for kind in "cd" for half in module.masks})

    module.parse_and_eval = parse_and_eval
    module.selected_inferior = lambda: SimpleNamespace(architecture=lambda: None)
    monkeypatch.setitem(sys.modules, "gdb", module)
    before = set(sys.modules)
    target: Any = ModuleType("gdbhyp.plugin.target")
    target.shown_names = shown_names
    monkeypatch.setitem(sys.modules, target.__name__, target)
    found: Any = importlib.import_module("gdbhyp.plugin.vectors")
    monkeypatch.setattr(found, "borrowed_thread", lambda thread: contextlib.nullcontext())
    found.stub = module
    yield found
    for name in set(sys.modules) - before:
        if name.startswith("gdbhyp.plugin."):
            package, _, attribute = name.rpartition(".")
            monkeypatch.delattr(sys.modules[package], attribute, raising=False)
            del sys.modules[name]


@pytest.mark.parametrize(
    ("masks", "address", "fits"),
    [
        (GUEST, EL2_52, False),
        (HOST, EL2_52, True),
        ({}, EL2_52, True),
        (GUEST, EL2_48, True),
        (GUEST, KERNEL, True),
        (HOST, KERNEL, True),
    ],
)
def test_a_cpu_fits(vectors: Any, masks: dict[str, int], address: int, fits: bool) -> None:
    vectors.stub.masks = masks
    assert vectors._fits(address, None) is fits


def hit(vectors: Any, address: int, **registers: int) -> Any:
    """Return a CPU at a vector or an ERET, of a stub that shows these registers and no other."""
    vectors._cpu = lambda: 0
    return vectors.Hit(address, SimpleNamespace(get=registers.get))


GUEST_RUNS = {"HCR_EL2": 1, "VTTBR_EL2": 3 << 48 | 0x4000_0000}


@pytest.mark.parametrize(
    ("what", "shown", "says"),
    [
        ("enter", {"SPSR_EL2": 5}, "entry into the guest of VMID 3 at EL1, a VA that is not known"),
        (
            "enter",
            {"ELR_EL2": 0x8000},
            "entry into the guest of VMID 3 at an EL that is not known, VA 0x8000",
        ),
        ("irq", {}, "IRQ interrupted the guest of VMID 3 at a VA that is not known"),
        ("dabt", {}, "a synchronous exception (nothing here), from a VA that is not known"),
        (
            "dabt",
            {"ESR_EL2": 0x9200_0007},
            "a synchronous exception (ESR_EL2 = 0x92000007, nothing here), from a VA",
        ),
    ],
)
def test_a_catch_does_not_take_a_missing_register_for_zero(
    vectors: Any, monkeypatch: pytest.MonkeyPatch, what: str, shown: dict[str, int], says: str
) -> None:
    def nothing() -> Any:
        raise NoTarget("nothing here")

    sys.modules["gdbhyp.plugin.target"].live_stop = nothing  # type: ignore[attr-defined]
    catch = importlib.import_module("gdbhyp.plugin.catch")
    at = hit(vectors, 0x480 if what == "irq" else 0x400, **GUEST_RUNS, **shown)
    text = catch._what_happened(at, Wanted(what))
    assert text.startswith(says)
    assert "0x0" not in text


def test_a_return_without_elr_has_no_pc(vectors: Any) -> None:
    source = importlib.import_module("gdbhyp.plugin.trace_break")
    recording = object.__new__(source.BreakSource)
    recording._seq = 0
    event = recording._return(hit(vectors, 0x400, SPSR_EL2=5, **GUEST_RUNS))
    assert (event.pc, event.to_el, event.vector_base) == (None, 1, None)


def test_old_gdb_cuts_nothing(vectors: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With GDB 13 any CPU will do."""
    monkeypatch.setattr(vectors, "_GDB_CUTS", False)
    vectors.stub.masks = GUEST
    vectors.stub.selected_thread = lambda: "the selected one"
    assert vectors._fitting(EL2_52, None) == "the selected one"


def test_no_cpu_fits(vectors: Any) -> None:
    vectors.stub.masks = GUEST
    vectors.stub.selected_thread = lambda: "one"
    vectors.stub.selected_inferior = lambda: SimpleNamespace(
        threads=lambda: ("one", "two"), architecture=lambda: None
    )
    assert vectors._fitting(EL2_52, None) is None
    assert vectors._fitting(EL2_48, None) == "one"
