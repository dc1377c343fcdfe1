"""The demo hypervisor itself: what it does is what its truth.json says, seen by GDB and QEMU alone.

Nothing of gdbhyp is used here, so that the tests which compare gdbhyp with truth.json stand on something.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.gdb_session import GdbSession
from support.qemu import machine
from support.tools import ROOT, gdb_multiarch

pytestmark = pytest.mark.live

BUILD = ROOT / "qemu-scripts" / "demo-hypervisor" / "build"
PAGE = 0x1000
IPA_FROM = {None: 0, "hpfar": 1, "stage1_walk": 2}
# QEMU's names of registers that AArch32 has under the same number.
STUB_NAMES = {"SCTLR_EL1": "SCTLR", "VBAR_EL1": "VBAR"}
HOST_CANARY = 0x40570000
HOST_TPIDR = 0x40570E10
GUEST_CANARY = 0x60E50000

Truth = dict[str, Any]


@dataclass
class Attached:
    """A build of the demo hypervisor, stopped somewhere in QEMU under GDB."""

    gdb: GdbSession
    truth: Truth

    def run_to(self, *places: str) -> str:
        """Continue until one of the places is reached and say which."""
        for place in places:
            self.gdb.run(f"tbreak {place}")
        self.gdb.run("continue")
        self.gdb.run("delete")
        pc = self.gdb.register("pc")
        return next(place for place in places if int(self.truth["symbols"][place], 16) == pc)

    def run_to_vm(self, place: str, name: str) -> None:
        """Continue until a vCPU of this VM reaches the place."""
        vttbr = next(vm["vttbr"] for vm in self.truth["vms"] if vm["name"] == name)
        self.gdb.run(f"break {place} if $VTTBR_EL2 == {vttbr}")
        self.gdb.run("continue")
        self.gdb.run("delete")
        assert self.gdb.register("pc") == int(self.truth["symbols"][place], 16)

    def memory(self, address: int, size: int) -> bytes:
        """Read memory at a VA of the current regime."""
        read = f"bytes(gdb.selected_inferior().read_memory({address}, {size})).hex()"
        return bytes.fromhex(self.gdb.python(read))

    def word(self, address: int) -> int:
        """Read eight bytes."""
        return int.from_bytes(self.memory(address, 8), "little")

    def vcpu_field(self, vcpu: int, name: str) -> int:
        """Read a member of a vCPU's context, at its EL2 address."""
        return self.word(vcpu + self.truth["context_layout"][name])

    def gva2gpa(self, va: int) -> int | None:
        """Ask QEMU where a VA of the current regime leads, through all stages."""
        answer = self.gdb.run(f"monitor gva2gpa {va:#x}").strip()
        return int(answer.removeprefix("gpa: "), 16) if answer.startswith("gpa: ") else None


@contextmanager
def attached(elves: Path, truth: Truth, folder: Path, cpus: int) -> Iterator[Attached]:
    """A build in QEMU, stopped at its first instruction."""
    arguments = ["-M", "virt,virtualization=on,gic-version=3", "-cpu", "max", "-smp", str(cpus), "-m", "256M"]
    with (
        machine(folder, [*arguments, "-kernel", str(elves / "demo.elf")]) as running,
        GdbSession(gdb_multiarch(), folder, [str(elves / "demo.elf")]) as gdb,
    ):
        gdb.run(f"add-symbol-file {elves / 'guest.elf'}")
        gdb.run(f"target remote {running.gdb}")
        yield Attached(gdb, truth)


@pytest.fixture
def one_cpu(demo: Path, truth: Truth, tmp_path: Path) -> Iterator[Attached]:
    with attached(demo, truth, tmp_path, 1) as started:
        yield started


