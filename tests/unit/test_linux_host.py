"""A Linux host in memory: its kernel, VMs and vCPUs, whole and with parts damaged or missing."""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace
from pathlib import Path

import pytest
from unit import linuxhost
from unit.linuxhost import BASE, BUILD_ID, DATA, IMAGE, LINEAR, VECTORS, LinuxHost
from unit.machines import FORMAT, HCR_GUEST, HYP_TEXT
from unit.pagetables import EVERYTHING, stage1_tcr

from gdbhyp.analyses.vcpu import choose, vcpu_report
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import GdbhypError
from gdbhyp.hypervisors.guest import guest
from gdbhyp.hypervisors.linux import cache, kernel
from gdbhyp.hypervisors.linux.kernel import NoKernel, find_kernel
from gdbhyp.hypervisors.vms import Vm, find_vms
from gdbhyp.render.style import Style
from gdbhyp.render.text.vcpu import render as vcpu_text

SLOTS = [(0x4000_0000, 0x100_0000, 0xFFFF_A000_0000), (0x9000_0000, 0x1_0000, 0xFFFF_B000_0000)]
ROOTS = (0x4800_0000, 0x4810_0000)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kernel, "_known", [])
    monkeypatch.setattr(kernel, "_parsed", {})


def _host(**options: object) -> LinuxHost:
    """Two VMs of a VMM, and a process with files of other kinds."""
    host = LinuxHost(**options)  # type: ignore[arg-type]
    first = host.vm(3, ROOTS[0], 0x7000, SLOTS, vcpus=2)
    second = host.vm(4, ROOTS[1], 0x7000, SLOTS[:1])
    host.process(90, "other", 0x8000, [("others", 0x1234), ("others", 0)])
    host.process(91, "vmm", 0x7000, [("others", 0), ("operations", first), ("operations", second)])
    return host


def _essence(vm: Vm) -> tuple[object, ...]:
    return (
        vm.vmid,
        vm.root,
        [(s.ipa, s.size, s.host_va) for s in vm.memslots],
        [(v.vcpu, v.pc) for v in vm.vcpus],
    )


EXPECTED = [
    (3, ROOTS[0], SLOTS, [(0, 0x9000), (1, 0x9010)]),
    (4, ROOTS[1], SLOTS[:1], [(0, 0x9000)]),
]


@pytest.mark.parametrize("order", ["old", "seqs", "new"])
def test_kernel(order: str) -> None:
    found = find_kernel(_host(order=order).stop())
    assert (found.base, found.physical_base) == (BASE, IMAGE)
    assert found.build_id == BUILD_ID.hex()
    assert found.banner == "Linux version 6.1.0-test (gdbhyp) #1 SMP"
    assert found.symbol("function_599") == BASE + 0x1000 + 16 * 599
    assert found.name(BASE + 0x1004) == "function_0+0x4"
    assert found.name(0x1000) is None
    assert found.symbol("nothing") is None


def test_exports_complete_a_short_table() -> None:
    found = find_kernel(_host(full=False).stop())
    assert found.symbol("init_task") == BASE + DATA["init_task"]
    assert found.symbol("vm_list") is None


@pytest.mark.parametrize("full", [True, False], ids=["vm_list", "files"])
def test_vms(full: bool) -> None:
    search = find_vms(_host(full=full).stop())
    assert [_essence(vm) for vm in search.vms] == EXPECTED
    assert search.problems == ()
    assert all(vm.process is not None and vm.process.pid == 91 for vm in search.vms)
    assert search.vms[0].vttbr == 3 << 48 | ROOTS[0] | 1, "with CnP, as TTBR0_EL2 has it"
    assert ("vm_list" if full else "process 91 (vmm)") in search.vms[0].how


def test_vms_close_behind_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """A VHE kernel allocates its VMs in the range of its image, which makes none of them the head of the list."""
    monkeypatch.setattr(linuxhost, "LINEAR", BASE + 0x100_0000 - linuxhost.OBJECTS)
    search = find_vms(_host(full=False).stop())
    assert [_essence(vm) for vm in search.vms] == EXPECTED
    assert search.problems == ()


