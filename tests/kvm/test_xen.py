"""Xen: the same questions to a hypervisor that is not KVM."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvm.compare import compare_with_qemu
from kvm.debugger import SYNC_FROM_LOWER, Debugger
from kvm.rig import XEN, Rig


def _in_domain(debugger: Debugger) -> None:
    debugger.run_until(lambda: debugger.el < 2)


def _at_exit(debugger: Debugger) -> None:
    debugger.run_to(debugger.register("VBAR_EL2") + SYNC_FROM_LOWER)


def test_boots(xen: Rig) -> None:
    assert XEN.says in xen.text()
    assert "HYP mode not available" in xen.text(), "Linux runs as a domain"


@pytest.mark.parametrize(("stop", "world"), [(_in_domain, "guest"), (_at_exit, "hypervisor")])
def test_status(xen_hyp: Debugger, stop: Callable[[Debugger], None], world: str) -> None:
    """Xen knows no host world: its first domain is a guest, too."""
    stop(xen_hyp)
    status = xen_hyp.session.json("hyp-status")
    assert (status["hypervisor"], status["world"], status["vmid"]) == ("xen", world, 1)


@pytest.mark.parametrize("stop", [_in_domain, _at_exit])
def test_same_as_qemu(xen_hyp: Debugger, stop: Callable[[Debugger], None]) -> None:
    stop(xen_hyp)
    compare_with_qemu(xen_hyp)


def test_direct_map(xen_hyp: Debugger) -> None:
    """Xen gives its first domain memory at IPA = PA."""
    _in_domain(xen_hyp)
    kernel = xen_hyp.session.json(f"hyp-walk {xen_hyp.register('VBAR'):#x}")
    assert kernel["output"] == kernel["ipa"]
    assert any(step["stage"] == 2 for step in kernel["steps"])


def _idle(debugger: Debugger) -> None:
    """A CPU waits in Xen with no domain's stage 2 loaded."""
    debugger.run_until(lambda: debugger.el == 2 and debugger.register("VTTBR_EL2") >> 48 == 0)


@pytest.mark.parametrize("stop", [_in_domain, _at_exit, _idle])
def test_domains(xen_hyp: Debugger, stop: Callable[[Debugger], None]) -> None:
    """The first domain has two vCPUs and the root that a CPU has loaded while it runs, also when none has."""
    _in_domain(xen_hyp)
    root = xen_hyp.register("VTTBR_EL2")
    stop(xen_hyp)
    (domain,) = xen_hyp.session.json_lines("hyp-vms")
    assert (domain["vm"], domain["vmid"], int(domain["vttbr"], 16)) == (0, 1, root)
    assert [vcpu["vcpu"] for vcpu in domain["vcpus"]] == [0, 1]
    for cpu in (0, 1):
        xen_hyp.select(cpu)
        if xen_hyp.el < 2:
            here = [int(vcpu["pc"], 16) for vcpu in domain["vcpus"] if vcpu["cpu"] == cpu]
            assert here == [xen_hyp.register("pc")]


def test_map_of_idle_domain(xen_hyp: Debugger) -> None:
    """Found in Xen's own list, the domain's memory is mapped as it is while it runs: 512 MiB in large pieces."""
    memory = "--stage2 --range 0x40000000+0x40000000 --min-size 0x200000"
    _in_domain(xen_hyp)
    running = xen_hyp.session.json_lines(f"hyp-map {memory}")
    _idle(xen_hyp)
    assert xen_hyp.session.json_lines(f"hyp-map {memory} --vm 0") == running
    sizes = [int(row["end"], 16) - int(row["start"], 16) for row in running if row["exec"] != "never"]
    assert abs(sum(sizes) - (512 << 20)) <= 2 << 20


_SETTLED = ("VBAR_EL1", "TCR_EL1", "MAIR_EL1", "SCTLR_EL1")
"""What a Linux domain does not change any more once it runs."""


def test_saved_registers(xen_hyp: Debugger) -> None:
    """What Xen has just saved of an exception is what the CPU had; with no domain loaded its kernel is still walked."""
    _at_exit(xen_hyp)
    xen_hyp.session.run("hyp-symbols")
    handler = int(xen_hyp.session.python("int(gdb.parse_and_eval('(long)&do_trap_guest_sync'))"))
    for _ in range(20):
        # WFI, which Xen handles nowhere before its C code.
        xen_hyp.run_to(xen_hyp.register("VBAR_EL2") + SYNC_FROM_LOWER, "$ESR_EL2 >> 26 == 1")
        cpu = xen_hyp.cpu
        live = {f"X{number}": xen_hyp.register(f"x{number}") for number in range(31)}
        live |= {"PC": xen_hyp.register("ELR_EL2"), "CPSR": xen_hyp.register("SPSR_EL2")}
        live |= {name: xen_hyp.register(name) for name in ("SP_EL0", "SP_EL1", "ELR_EL1", "SPSR_EL1")}
        number = xen_hyp.register("VMPIDR_EL2") & 0xFF
        xen_hyp.run_to(handler)
        if xen_hyp.cpu == cpu:
            break
    assert xen_hyp.cpu == cpu, "another CPU was first, each time"
    found = xen_hyp.session.json(f"hyp-vcpu 0.{number}")
    saved = {row["name"]: int(row["saved"], 16) for row in (*found["general"], *found["system"])}
    assert {name: saved[name] for name in live} == live
    settled = {name: int(xen_hyp.session.json(f"hyp-reg {name}")["value"], 16) for name in _SETTLED}
    kernel = xen_hyp.session.json(f"hyp-walk {settled['VBAR_EL1']:#x} --vm 0.{number}")
    _idle(xen_hyp)
    found = xen_hyp.session.json(f"hyp-vcpu 0.{number}")
    assert {
        row["name"]: int(row["saved"], 16) for row in found["system"] if row["name"] in _SETTLED
    } == settled
    walk = xen_hyp.session.json(f"hyp-walk {settled['VBAR_EL1']:#x} --vm 0.{number}")
    assert (walk["ipa"], walk["output"]) == (kernel["ipa"], kernel["output"])


def test_symbols(xen_hyp: Debugger) -> None:
    """Xen's functions are those of its own table, and the domain's kernel is recognised through both stages."""
    _in_domain(xen_hyp)
    found = xen_hyp.session.json("hyp-symbols --vm 0")
    assert found["version"].startswith("Linux version 6.1.")
    pc = xen_hyp.register("pc")
    if pc >> 63:
        assert not xen_hyp.session.run("info symbol $pc").startswith("No symbol")
    _at_exit(xen_hyp)
    assert xen_hyp.session.json("hyp-symbols")["hypervisor"] == "xen"
    assert xen_hyp.session.run("info symbol $pc").startswith("hyp_traps_vector + 1024")
    xen_hyp.session.run("break leave_hypervisor_to_guest")
    xen_hyp.run_for(60.0)
    assert xen_hyp.session.run("info symbol $pc").startswith("leave_hypervisor_to_guest")
    frames = xen_hyp.session.run("backtrace")
    assert "guest_sync" in frames or "guest_irq" in frames or "??" not in frames.splitlines()[0]
