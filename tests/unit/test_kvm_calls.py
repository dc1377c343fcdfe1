"""KVM's host calls by number, read from a kernel's image."""

from __future__ import annotations

import pytest
from unit.kvmworld import HYP, PAGE, PHYSICAL, TABLE, KvmWorld

from gdbhyp.arch.smccc import call_name
from gdbhyp.arch.syndrome import decode_esr
from gdbhyp.arch.syndrome_context import SyndromeContext
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import BadInput, GdbhypError
from gdbhyp.hypervisors import calls
from gdbhyp.hypervisors.identify import Identity

HVC = 0x5A00_0000


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Stop]:
    """Makes every world that of KVM in nVHE; returns the stops that a kernel was looked for at."""
    stops: list[Stop] = []
    monkeypatch.setattr(calls, "_known", {})
    monkeypatch.setattr(calls, "identify", lambda stop: Identity("kvm-nvhe", ()))
    return stops


def use(world: KvmWorld, monkeypatch: pytest.MonkeyPatch, asked: list[Stop]) -> Stop:
    def find(stop: Stop) -> object:
        asked.append(stop)
        return world.kernel(stop)

    monkeypatch.setattr(calls, "find_kernel", find)
    return world.stop()


def test_by_the_code(asked: list[Stop], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without data among the symbols, the dispatcher's code says where the table is."""
    stop = use(KvmWorld(), monkeypatch, asked)
    found = calls.host_calls(stop)
    assert found.names == ("__kvm_hyp_init", "__kvm_vcpu_run", None, "__kvm_adjust_pc")
    assert "__kvm_nvhe_handle_trap" in found.how
    assert [found.name(0xC600_0000 + n) for n in (1, 2, 4)] == ["__kvm_vcpu_run", None, None]
    assert found.name(0x8400_0000) is None


def test_by_the_symbol(asked: list[Stop], monkeypatch: pytest.MonkeyPatch) -> None:
    world = KvmWorld()
    world.names["d__kvm_nvhe_host_hcall"] = TABLE
    world.memory.write(PHYSICAL + world.names["t__kvm_nvhe_handle_trap"], b"\x1f\x20\x03\xd5" * 5)
    found = calls.host_calls(use(world, monkeypatch, asked))
    assert found.names[1] == "__kvm_vcpu_run"
    assert "symbol" in found.how


def test_before_el2_is_set_up(asked: list[Stop], monkeypatch: pytest.MonkeyPatch) -> None:
    """The entries are still the kernel's own addresses."""
    world = KvmWorld()
    world.memory.write_word(PHYSICAL + TABLE + 8, 0xFFFF_8000_1000_0000 + 4 * PAGE + 0x40)
    assert calls.host_calls(use(world, monkeypatch, asked)).names[1] == "__kvm_vcpu_run"


def test_not_found(asked: list[Stop], monkeypatch: pytest.MonkeyPatch) -> None:
    world = KvmWorld()
    del world.names["t__kvm_nvhe_handle_trap"]
    stop = use(world, monkeypatch, asked)
    with pytest.raises(BadInput, match="was not found"):
        calls.host_calls(stop)
    assert calls.namer(stop)(0xC600_0001) is None


def test_no_handlers(asked: list[Stop], monkeypatch: pytest.MonkeyPatch) -> None:
    stop = use(KvmWorld(calls=(0, 0x100)), monkeypatch, asked)
    with pytest.raises(BadInput, match="holds no handlers"):
        calls.host_calls(stop)


def test_other_hypervisors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "identify", lambda stop: Identity("xen", ()))
    with pytest.raises(GdbhypError, match="xen has no calls from a host"):
        calls.host_calls(KvmWorld().stop())


def test_looked_for_once(asked: list[Stop], monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a number of KVM's makes it look for a kernel, and the table is read once for each kernel."""
    stop = use(KvmWorld(), monkeypatch, asked)
    name = calls.namer(stop)
    assert name(HYP) is None
    assert not asked
    assert [name(0xC600_0001), name(0xC600_0003)] == ["__kvm_vcpu_run", "__kvm_adjust_pc"]
    assert len(asked) == 1


def test_function_addresses() -> None:
    """The first KVM for arm64 passed addresses; a symbol that only covers one does not name it."""
    symbols = {HYP: "hyp_vcpu_run", HYP + 4: "hyp_vcpu_run+4"}
    name = calls.namer(Stop(KvmWorld().stop().machine, symbol=symbols.get))
    assert [name(HYP), name(HYP + 4), name(HYP + 8)] == ["hyp_vcpu_run", None, None]
    assert call_name(0, HYP, guest=False, host_call=name) == "hyp_vcpu_run (EL2 function)"
    assert call_name(0, HYP + 8, guest=False, host_call=name) is None


@pytest.mark.parametrize(
    ("guest", "x0", "words"),
    [
        (False, 0xC600_0001, "__kvm_vcpu_run (KVM host call 1)"),
        (False, 0xC600_0002, "KVM host call 2"),
        (False, 0xC600_0009, "KVM host call 9"),
        (True, 0xC600_0001, "ARM_SMCCC_KVM_FUNC_PTP (SMC64)"),
        (False, 0x8400_0000, "PSCI_VERSION"),
    ],
)
def test_in_a_syndrome(guest: bool, x0: int, words: str) -> None:
    table = calls.HostCalls(("__kvm_hyp_init", "__kvm_vcpu_run", None), "")
    context = SyndromeContext(registers={0: x0}, guest=guest, host_call=table.name)
    assert decode_esr(HVC, context=context).call == words