def test_same_without_the_hosts_registers() -> None:
    """In a guest, TTBR1_EL1 is the guest's: the host's table is found in its image, and so are the VMs."""
    host = _host()
    # The kernel's table is a page of its image, as swapper_pg_dir is.
    root = host.memory.pages[host.host.root >> 12]
    host.memory.pages[IMAGE + 0x4_F000 >> 12] = root
    host.cpus = [
        {"TTBR1_EL1": 0x1234_5000, "HCR_EL2": HCR_GUEST, "VTTBR_EL2": 3 << 48 | ROOTS[0], "TCR_EL1": 0}
    ]
    search = find_vms(host.stop())
    assert [_essence(vm)[:3] for vm in search.vms] == [row[:3] for row in EXPECTED]


def test_running_vcpu() -> None:
    """The PC of the vCPU that a CPU runs is the CPU's, and its saved registers are said to be older."""
    host = _host()
    host.put("kvm_vcpu", host.vcpu(host.vms[0], 1), "cpu", 1, 4)
    running = {"HCR_EL2": HCR_GUEST, "VTTBR_EL2": 3 << 48 | ROOTS[0], "VMPIDR_EL2": 0x8000_0001}
    host.cpus = [{}, running | {"PC": 0x7777, "TTBR1_EL1": 0x2000, "TTBR0_EL1": 0x9990, "X5": 5}]
    stop = host.stop()
    (first, _) = find_vms(stop).vms
    assert [(v.pc, v.pc_from, v.cpu) for v in first.vcpus] == [(0x9000, "saved", None), (0x7777, "live", 1)]
    report = vcpu_report(stop, *choose(stop, 0, 1))
    differing = {row.name: (row.saved, row.live) for row in (*report.general, *report.system) if row.differs}
    assert differing["TTBR0_EL1"] == (0x1000, 0x9990)
    assert differing["X5"] == (0x105, 5)
    assert "TTBR1_EL1" not in differing
    assert guest(stop, first, first.vcpus[1]).live


@pytest.mark.parametrize(("mode", "expected"), [(0, (0x9000, "saved")), (1, (0x8880, "ELR_EL2"))])
def test_at_el2(mode: int, expected: tuple[int, str]) -> None:
    """KVM loads a VM's stage 2 also to invalidate its TLB entries: ELR_EL2 is the guest's only while it runs one."""
    host = _host()
    vcpu = host.vcpu(host.vms[0], 0)
    host.put("kvm_vcpu", vcpu, "cpu", 0, 4)
    host.put("kvm_vcpu", vcpu, "mode", mode, 4)
    host.cpus = [{"HCR_EL2": HCR_GUEST, "VTTBR_EL2": 3 << 48 | ROOTS[0], "CPSR": 0x9, "ELR_EL2": 0x8880}]
    found = find_vms(host.stop()).vms[0].vcpus[0]
    assert (found.pc, found.pc_from) == expected


def test_stage2_loaded_by_an_hvhe_host() -> None:
    """With E2H, EL1 is the host's own all the same while TGE is 0: a guest's registers are the saved ones."""
    host = _host()
    host.put("kvm_vcpu", host.vcpu(host.vms[0], 0), "cpu", 0, 4)
    host.registers["TCR_EL2"] = stage1_tcr(FORMAT, 48, ps=40)
    host.registers["HCR_EL2"] |= 1 << 34
    at_el2 = {
        "HCR_EL2": HCR_GUEST | 1 << 34,
        "VTTBR_EL2": 3 << 48 | ROOTS[0],
        "CPSR": 0x9,
        "TTBR0_EL1": 0x6000,
    }
    host.cpus = [at_el2, {}]
    stop = host.stop()
    vm = find_vms(stop).vms[0]
    found = guest(stop, vm, vm.vcpus[0])
    assert found.registers_from == "as saved at its last exit"
    assert found.stop.machine.registers.get("TTBR0_EL1") == 0x1000