@pytest.mark.parametrize("cpus", [1, 2])
def test_every_trap(demo: Path, truth: Truth, tmp_path: Path, cpus: int) -> None:
    """Every vCPU takes every trap, with the registers that the truth has; EL2 writes down the right IPA."""
    expected = {
        (int(vm["vttbr"], 16), int(site["elr"], 16)): site for vm in truth["vms"] for site in vm["sites"]
    }
    vcpu_of = {
        int(vcpu["context_va"], 16): (vm["name"], vcpu["vcpu"]) for vm in truth["vms"] for vcpu in vm["vcpus"]
    }
    wanted = {(*vcpu_of[va], site["symbol"]) for va in vcpu_of for site in truth["vms"][0]["sites"]}
    wanted = {(vm, vcpu, symbol) for vm, vcpu, symbol in wanted if vcpu < cpus}
    seen: set[tuple[str, int, str]] = set()
    with attached(demo, truth, tmp_path, cpus) as started:
        gdb = started.gdb
        gdb.run("break __guest_exit")
        for _ in range(20 * len(wanted)):
            if seen == wanted:
                break
            gdb.run("continue")
            register = gdb.register
            assert register("pc") == int(truth["symbols"]["__guest_exit"], 16)
            site = expected[register("VTTBR_EL2"), register("ELR_EL2")]
            vcpu = register("x0")
            vm, number = vcpu_of[vcpu]
            assert vm == site["vm"]
            assert number + 1 == gdb.python("gdb.selected_thread().num")
            assert hex(register("ESR_EL2")) == site["esr"], site["symbol"]
            assert register("ESR_EL2") >> 26 == site["ec"]
            if site["va"] is not None:
                assert hex(register("FAR_EL2")) == site["va"], site["symbol"]
            if site["hpfar_valid"]:
                assert hex(register("HPFAR_EL2")) == site["hpfar"], site["symbol"]
            field = started.vcpu_field
            assert hex(field(vcpu, "VCPU_ESR")) == site["esr"]
            assert hex(field(vcpu, "VCPU_HPFAR")) == (site["hpfar"] or "0x0"), site["symbol"]
            assert field(vcpu, "VCPU_IPA_FROM") == IPA_FROM[site["ipa_method"]], site["symbol"]
            seen.add((vm, number, site["symbol"]))
    assert seen == wanted


def test_sites_are_what_they_are_called(truth: Truth) -> None:
    """The truth has each kind of trap that it is for, in both VMs."""
    kinds = {"hvc", "smc", "mmio_load", "mmio_store", "permission", "access_flag", "address_size"}
    kinds |= {"s1ptw", "instruction_abort", "mrs", "msr", "wfi", "fp", "sve"}
    for vm in truth["vms"]:
        assert {site["kind"] for site in vm["sites"]} == kinds
        assert {site["symbol"] for site in vm["sites"] if site["ipa_method"] == "stage1_walk"} == {
            "guest_perm_store",
            "guest_perm_store_block",
            "guest_iabt_xn",
        }


def test_starts_in_a_second(demo: Path, truth: Truth, tmp_path: Path) -> None:
    """From the first instruction until both guests have been all round takes less than a second."""
    with attached(demo, truth, tmp_path, 1) as started:
        start = time.monotonic()
        started.run_to_vm("guest_wfi", "b")
        assert time.monotonic() - start < 1


def test_registers_of_each_world(one_cpu: Attached) -> None:
    """The registers that translate are as the truth has them, at EL2, in the host and in the guest."""
    worlds = one_cpu.truth["registers"]
    for place, world in (("hyp_start_host", "el2"), ("host_loop", "host"), ("guest_loop", "guest")):
        one_cpu.run_to(place)
        for name, value in worlds[world].items():
            assert hex(one_cpu.gdb.register(STUB_NAMES.get(name, name))) == value, f"{name} at {place}"
    for vm in one_cpu.truth["vms"]:
        one_cpu.run_to_vm("guest_mmio_load", vm["name"])
        assert hex(one_cpu.gdb.register("VTTBR_EL2")) == vm["vttbr"]
        assert hex(one_cpu.gdb.register("VTCR_EL2")) == vm["vtcr"]


