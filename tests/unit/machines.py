"""Machines with a hypervisor, a host and VMs, for tests that ask about all of them together.

The plain machine is an nVHE one in small, and a correct one::

    0x40000000  hypervisor text, mapped RX at EL2 (VA = PA + 0x6e00_0000_0000)
    0x40010000  hypervisor data, mapped RW at EL2
    0x40100000  tables of the hypervisor and of the VMs
    0x48000000  tables of the host
    0x44000000  VM 0's memory, 16 pages at IPA 0x80000000
    0x45000000  VM 1's memory, the same
    0x09000000  a device, mapped by EL2

Memory is 0x40000000 to 0x50000000. The host (EL1, no stage 2) maps all of it, linearly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from unit.pagetables import (
    AF,
    EVERYTHING,
    MAIR,
    Format,
    SparseMemory,
    Tables,
    single_tcr,
    stage1_tcr,
    stage2_vtcr,
)

from gdbhyp.engine.machine import Machine
from gdbhyp.engine.stop import Stop
from gdbhyp.hypervisors.vms import find_vms

PAGE = 0x1000
TEXT, DATA, DEVICE = 0x4000_0000, 0x4001_0000, 0x0900_0000
HYP = 0x6E00_0000_0000
LINEAR = 0xFFFF_0000_0000_0000
VM_MEMORY = (0x4400_0000, 0x4500_0000)
HOST_TABLES = 0x4800_0000
IPA = 0x8000_0000
RAM = ((0x4000_0000, 0x5000_0000),)
PAGES = 16

ISH = 3 << 8
DEVICE_ATTR = 6 << 2
XN = 1 << 54
PXN = 1 << 53
NG = 1 << 11
RO = 1 << 7
USER = 1 << 6
HYP_TEXT = AF | ISH | RO
HYP_DATA = AF | ISH | XN
HYP_DEVICE = AF | XN | DEVICE_ATTR
HOST_DATA = AF | ISH | XN | PXN
S2_NORMAL = AF | ISH | 0b1111 << 2 | 0b11 << 6
S2_READ_ONLY = AF | ISH | 0b1111 << 2 | 0b01 << 6
S2_DEVICE = AF | 0b0001 << 2 | 0b11 << 6 | XN

FORMAT = Format(12)
# RES1, and walks Write-Back Read- and Write-Allocate.
VTCR = stage2_vtcr(FORMAT, 39, 1, ps=40) | 1 << 31 | 1 << 8 | 1 << 10
HCR_GUEST = (
    1  # VM
    | 1 << 3  # FMO
    | 1 << 4  # IMO
    | 1 << 5  # AMO
    | 1 << 18  # TID3
    | 1 << 19  # TSC
    | 1 << 20  # TIDCP
    | 1 << 21  # TACR
    | 1 << 22  # TSW
    | 1 << 31  # RW
)
HCR_HOST = 1 << 31
EL1H, EL2H, EL0 = 0x5, 0x9, 0x0


@dataclass
class Model:
    """A machine under construction: change tables and registers, then take ``stop()``."""

    memory: SparseMemory = field(default_factory=SparseMemory)
    registers: dict[str, int] = field(default_factory=dict)
    cpus: list[dict[str, int]] = field(default_factory=list)
    ram: Sequence[tuple[int, int]] = RAM
    next_table: int = 0x4010_0000
    protected: bool | None = None
    """Whether its VMs are protected, as a hypervisor that tells would say."""

    def tables(self, input_bits: int, start: int, at: int | None = None) -> Tables:
        """Return a new tree, in the tables' memory or at a place."""
        tree = Tables(self.memory, FORMAT, input_bits, start, next_free=at or self.next_table)
        self.next_table += 0x10_0000
        return tree

    def fill(self, start: int, end: int) -> None:
        """Give memory to a range, all zero."""
        for page in range(start >> 12, end >> 12):
            self.memory.pages.setdefault(page, bytearray(PAGE))

    def stop(self) -> Stop:
        """Return the machine's first CPU."""
        stops: list[Stop] = []

        def others(own: int) -> list[Stop]:
            return [stop for stop in stops if stop.cpu != own]

        for number, own in enumerate(self.cpus):
            machine = Machine(self.registers | own, self.memory)
            stops.append(
                Stop(
                    machine,
                    origin="a test",
                    cpu=number,
                    count_cpus=lambda: len(stops),
                    others=lambda own=number: others(own),  # type: ignore[misc]
                    ram=lambda: self.ram,
                )
            )
        if self.protected is not None:
            found = find_vms(stops[0])
            vms = tuple(replace(vm, protected=self.protected) for vm in found.vms)
            stops[0].memo["vms"] = replace(found, vms=vms)
        return stops[0]