def test_left_loaded_by_a_vhe_host() -> None:
    """A VHE host leaves a vCPU's EL1 registers in the CPU until it puts it; they are newer than the saved ones."""
    host = _host()
    host.put("kvm_vcpu", host.vcpu(host.vms[0], 0), "cpu", 0, 4)
    own = host.registers
    vhe = {"HCR_EL2": 1 << 34 | 1 << 27 | 1 << 31, "CPSR": 0x9, "VBAR_EL2": BASE + VECTORS}
    vhe |= {"TTBR1_EL2": own["TTBR1_EL1"], "TCR_EL2": own["TCR_EL1"], "VTTBR_EL2": 3 << 48 | ROOTS[0]}
    host.cpus = [vhe | {"TTBR0_EL1": 0x6000, "TTBR1_EL1": 0x2000, "X5": 5}]
    stop = host.stop()
    vm = find_vms(stop).vms[0]
    found = guest(stop, vm, vm.vcpus[0])
    assert found.registers_from.startswith("EL1 registers live on CPU 0")
    registers = found.stop.machine.registers
    assert (registers.get("TTBR0_EL1"), registers.get("X5")) == (0x6000, 0x105)


def test_user_space_of_a_vhe_host_with_page_table_isolation() -> None:
    """What is mapped then is a trampoline at the image's end, by a table beside the kernel's own."""
    host = _host()
    place, code, table, own = 0xFFFF_FBFF_FDBF_7000, IMAGE + 0x4_C000, IMAGE + 0x4_D000, IMAGE + 0x4_F000
    for offset in range(0x400, 0x600, 0x80):
        host.memory.write(code + offset, (0xD51B_D07E).to_bytes(4, "little"))
    trampoline = host.tables(48, 0)
    trampoline.map(place, code, 3, HYP_TEXT)
    host.memory.pages[table >> 12] = host.memory.pages[trampoline.root >> 12]
    host.memory.pages[own >> 12] = host.memory.pages[host.host.root >> 12]
    tcr = host.registers["TCR_EL1"]
    vhe = {"HCR_EL2": 1 << 34 | 1 << 27 | 1 << 31, "CPSR": 0, "PC": 0x40_0000, "VBAR_EL2": place}
    host.cpus = [vhe | {"TTBR1_EL2": table | 1, "TCR_EL2": tcr, "TTBR1_EL1": 0, "TCR_EL1": 0, "TTBR0_EL2": 0}]
    for how in ("is a table of its image", "found before"):
        assert how in find_kernel(host.stop()).how
    kernel._known.clear()
    assert "in the cache" in find_kernel(host.stop()).how
    assert [_essence(vm)[:3] for vm in find_vms(host.stop()).vms] == [row[:3] for row in EXPECTED]


def test_guest_as_a_stop() -> None:
    """A VM that nobody runs has its saved registers, its stage 2, and nothing of the host's EL1."""
    stop = _host().stop()
    vm = find_vms(stop).vms[0]
    found = guest(stop, vm, vm.vcpus[1])
    registers = found.stop.machine.registers
    assert not found.live
    assert (registers.get("TTBR1_EL1"), registers.get("X3"), registers.get("PC")) == (0x2000, 0x103, 0x9010)
    assert registers.get("VTTBR_EL2") == vm.vttbr
    assert (registers.get("HCR_EL2") or 0) & 1
    assert registers.get("VBAR_EL1") is None, "not the host's"


def test_last_exit() -> None:
    host = _host()
    vcpu = host.vcpu(host.vms[1])
    for member, value in (("esr_el2", 0x93C5_8045), ("far_el2", 0x5123), ("hpfar_el2", 0x9_0000)):
        host.put("kvm_vcpu", vcpu, f"arch.fault.{member}", value)
    host.put("kvm_vcpu", vcpu, "arch.iflags", 0b0111, 1)
    stop = host.stop()
    report = vcpu_report(stop, *choose(stop, 1, None))
    assert report.ipa == 0x900_0123
    assert report.last_exit is not None
    assert "IPA 0x9000123" in report.last_exit.summary
    assert report.pending == ("an SError at EL1",)