def test_stage1_of_el2_and_host(one_cpu: Attached) -> None:
    """QEMU agrees on where each page of the hypervisor and of the host is."""
    for place, world in (("el1_sync", "el2"), ("host_loop", "host")):
        one_cpu.run_to(place)
        for row in one_cpu.truth["stage1"][world]:
            start, end, pa = (int(row[key], 16) for key in ("start", "end", "pa"))
            for offset in (0, 0x123, (end - start) // 2, end - start - 1):
                assert one_cpu.gva2gpa(start + offset) == pa + offset, f"{world} {start:#x}+{offset:#x}"
            if row["end"] not in {other["start"] for other in one_cpu.truth["stage1"][world]}:
                assert one_cpu.gva2gpa(end) is None


@pytest.mark.parametrize("name", ["a", "b"])
def test_both_stages_of_a_guest(one_cpu: Attached, name: str) -> None:
    """QEMU agrees on where each page of a guest's stage 1 ends, after stage 2."""
    vm = next(vm for vm in one_cpu.truth["vms"] if vm["name"] == name)
    one_cpu.run_to_vm("guest_loop", name)
    mapped = 0
    for row in one_cpu.truth["stage1"]["guest"]:
        start, end, ipa = (int(row[key], 16) for key in ("start", "end", "ipa"))
        for va in range(start, end, max(PAGE, (end - start) // 16)):
            pa = readable_pa(vm["map"], ipa + va - start + 0x345)
            assert one_cpu.gva2gpa(va + 0x345) == pa, hex(va)
            mapped += pa is not None
    assert mapped > 40
    for site in vm["sites"]:
        if site["fault"] is not None and site["fault"]["s1ptw"]:
            assert one_cpu.gva2gpa(int(site["va"], 16)) is None


def readable_pa(stage2: list[Truth], ipa: int) -> int | None:
    """Where a readable IPA leads, by the truth. Access flags do not count: gva2gpa does not look at them."""
    for row in stage2:
        start = int(row["start"], 16)
        if start <= ipa < int(row["end"], 16) and row["read"] and row["fault"] != "address_size":
            return int(row["pa"], 16) + ipa - start
    return None


@pytest.mark.parametrize("name", ["a", "b"])
def test_stage2_tables(one_cpu: Attached, name: str) -> None:
    """The descriptors in memory, read one by one, are the truth's map: no more, no less."""
    one_cpu.run_to("el1_sync")
    vm = next(vm for vm in one_cpu.truth["vms"] if vm["name"] == name)
    to_va = int(one_cpu.truth["symbols"][f"vm_{name}_root"], 16) - (int(vm["vttbr"], 16) & (1 << 48) - 1)

    def leaves(table: int, level: int, base: int, entries: int) -> Iterator[tuple[int, int, int]]:
        data = one_cpu.memory(table + to_va, 8 * entries)
        for index in range(entries):
            descriptor = int.from_bytes(data[8 * index : 8 * index + 8], "little")
            ipa = base + (index << 39 - 9 * level)
            if descriptor & 3 == 3 and level < 3:
                yield from leaves(descriptor & 0xFFFFFFFFF000, level + 1, ipa, 512)
            elif descriptor & 1:
                yield ipa, level, descriptor

    found = {ipa: (level, descriptor) for ipa, level, descriptor in leaves(to_pa(vm["vttbr"]), 1, 0, 1024)}
    memory = {"normal-wb": 0xF, "normal-nc": 0x5, "device-nGnRE": 0x1}
    for row in vm["map"]:
        start, pa = int(row["start"], 16), int(row["pa"], 16)
        for ipa in range(start, int(row["end"], 16), row["page_size"]):
            level, descriptor = found.pop(ipa)
            assert level == row["level"]
            assert descriptor & 0xFFFFFFFFF000 == pa + ipa - start, hex(ipa)
            assert descriptor >> 2 & 0xF == memory[row["memory"]]
            assert (descriptor >> 6 & 1, descriptor >> 7 & 1) == (row["read"], row["write"]), hex(ipa)
            assert (descriptor >> 53 & 3 == 0) == row["exec"], hex(ipa)
            assert descriptor >> 10 & 1 == row["access_flag"]
            assert descriptor >> 52 & 1 == row["contiguous"]
            assert (pa >> 40 != 0) == (row["fault"] == "address_size")
    assert not found


def to_pa(vttbr: str) -> int:
    """The root of a VTTBR_EL2."""
    return int(vttbr, 16) & 0xFFFFFFFFFFFE


def test_exits_are_counted(one_cpu: Attached) -> None:
    """EL2's counters: a round of the guest takes each trap once, and all classes together are all exits."""
    one_cpu.gdb.run("break guest_loop if $x21 == 20")
    one_cpu.gdb.run("continue")
    one_cpu.gdb.run("continue")  # the other VM
    one_cpu.gdb.run("delete")
    one_cpu.run_to("el1_trap")  # where EL2's addresses can be read
    counters = one_cpu.truth["context_layout"]["VCPU_EXITS_BY_EC"]
    vm = one_cpu.truth["vms"][0]  # has had its turn
    vcpu = int(vm["vcpus"][0]["context_va"], 16)
    by_class = [one_cpu.word(vcpu + counters + 8 * ec) for ec in range(64)]
    sites_by_class = [sum(site["ec"] == ec for site in vm["sites"]) for ec in range(64)]
    rounds = by_class[0x01]
    assert rounds >= 20
    assert by_class == [rounds * sites for sites in sites_by_class]
    assert one_cpu.vcpu_field(vcpu, "VCPU_EXITS") == sum(by_class)


def test_guest_goes_on_with_what_it_was_given(one_cpu: Attached) -> None:
    """The host's emulation reaches the guest: a value from the device, results of calls, an ID register."""
    one_cpu.run_to("guest_loop")
    one_cpu.run_to("guest_smc")
    one_cpu.run_to("guest_mmio_load")
    assert one_cpu.gdb.register("x0") == 0x10002  # SMCCC 1.2
    one_cpu.run_to("guest_mmio_store")
    assert one_cpu.gdb.register("x4") == 0x5CA1AB1E
    one_cpu.run_to("guest_msr")
    features = one_cpu.gdb.register("x3")  # ID_AA64PFR0_EL1
    assert features >> 8 & 0xF in (1, 2)  # EL2: AArch64, perhaps AArch32
    assert features >> 32 & 0xF == 1  # SVE


def worlds_seen(started: Attached) -> tuple[tuple[int, int], list[tuple[int, int, int]]]:
    """Return the host's (x23, TPIDR_EL0) after a few guest runs, and (VM, x23, TPIDR_EL0) of the guests."""
    guests = []
    for number, name in enumerate("aba"):
        started.run_to_vm("guest_mmio_store", name)
        guests.append((number % 2, started.gdb.register("x23"), started.gdb.register("TPIDR_EL0")))
    started.run_to("host_handle_exit")
    return (started.gdb.register("x23"), started.gdb.register("TPIDR_EL0")), guests


def test_worlds_keep_their_registers(one_cpu: Attached) -> None:
    """The right build: the host has its own x23 and TPIDR_EL0 after a guest ran, each guest has its own."""
    host, guests = worlds_seen(one_cpu)
    assert host == (HOST_CANARY, HOST_TPIDR)
    for vm, *values in guests:
        assert values == [GUEST_CANARY + (vm << 8)] * 2
    one_cpu.run_to("host_handle_exit")
    assert all(one_cpu.gdb.register(f"x{n}") == 0 for n in range(1, 19))


def test_planted_bug(tmp_path: Path) -> None:
    """The planted build: the host has a guest's x23, and a guest has what another world left in TPIDR_EL0."""
    elves = tmp_path / "planted"
    subprocess.run([BUILD, elves, "--planted-bug"], check=True)
    truth = json.loads((elves / "truth.json").read_text())
    assert truth["planted_bug"] is True
    with attached(elves, truth, tmp_path, 1) as started:
        host, guests = worlds_seen(started)
    assert host[0] in (GUEST_CANARY, GUEST_CANARY + (1 << 8))
    assert host[1] == HOST_TPIDR
    for vm, x23, tpidr in guests:
        assert x23 == GUEST_CANARY + (vm << 8)
        assert tpidr != x23


def test_source_lines(one_cpu: Attached) -> None:
    """GDB shows the source at a trap of the guest and in the hypervisor."""
    one_cpu.run_to("guest_mmio_store")
    assert "str     x5, [x1]" in one_cpu.gdb.run("frame")
    one_cpu.run_to("el1_trap")
    assert "mrs     x0, tpidr_el2" in one_cpu.gdb.run("frame")


def test_build_says_what_is_missing(tmp_path: Path) -> None:
    """A missing assembler is one sentence with the package's name; a wrong use is the usage."""
    environment = {**os.environ, "CROSS_COMPILE": "no-such-"}
    lacking = subprocess.run([BUILD, tmp_path / "x"], env=environment, capture_output=True, text=True)
    assert lacking.returncode == 1
    assert lacking.stderr.count("\n") == 1
    assert "binutils-aarch64-linux-gnu" in lacking.stderr
    wrong = subprocess.run([BUILD], capture_output=True, text=True)
    assert (wrong.returncode, wrong.stderr.split()[0]) == (2, "usage:")