@dataclass
class Nvhe(Model):
    """The plain machine: two CPUs, in VM 0 and in VM 1, and a third in the host; ``guests`` False leaves VMs out."""

    hyp: Tables = field(init=False)
    host: Tables = field(init=False)
    vms: list[Tables] = field(init=False)

    def __post_init__(self) -> None:
        self.hyp = self.tables(48, 0)
        for page in range(PAGES):
            self.hyp.map(HYP + TEXT + page * PAGE, TEXT + page * PAGE, 3, HYP_TEXT)
            self.hyp.map(HYP + DATA + page * PAGE, DATA + page * PAGE, 3, HYP_DATA)
        self.hyp.map(HYP + DEVICE, DEVICE, 3, HYP_DEVICE)
        self.host = self.tables(48, 0, HOST_TABLES)
        for start, end in RAM:
            for block in range(start, end, 0x20_0000):
                self.host.map(LINEAR + block, block, 2, HOST_DATA)
        self.vms = [self._vm(base) for base in VM_MEMORY]
        self.registers = EVERYTHING | {
            "SCTLR_EL2": 0x30C5_183D,
            "TCR_EL2": single_tcr(FORMAT, 48, ps=40) | 1 << 31 | 1 << 23 | 1 << 8 | 1 << 10,
            "MAIR_EL2": MAIR,
            "TTBR0_EL2": self.hyp.ttbr(),
            "VBAR_EL2": HYP + TEXT,
            "CPTR_EL2": 0x33FF | 1 << 31 | 1 << 20,
            "MDCR_EL2": 1 << 5 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 14 | 1 << 19,
            "VTCR_EL2": VTCR,
            "VTTBR_EL2": 0,
            "SCTLR_EL1": 0x30D0_1805 | 1,
            "TCR_EL1": stage1_tcr(FORMAT, 48, ps=40, upper=True),
            "MAIR_EL1": MAIR,
            "TTBR0_EL1": 0,
            "TTBR1_EL1": self.host.ttbr(),
            "HCR_EL2": HCR_HOST,
            "CPSR": EL1H,
            "PC": 0x8000_0000,
        }
        self.cpus = [self.guest_cpu(0), self.guest_cpu(1), {}]

    def _vm(self, base: int) -> Tables:
        tree = self.tables(39, 1)
        for page in range(PAGES):
            tree.map(IPA + page * PAGE, base + page * PAGE, 3, S2_NORMAL)
        return tree

    def guest_cpu(self, vm: int, vmid: int | None = None) -> dict[str, int]:
        """Return the registers of a CPU in a VM, with its VMID, 1 and up."""
        number = vm + 1 if vmid is None else vmid
        return {
            "HCR_EL2": HCR_GUEST,
            "VTTBR_EL2": self.vms[vm].ttbr() | number << 48,
            "TTBR1_EL1": 0,
            "SCTLR_EL1": 0,
        }


@dataclass
class Hvhe(Nvhe):
    """The same with E2H = 1 and TGE = 0: EL2 runs by the EL2&0 regime, its data never executes by UXN and PXN."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for page in range(PAGES):
            self.hyp.map(HYP + DATA + page * PAGE, DATA + page * PAGE, 3, HYP_DATA | PXN)
        self.hyp.map(HYP + DEVICE, DEVICE, 3, HYP_DEVICE | PXN)
        self.registers["TCR_EL2"] = stage1_tcr(FORMAT, 48, ps=40) | 1 << 8 | 1 << 10
        self.registers["HCR_EL2"] |= 1 << 34
        for cpu in self.cpus:
            cpu["HCR_EL2"] = cpu.get("HCR_EL2", HCR_HOST) | 1 << 34


@dataclass
class Protected(Nvhe):
    """The same behind a stage 2 of the host's own (pKVM), which maps all but the hypervisor and the tables."""

    host_stage2: Tables = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.host_stage2 = self.tables(39, 1)
        for block in range(0x4400_0000, 0x5000_0000, 0x20_0000):
            self.host_stage2.map(block, block, 2, S2_NORMAL)
        self.cpus[2] = {"HCR_EL2": HCR_HOST | 1, "VTTBR_EL2": self.host_stage2.ttbr()}


@dataclass
class Vhe(Model):
    """A VHE host on one CPU, with a user process, and a VM on the other."""

    kernel: Tables = field(init=False)
    process: Tables = field(init=False)
    vm: Tables = field(init=False)

    def __post_init__(self) -> None:
        self.kernel, self.process = self.tables(48, 0, HOST_TABLES), self.tables(48, 0)
        for start, end in RAM:
            for block in range(start, end, 0x20_0000):
                if block != TEXT:
                    self.kernel.map(LINEAR + block, block, 2, HOST_DATA)
        for page in range(PAGES):
            self.kernel.map(LINEAR + TEXT + page * PAGE, TEXT + page * PAGE, 3, HYP_TEXT | XN)
            self.process.map(0x40_0000 + page * PAGE, VM_MEMORY[0] + page * PAGE, 3, HOST_DATA | USER | NG)
        self.vm = self.tables(39, 1)
        for page in range(PAGES):
            self.vm.map(IPA + page * PAGE, VM_MEMORY[0] + page * PAGE, 3, S2_NORMAL)
        both = stage1_tcr(FORMAT, 48, ps=40) & ~(1 << 23) | stage1_tcr(FORMAT, 48, ps=40, upper=True) & ~0x80
        both |= 1 << 8 | 1 << 10 | 1 << 24 | 1 << 26
        host: Mapping[str, int] = {"HCR_EL2": HCR_HOST | 1 << 34 | 1 << 27, "CPSR": EL2H}
        self.registers = EVERYTHING | {
            "SCTLR_EL2": 0x30D0_183D,
            "TCR_EL2": both,
            "MAIR_EL2": MAIR,
            "TTBR0_EL2": self.process.ttbr(),
            "TTBR1_EL2": self.kernel.ttbr(),
            "CPTR_EL2": 1 << 28,
            "MDCR_EL2": 1 << 5 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 14 | 1 << 19,
            "VTCR_EL2": VTCR,
            "VTTBR_EL2": 0,
            "TCR_EL1": 0,
            "SCTLR_EL1": 0,
            "MAIR_EL1": 0,
            "TTBR0_EL1": 0,
            "TTBR1_EL1": 0,
            "VBAR_EL2": LINEAR + TEXT,
            "PC": 0x8000_0000,
        }
        guest = {
            "HCR_EL2": HCR_GUEST | 1 << 34,
            "VTTBR_EL2": self.vm.ttbr() | 1 << 48,
            "CPSR": EL1H,
        }
        self.cpus = [dict(host), guest]
