"""A small Linux host with KVM for tests: an image with kallsyms, BTF and exports, and KVM's objects in memory.

The structures have the members that gdbhyp reads, in an order and at offsets of their own: only the types in the image
say where they are.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from unit import linuximage
from unit.linuximage import Row, Types
from unit.machines import EL1H, FORMAT, HCR_GUEST, HCR_HOST, HOST_DATA, HYP_TEXT, VTCR, Model
from unit.pagetables import EVERYTHING, MAIR, Tables, single_tcr, stage1_tcr

IMAGE = 0x4020_0000
BASE = 0xFFFF_8000_1000_0000
HYP_VECTORS = 0x7E00_0000_0000
LINEAR = 0xFFFF_0000_0000_0000 - 0x4000_0000
OBJECTS = 0x4600_0000
_RODATA, _DATA, _END = 0x1_0000, 0x5_0000, 0x6_0000
VECTORS = 0x800
_PUSH, _MRS_ESR, _ADD, _SUB = 0xA9BF_07E0, 0xD53C_5200, 0x8B20_63FF, 0xCB20_63E0
BANNER = b"Linux version 6.1.0-test (gdbhyp) #1 SMP\n\0"
BUILD_ID = bytes(range(20))
FUNCTIONS = {
    "_stext": 0,
    "kvm_vm_ioctl": 0x100,
    "other_ioctl": 0x140,
    "kvm_mmu_notifier_release": 0x180,
    "__kvm_nvhe___kvm_hyp_host_vector": VECTORS,
}
DATA = {
    "vm_list": _DATA + 0x40,
    "init_task": _DATA + 0x100,
    "operations": _DATA + 0x1000,
    "others": _DATA + 0x1100,
    "kvm_mmu_notifier_ops": _DATA + 0x1200,
}


@dataclass
class Layout:
    """The kernel's structures: offsets by path, as the BTF that is built beside says them."""

    types: Types = field(default_factory=Types)
    offsets: dict[str, dict[str, int]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        types = self.types
        self.word = types.integer("long unsigned int", 8)
        self.int = types.integer("int", 4)
        self.byte = types.integer("char", 1)
        self.pointer = types.pointer()

    def struct(self, name: str, members: Sequence[tuple[str, object]], gap: int = 8) -> int:
        """Add a struct: a member is "word", "int", "pointer", a struct's name, (a struct, count) or ("char", count)."""
        at, rows = gap, []
        offsets: dict[str, int] = {}
        for member, kind in members:
            number, size, inner = self._kind(kind)
            at = -(-at // min(size, 8)) * min(size, 8)
            rows.append((member, number, at))
            offsets[member] = at
            offsets.update({f"{member}.{path}": at + offset for path, offset in inner.items()})
            at += size
        size = -(-at // 8) * 8 + gap
        self.ids[name] = self.types.struct(name, size, rows)
        self.offsets[name], self.sizes[name] = offsets, size
        return self.ids[name]

    def _kind(self, kind: object) -> tuple[int, int, Mapping[str, int]]:
        if kind == "word":
            return self.word, 8, {}
        if kind == "int":
            return self.int, 4, {}
        if kind == "pointer":
            return self.pointer, 8, {}
        if isinstance(kind, tuple) and kind[0] == "char":
            return self.types.array(self.byte, kind[1]), kind[1], {}
        if isinstance(kind, tuple):
            number, size, _ = self._kind(kind[0])
            return self.types.array(number, kind[1]), size * kind[1], {}
        if isinstance(kind, str) and kind.startswith("*"):
            return self.types.pointer(self.ids[kind[1:]]), 8, {}
        assert isinstance(kind, str)
        return self.ids[kind], self.sizes[kind], self.offsets[kind]


def layout() -> Layout:
    """Return the structures that gdbhyp reads of a kernel like 6.1."""
    types = Layout()
    add = types.struct
    add("list_head", [("next", "pointer"), ("prev", "pointer")], gap=0)
    add("hlist_node", [("next", "pointer"), ("pprev", "pointer")], gap=0)
    add("hlist_head", [("first", "pointer")], gap=0)
    add("file_operations", [("read", "pointer"), ("unlocked_ioctl", "pointer")])
    add("file", [("f_op", "*file_operations"), ("private_data", "pointer")])
    add("fdtable", [("max_fds", "int"), ("fd", "pointer")])
    add("files_struct", [("fdt", "*fdtable")])
    add("pid", [("tasks", ("hlist_head", 4))])
    add(
        "task_struct",
        [
            *(("comm", ("char", 16)), ("pid", "int"), ("tgid", "int"), ("tasks", "list_head")),
            *(("files", "*files_struct"), ("mm", "pointer"), ("pid_links", ("hlist_node", 4))),
        ],
    )
    add("xarray", [("xa_flags", "int"), ("xa_head", "pointer")])
    add("xa_node", [("shift", "word"), ("slots", ("pointer", 64))])
    add("kvm_vmid", [("id", "word")], gap=0)
    add("kvm_s2_mmu", [("vmid", "kvm_vmid"), ("pgd_phys", "word"), ("arch", "pointer")])
    add("kvm_protected_vm", [("handle", "int"), ("enabled", "int")])
    add("kvm_arch", [("mmu", "kvm_s2_mmu"), ("vtcr", "word"), ("pkvm", "kvm_protected_vm")])
    add(
        "kvm_memory_slot",
        [
            *(("id_node", ("hlist_node", 2)), ("base_gfn", "word"), ("npages", "word")),
            *(("userspace_addr", "word"), ("flags", "int"), ("id", "int")),
        ],
    )
    add("kvm_memslots", [("id_hash", ("hlist_head", 8)), ("node_idx", "int")])
    add("mmu_notifier_ops", [("other", "pointer"), ("release", "pointer")])
    add("mmu_notifier", [("ops", "pointer")])
    add(
        "kvm",
        [
            *(
                ("mm", "pointer"),
                ("vm_list", "list_head"),
                ("memslots", ("pointer", 1)),
                ("online_vcpus", "int"),
            ),
            *(("vcpu_array", "xarray"), ("mmu_notifier", "mmu_notifier"), ("arch", "kvm_arch")),
        ],
    )
    add("user_pt_regs", [("regs", ("word", 31)), ("sp", "word"), ("pc", "word"), ("pstate", "word")], gap=0)
    add("kvm_cpu_context", [("regs", "user_pt_regs"), ("sys_regs", ("word", 8))])
    add("kvm_vcpu_fault_info", [("esr_el2", "word"), ("far_el2", "word"), ("hpfar_el2", "word")])
    add(
        "kvm_vcpu_arch",
        [
            ("ctxt", "kvm_cpu_context"),
            ("hcr_el2", "word"),
            ("fault", "kvm_vcpu_fault_info"),
            ("iflags", ("char", 1)),
        ],
    )
    add(
        "kvm_vcpu",
        [
            *(("kvm", "*kvm"), ("cpu", "int"), ("vcpu_id", "int"), ("mode", "int"), ("requests", "word")),
            *(("pid", "*pid"), ("arch", "kvm_vcpu_arch")),
        ],
    )
    names = ("__INVALID_SYSREG__", "MPIDR_EL1", "SCTLR_EL1", "TTBR0_EL1", "TTBR1_EL1", "TCR_EL1", "MAIR_EL1")
    types.types.enum("vcpu_sysreg", {name: number for number, name in enumerate(names)})
    return types


@dataclass
class LinuxHost(Model):
    """An nVHE host of one CPU with KVM; VMs, processes and files are added, then take ``stop()``.

    ``full`` says whether kallsyms lists data, as CONFIG_KALLSYMS_ALL makes it.
    """

    full: bool = True
    order: str = "old"
    with_types: bool = True
    layout: Layout = field(default_factory=layout)
    next_object: int = OBJECTS
    vms: list[int] = field(default_factory=list)
    processes: list[int] = field(default_factory=list)
    host: Tables = field(init=False)
    hyp: Tables = field(init=False)

    def __post_init__(self) -> None:
        self.host, self.hyp = self.tables(48, 0), self.tables(48, 0)
        self.fill(IMAGE, IMAGE + _END)
        for at in range(0, _RODATA, 0x1000):
            self.host.map(BASE + at, IMAGE + at, 3, HYP_TEXT & ~(1 << 53))
        for at in range(_RODATA, _END, 0x1000):
            self.host.map(BASE + at, IMAGE + at, 3, HOST_DATA)
        for block in range(OBJECTS, OBJECTS + 0x40_0000, 0x20_0000):
            self.host.map(LINEAR + block, block, 2, HOST_DATA)
        for at in range(0, _RODATA, 0x1000):
            self.hyp.map(HYP_VECTORS + at, IMAGE + at, 3, HYP_TEXT)
        self._write_image()
        head = BASE + DATA["vm_list"]
        self.write_at(head, struct.pack("<2Q", head, head))
        self.first = self._task(BASE + DATA["init_task"], 0, "swapper/0", 0, 0)
        self.write_at(
            BASE + DATA["operations"] + self.at("file_operations", "unlocked_ioctl"),
            self._function("kvm_vm_ioctl"),
        )
        self.write_at(
            BASE + DATA["others"] + self.at("file_operations", "unlocked_ioctl"),
            self._function("other_ioctl"),
        )
        operations = BASE + DATA["kvm_mmu_notifier_ops"] + self.at("mmu_notifier_ops", "release")
        self.write_at(operations, self._function("kvm_mmu_notifier_release"))
        self.registers = EVERYTHING | {
            "SCTLR_EL2": 0x30C5_183D,
            "TCR_EL2": single_tcr(FORMAT, 48, ps=40),
            "MAIR_EL2": MAIR,
            "TTBR0_EL2": self.hyp.ttbr() | 1,
            "VBAR_EL2": HYP_VECTORS + VECTORS,
            "VTCR_EL2": VTCR,
            "VTTBR_EL2": 0,
            "SCTLR_EL1": 0x30D0_1805 | 1,
            "TCR_EL1": stage1_tcr(FORMAT, 48, ps=40, upper=True),
            "MAIR_EL1": MAIR,
            "TTBR0_EL1": 0,
            "TTBR1_EL1": self.host.ttbr(),
            "HCR_EL2": HCR_HOST,
            "CPSR": EL1H,
            "PC": BASE + 0x80,
            "VMPIDR_EL2": 0x8000_0000,
        }
        self.cpus = [{}]

    def _function(self, name: str) -> bytes:
        return struct.pack("<Q", BASE + FUNCTIONS[name])

    def at(self, name: str, path: str) -> int:
        """The offset of a member."""
        return self.layout.offsets[name][path]

    def _write_image(self) -> None:
        words = {0x200: _ADD, 0x204: _SUB, 0: _ADD, 4: _SUB, 0x400: _PUSH, 0x404: _MRS_ESR}
        for offset, word in words.items():
            self.memory.write(IMAGE + VECTORS + offset, struct.pack("<I", word))
        rows: list[Row] = [("T", name, BASE + at) for name, at in FUNCTIONS.items()]
        rows += [("t", f"function_{n}", BASE + 0x1000 + 16 * n) for n in range(600)]
        if self.full:
            rows += [("D", name, BASE + at) for name, at in DATA.items()]
        table = linuximage.kallsyms(sorted(rows, key=lambda row: row[2]), self.order)
        data = bytearray(linuximage.padded(BANNER, 256) + table)
        exported = {f"export_{n}": 0x1000 + 16 * n for n in range(30)} | {"init_task": DATA["init_task"]}
        here = _RODATA + len(data)
        data += linuximage.padded(linuximage.exports({name: at - here for name, at in exported.items()}))
        data += linuximage.build_id(BUILD_ID)
        data = bytearray(linuximage.padded(bytes(data)))
        if self.with_types:
            data += self.layout.types.data()
        assert len(data) < _DATA - _RODATA
        self.memory.write(IMAGE + _RODATA, bytes(data))

    def write_at(self, va: int, data: bytes) -> None:
        """Write at an address of the image or of the linear map."""
        self.memory.write(va - BASE + IMAGE if BASE <= va < BASE + _END else va - LINEAR, data)

    def word_at(self, va: int) -> int:
        return int.from_bytes(
            self.memory.read(va - BASE + IMAGE if BASE <= va < BASE + _END else va - LINEAR, 8), "little"
        )

    def put(self, name: str, va: int, path: str, value: int, size: int = 8) -> None:
        """Set a member."""
        self.write_at(va + self.at(name, path), (value & (1 << 8 * size) - 1).to_bytes(size, "little"))

    def new(self, name: str, size: int = 0) -> int:
        """Return the address of a new structure, or of ``size`` bytes, all zero."""
        size = size or self.layout.sizes[name]
        where = self.next_object
        self.next_object += -(-size // 64) * 64
        self.fill(where & ~0xFFF, (where + size + 0xFFF) & ~0xFFF)
        return LINEAR + where

    def link(self, head: int, node: int) -> None:
        """Put a list_head behind another one."""
        following = self.word_at(head)
        self.write_at(node, struct.pack("<2Q", following, head))
        self.write_at(head, struct.pack("<Q", node))
        self.write_at(following + 8, struct.pack("<Q", node))

    def _task(self, va: int, pid: int, name: str, files: int, mm: int) -> int:
        self.write_at(va + self.at("task_struct", "comm"), name.encode())
        self.put("task_struct", va, "pid", pid, 4)
        self.put("task_struct", va, "tgid", pid, 4)
        self.put("task_struct", va, "files", files)
        self.put("task_struct", va, "mm", mm)
        node = va + self.at("task_struct", "tasks")
        self.write_at(node, struct.pack("<2Q", node, node))
        return va

    def process(self, pid: int, name: str, mm: int, files: Sequence[tuple[str, int]]) -> int:
        """Add a process with open files of (operations, private data)."""
        table, array, holder = self.new("fdtable"), self.new("", 8 * 64), self.new("files_struct")
        self.put("fdtable", table, "max_fds", 64, 4)
        self.put("fdtable", table, "fd", array)
        self.put("files_struct", holder, "fdt", table)
        for number, (operations, private) in enumerate(files, 3):
            file = self.new("file")
            self.put("file", file, "f_op", BASE + DATA[operations])
            self.put("file", file, "private_data", private)
            self.write_at(array + 8 * number, struct.pack("<Q", file))
        task = self._task(self.new("task_struct"), pid, name, holder, mm)
        self.link(self.first + self.at("task_struct", "tasks"), task + self.at("task_struct", "tasks"))
        self.processes.append(task)
        return task

    def vm(self, vmid: int, root: int, mm: int, slots: Sequence[tuple[int, int, int]], vcpus: int = 1) -> int:
        """Add a VM with slots of (IPA, size, host VA)."""
        kvm = self.new("kvm")
        self.put("kvm", kvm, "mm", mm)
        self.put("kvm", kvm, "arch.mmu.vmid.id", 7 << 16 | vmid)
        self.put("kvm", kvm, "arch.mmu.pgd_phys", root)
        self.put("kvm", kvm, "arch.mmu.arch", kvm + self.at("kvm", "arch"))
        self.put("kvm", kvm, "mmu_notifier.ops", BASE + DATA["kvm_mmu_notifier_ops"])
        self.put("kvm", kvm, "arch.vtcr", VTCR | 1 << 19)
        self.put("kvm", kvm, "online_vcpus", vcpus, 4)
        holder = self.new("kvm_memslots")
        self.put("kvm_memslots", holder, "node_idx", 1, 4)
        self.put("kvm", kvm, "memslots", holder)
        for number, (ipa, size, host) in enumerate(slots):
            self._slot(holder, number, ipa, size, host)
        self._vcpus(kvm, vcpus)
        self.link(BASE + DATA["vm_list"], kvm + self.at("kvm", "vm_list"))
        self.vms.append(kvm)
        return kvm

    def _slot(self, holder: int, number: int, ipa: int, size: int, host: int) -> None:
        slot = self.new("kvm_memory_slot")
        for member, value in (("base_gfn", ipa >> 12), ("npages", size >> 12), ("userspace_addr", host)):
            self.put("kvm_memory_slot", slot, member, value)
        self.put("kvm_memory_slot", slot, "id", number, 4)
        bucket = holder + self.at("kvm_memslots", "id_hash") + 8 * (number % 2)
        node = slot + self.at("kvm_memory_slot", "id_node") + 16
        self.write_at(node, struct.pack("<Q", self.word_at(bucket)))
        self.write_at(bucket, struct.pack("<Q", node))

    def _vcpus(self, kvm: int, count: int) -> None:
        found = [self._vcpu(kvm, number) for number in range(count)]
        head = found[0]
        if count > 1:
            node = self.new("xa_node")
            self.write_at(node + self.at("xa_node", "slots"), struct.pack(f"<{count}Q", *found))
            head = node + 2
        self.put("kvm", kvm, "vcpu_array.xa_head", head)

    def _vcpu(self, kvm: int, number: int) -> int:
        vcpu = self.new("kvm_vcpu")
        self.put("kvm_vcpu", vcpu, "kvm", kvm)
        self.put("kvm_vcpu", vcpu, "cpu", -1, 4)
        self.put("kvm_vcpu", vcpu, "vcpu_id", number, 4)
        self.put("kvm_vcpu", vcpu, "arch.hcr_el2", HCR_GUEST)
        regs = vcpu + self.at("kvm_vcpu", "arch.ctxt.regs")
        self.write_at(
            regs, struct.pack("<34Q", *(0x100 + n for n in range(31)), 0x5050, 0x9000 + 16 * number, 0x3C5)
        )
        system = vcpu + self.at("kvm_vcpu", "arch.ctxt.sys_regs")
        self.write_at(system, struct.pack("<7Q", 0, 0x8000_0000 | number, 0, 0x1000, 0x2000, 0x3000, 0xFF))
        return vcpu

    def vcpu(self, kvm: int, number: int = 0) -> int:
        """Return the address of a VM's vCPU."""
        head = self.word_at(kvm + self.at("kvm", "vcpu_array.xa_head"))
        if head & 3 != 2:
            return head
        return self.word_at(head - 2 + self.at("xa_node", "slots") + 8 * number)
