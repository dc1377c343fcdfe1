"""A synthetic KVM in nVHE: an image of 16 pages, mapped by the kernel in one piece and by EL2 in parts."""

from __future__ import annotations

from dataclasses import dataclass, field

from unit.a64 import code
from unit.pagetables import AF, EVERYTHING, MAIR, Format, SparseMemory, Tables, single_tcr, stage1_tcr

from gdbhyp.arch.spaces import PA, VA
from gdbhyp.engine.machine import Machine
from gdbhyp.engine.stop import Stop
from gdbhyp.hypervisors.linux.image import Image
from gdbhyp.hypervisors.linux.kallsyms import Kallsyms
from gdbhyp.hypervisors.linux.kernel import Kernel
from gdbhyp.hypervisors.linux.memory import of_host

PAGE = 0x1000
KERNEL, PHYSICAL, PAGES = 0xFFFF_8000_1000_0000, 0x4010_0000, 16
HYP = 0x9ABC_0000_0000
TEXT, RODATA, STRANGE, DATA, PER_CPU = 4, 8, 9, 12, 14
"""Pages of the image: EL2's code (2 pages), its read-only data, a page that the kernel has elsewhere, its data."""

TABLE = RODATA * PAGE + 0x68
DISPATCH = code(
    0x90000020,  # adrp x0, .+0x4000
    0x9101A000,  # add  x0, x0, #0x68
    0xF8617800,  # ldr  x0, [x0, x1, lsl #3]
    0xD63F0000,  # blr  x0
    0xD65F03C0,  # ret
)
READ_ONLY = 1 << 7
NEVER_EXECUTE, PRIVILEGED_NEVER = 1 << 54, 1 << 53
NAMES = {
    "T_text": 0,
    "Tvfs_read": 0x100,
    "t__kvm_nvhe_handle_trap": TEXT * PAGE + 0x10,
    "t__kvm_nvhe_handle___kvm_vcpu_run": TEXT * PAGE + 0x40,
    "t__kvm_nvhe_handle___kvm_adjust_pc": TEXT * PAGE + 0x60,
    "T__kvm_nvhe___guest_enter": (TEXT + 1) * PAGE + 0x20,
    "T__kvm_nvhe_alias_of_it": (TEXT + 1) * PAGE + 0x20,
    "R__start_rodata": RODATA * PAGE,
    "d__kvm_nvhe_constant": RODATA * PAGE + 0x20,
    "d__kvm_nvhe_elsewhere": STRANGE * PAGE + 0x20,
    "b__kvm_nvhe_variable": DATA * PAGE + 8,
    "bjiffies": DATA * PAGE + 0x80,
    "D__kvm_nvhe___per_cpu_start": PER_CPU * PAGE,
    "d__kvm_nvhe_own": PER_CPU * PAGE + 0x40,
    "D__kvm_nvhe___per_cpu_end": PER_CPU * PAGE + 0x80,
    "B_end": PAGES * PAGE,
}


@dataclass
class KvmWorld:
    """``names`` are the symbols, a type and a name each, by their offset in the image."""

    names: dict[str, int] = field(default_factory=lambda: dict(NAMES))
    memory: SparseMemory = field(default_factory=SparseMemory)
    calls: tuple[int, ...] = (0, NAMES["t__kvm_nvhe_handle___kvm_vcpu_run"], 0, TEXT * PAGE + 0x60)
    """The table of host calls, as offsets in the image; 0 for none."""

    def __post_init__(self) -> None:
        form = Format(12)
        self.kernel_tables = Tables(self.memory, form, 48, form.start_level(48), 0x8000_0000)
        self.hyp_tables = Tables(self.memory, form, 48, form.start_level(48), 0x9000_0000)
        for page in range(PAGES):
            where = PHYSICAL + page * PAGE if page != STRANGE else 0x7000_0000
            attributes = AF | NEVER_EXECUTE | (0 if page < RODATA else PRIVILEGED_NEVER)
            low = (KERNEL & (1 << 48) - 1) + page * PAGE
            self.kernel_tables.map(low, where, 3, attributes)
            self.memory.write(PHYSICAL + page * PAGE, bytes(1))
        for page in (TEXT, TEXT + 1):
            self.map_hyp(HYP + page * PAGE, page, AF | READ_ONLY)
        for page in (RODATA, STRANGE, DATA):
            self.map_hyp(HYP + page * PAGE, page, AF | NEVER_EXECUTE)
        self.map_hyp(PHYSICAL + TEXT * PAGE, TEXT, AF | READ_ONLY)
        self.memory.write(PHYSICAL + self.names.get("t__kvm_nvhe_handle_trap", 0), DISPATCH)
        for number, handler in enumerate(self.calls):
            self.memory.write_word(PHYSICAL + TABLE + 8 * number, HYP + handler if handler else 0)
        self.memory.write_word(PHYSICAL + TABLE + 8 * len(self.calls), 0x6D72_612F_6863_7261)

    def map_hyp(self, va: int, page: int, attributes: int) -> None:
        self.hyp_tables.map(va, PHYSICAL + page * PAGE, 3, attributes)

    def stop(self, cpu: int = 0, **registers: int) -> Stop:
        """Return a CPU in the host."""
        form = Format(12)
        values = {
            **EVERYTHING,
            "TTBR0_EL2": self.hyp_tables.root,
            "TCR_EL2": single_tcr(form, 48),
            "SCTLR_EL2": 1,
            "MAIR_EL2": MAIR,
            "MAIR_EL1": MAIR,
            "HCR_EL2": 0,
            "SCTLR_EL1": 1,
            "CPSR": 0b0101,
            "TTBR1_EL1": self.kernel_tables.root,
            "TCR_EL1": stage1_tcr(form, 48, upper=True),
            "TTBR0_EL1": 0,
            "VTTBR_EL2": 0,
            "VTCR_EL2": 0,
            "PC": KERNEL + 0x100,
            **registers,
        }
        return Stop(Machine(values, self.memory), cpu=cpu)

    def kernel(self, stop: Stop) -> Kernel:
        """Return the kernel as if it had been found."""
        rows = sorted(self.names.items(), key=lambda row: row[1])
        symbols = Kallsyms([name for name, _ in rows], [offset for _, offset in rows], 0)
        tcr = stop.register("TCR_EL1")
        image = Image("abcd", "Linux version 6.1", symbols, b"", None, 0, 0, None, tcr)
        memory = of_host(stop.machine, self.kernel_tables.root, tcr)
        return Kernel(VA(KERNEL), PA(PHYSICAL), "a test", memory, image)