def test_vcpu_of_a_protected_vm() -> None:
    """What the host has of it is its own copy, which pKVM need not keep: it is not called what was saved."""
    host = _host()
    host.put("kvm", host.vms[1], "arch.pkvm.enabled", 1, 4)
    stop = host.stop()
    for number, copied in ((0, False), (1, True)):
        report = vcpu_report(stop, *choose(stop, number, 0))
        assert report.protected is copied
        assert report.registers_from.startswith("the host's copy") is copied
        text = "\n".join(vcpu_text(report, Style()))
        assert ("protected from the host" in text, "in the host's copy" in text) == (copied, copied)


def test_list_in_a_circle() -> None:
    """A list that leaves its head out: what it leads to is shown, and that it is broken."""
    host = _host()
    node = host.vms[0] + host.at("kvm", "vm_list")
    host.write_at(node, (host.vms[1] + host.at("kvm", "vm_list")).to_bytes(8, "little"))
    search = find_vms(host.stop())
    assert [vm.vmid for vm in search.vms] == [3, 4]
    assert any("does not lead back" in problem for problem in search.problems)


def test_what_is_no_vm() -> None:
    host = _host()
    host.put("kvm", host.vms[1], "arch.mmu.arch", 0xDEAD)
    search = find_vms(host.stop())
    assert [vm.vmid for vm in search.vms] == [3]
    assert any("its stage 2 does not point back" in problem for problem in search.problems)


@pytest.mark.parametrize("full", [True, False])
def test_carved(full: bool) -> None:
    """With no list that leads anywhere, VMs are found in a dump by what each one holds, which is not certain."""
    host = _host(full=full)
    host.write_at(BASE + DATA["vm_list"], bytes(16))
    host.write_at(BASE + DATA["init_task"], bytes(0x100))
    search = find_vms(host.stop())
    assert [_essence(vm)[:3] for vm in search.vms] == [row[:3] for row in EXPECTED]
    assert not any(vm.certain for vm in search.vms)
    assert search.problems


def test_slots_in_a_circle() -> None:
    host = _host()
    holder = host.word_at(host.vms[0] + host.at("kvm", "memslots"))
    node = host.word_at(holder + host.at("kvm_memslots", "id_hash"))
    host.write_at(node, node.to_bytes(8, "little"))
    search = find_vms(host.stop())
    assert [len(vm.memslots) for vm in search.vms] == [0, 1]
    assert any("memory slots of VM 0" in problem for problem in search.problems)


def test_missing_page() -> None:
    """Memory that is not there loses what is in it, and is named."""
    host = _host()
    vcpu = host.vcpu(host.vms[0], 1)
    host.put("kvm_vcpu", host.vcpu(host.vms[0], 0), "kvm", host.vms[0])
    host.write_at(host.vms[0] + host.at("kvm", "memslots"), (LINEAR + 0x463F_0000).to_bytes(8, "little"))
    host.put("kvm_vcpu", vcpu, "kvm", 0)
    search = find_vms(host.stop())
    assert [len(vm.vcpus) for vm in search.vms] == [1, 1]
    assert len(search.problems) == 2


def test_no_types() -> None:
    host = _host(with_types=False)
    host.cpus = [{}, {"VTTBR_EL2": 3 << 48 | ROOTS[0], "HCR_EL2": HCR_GUEST}]
    search = find_vms(host.stop())
    assert [vm.vmid for vm in search.vms] == [3]
    assert any("carries no types" in problem for problem in search.problems)


def test_dump_without_types_and_registers() -> None:
    """Where nothing else says that there is KVM, it is still said why no VM is shown."""
    host = _host(with_types=False)
    host.memory.pages[IMAGE + 0x4_F000 >> 12] = host.memory.pages[host.host.root >> 12]
    host.registers, host.cpus = dict(EVERYTHING), [{}]
    host.ram = ((0x4000_0000, 0x4010_0000), (IMAGE, IMAGE + 0x6_0000), (0x4600_0000, 0x4640_0000))
    search = find_vms(replace(host.stop(), origin="dump"))
    assert not search.vms
    assert any("load its vmlinux" in problem for problem in search.problems)
    assert search.host.endswith("its structures are not known")


def test_dump_without_registers() -> None:
    """Nothing points to the kernel: its symbols are searched for, and its own table is a page of its image."""
    host = _host()
    host.memory.pages[IMAGE + 0x4_F000 >> 12] = host.memory.pages[host.host.root >> 12]
    host.registers, host.cpus = dict(EVERYTHING), [{}]
    host.ram = ((0x4000_0000, 0x4010_0000), (IMAGE, IMAGE + 0x6_0000), (0x4600_0000, 0x4640_0000))
    search = find_vms(host.stop())
    assert [_essence(vm)[:3] for vm in search.vms] == [row[:3] for row in EXPECTED]
    assert search.vms[0].vttbr == 3 << 48 | ROOTS[0]


def test_no_kernel() -> None:
    host = _host()
    for at in range(IMAGE + 0x1_0000, IMAGE + 0x5_0000, 0x1000):
        del host.memory.pages[at >> 12]
    with pytest.raises(NoKernel, match="VBAR_EL2 of CPU 0"):
        find_kernel(host.stop())


def test_damage_anywhere() -> None:
    """Whatever is overwritten in the kernel's objects and read-only data, the answer is one, or a sentence."""
    chance = random.Random(5)
    for number in range(60):
        kernel._known.clear()
        host = _host(full=bool(number % 2))
        where = (IMAGE + 0x1_0000, 0x2_0000) if number % 3 else (0x4600_0000, host.next_object - 0x4600_0000)
        for _ in range(chance.choice((1, 8, 64))):
            host.memory.write(where[0] + 8 * chance.randrange(where[1] // 8), chance.randbytes(8))
        search = find_vms(host.stop())
        for vm in search.vms:
            with contextlib.suppress(GdbhypError):
                guest(host.stop(), vm)


def _reads(stop: Stop) -> int:
    memory = stop.machine.memory
    return memory.reads  # type: ignore[attr-defined, no-any-return]


def test_found_again() -> None:
    """A kernel that was found is found again with a few reads, in the same process and from the cache folder."""
    stop = _host().stop()
    find_kernel(stop)
    first = _reads(stop)
    again = find_kernel(stop)
    assert again.how.startswith("found before")
    assert _reads(stop) - first < 30
    kernel._known.clear()
    cached = find_kernel(stop)
    assert "in the cache" in cached.how
    assert (cached.base, list(cached.symbols())) == (again.base, list(again.symbols()))


def test_cache_is_not_trusted() -> None:
    """A damaged file, and one of another kernel under this name, are as good as none."""
    stop = _host().stop()
    find_kernel(stop)
    (path,) = cache.folder().glob("*.image")
    good = path.read_bytes()
    for damaged in (
        good[:100],
        good[:-1],
        good[:-9] + b"123456789",
        b"",
        b"[]\n",
        b'{"format": 1}\n' + good,
        b"{" * 4000,
    ):
        path.write_bytes(damaged)
        kernel._known.clear()
        assert "in the cache" not in find_kernel(stop).how
    kernel._known.clear()
    assert "in the cache" in find_kernel(stop).how, "and it was written again"


def test_moved() -> None:
    """After a reboot the kernel is elsewhere: what is remembered is verified first."""
    find_kernel(_host().stop())
    moved = _host()
    moved.memory.write(IMAGE + 0x1_0000, bytes(0x4_0000))
    with pytest.raises(NoKernel):
        find_kernel(moved.stop())
