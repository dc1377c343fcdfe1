"""KVM's own objects: every ``struct kvm``, its memory slots and its vCPUs.

VMs are found by ``vm_list`` where the kernel lists that symbol, else by the files of processes that are KVM's, from
which the list can be followed too; on a dump, what is on no list is carved: each VM holds a pointer to KVM's MMU
notifier operations. A candidate counts only if its stage 2 points back to it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from gdbhyp.arch.spaces import IPA, PA, VA, Word
from gdbhyp.engine.layouts import NoType
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import GdbhypError, MemoryUnavailable
from gdbhyp.hypervisors.linux import tasks
from gdbhyp.hypervisors.linux.kernel import LARGEST_IMAGE, Kernel
from gdbhyp.hypervisors.linux.objects import Object, list_entries, struct_at

_MOST_VCPUS = 512
_MOST_SLOTS = 1 << 15
_VTCR_VS = 1 << 19
_VTTBR_CNP = 1
_ROOT = 0xFFFF_FFFF_FFFE


@dataclass(frozen=True)
class FoundVm:
    """A ``struct kvm``, how it was found, and whether that leaves no doubt."""

    kvm: Object
    how: str
    certain: bool = True


def find_vms(kernel: Kernel, stop: Stop, problems: list[str]) -> list[FoundVm]:
    """Return every VM in the order of their creation, as far as lists tell it.

    What could not be looked at is appended to ``problems`` as sentences.
    """
    found: dict[int, FoundVm] = {}
    head = kernel.symbol("vm_list")
    if head is not None:
        _collect(found, problems, lambda: _by_list(kernel, head))
    if not found:
        _collect(found, problems, lambda: _by_files(kernel, problems))
    if not found and stop.origin != "live":
        _collect(found, problems, lambda: _by_carving(kernel, stop))
    return list(found.values())


def _collect(found: dict[int, FoundVm], problems: list[str], search: Callable[[], Iterator[FoundVm]]) -> None:
    """Add what a search finds until it fails; what is no VM by its own pointers is named as a problem."""
    try:
        for vm in search():
            if vm.kvm.address in found:
                continue
            if _is_kvm(vm.kvm):
                found[vm.kvm.address] = vm
            else:
                problems.append(
                    f"what is at {vm.kvm.address:#x}, {vm.how}, is no VM: its stage 2 does not point back"
                )
    except GdbhypError as error:
        problems.append(str(error))


def _is_kvm(kvm: Object) -> bool:
    """Return whether the stage 2 of a candidate points back to it."""
    try:
        if kvm.has("arch.mmu.arch"):
            return kvm.number("arch.mmu.arch") == kvm.at("arch")
        if kvm.has("arch.mmu.kvm"):
            return kvm.number("arch.mmu.kvm") == kvm.address
        return kvm.number("mm") >> 63 == 1 and kvm.number("arch.pgd_phys") % 4096 == 0
    except (MemoryUnavailable, NoType):
        return False


def _by_list(kernel: Kernel, head: int) -> Iterator[FoundVm]:
    """A new VM goes to the front of the list."""
    vms: list[FoundVm] = []
    try:
        vms.extend(FoundVm(kvm, "on KVM's vm_list") for kvm in list_entries(kernel, head, "kvm", "vm_list"))
    except GdbhypError:
        yield from reversed(vms)
        raise
    yield from reversed(vms)


def _by_files(kernel: Kernel, problems: list[str]) -> Iterator[FoundVm]:
    """VMs that processes have open, and those that share their list."""
    offset = kernel.types.struct("kvm").offset("vm_list")
    first: dict[int, str] = {}
    for file in tasks.open_files(kernel, "kvm_vm_ioctl", problems):
        owner = tasks.task_of(file.owner)
        first[file.private] = f"file descriptor {file.number} of process {owner.tgid} ({owner.name})"
    for address, how in first.items():
        kvm = struct_at(kernel, "kvm", address)
        if not _is_kvm(kvm):
            yield FoundVm(kvm, how)
            continue
        # Every VM's list leads through all others and the head, which is in the image and no VM.
        around = [entry.address for entry in list_entries(kernel, kvm.at("vm_list"), "kvm", "vm_list")]
        ordered = _from_head([kvm.address, *around], kernel, offset)
        for other in ordered:
            yield FoundVm(
                struct_at(kernel, "kvm", other),
                first.get(other, "on the list of VMs of one that a process has open"),
            )


def _from_head(ring: list[VA], kernel: Kernel, offset: int) -> list[VA]:
    """Return a ring of list entries in the order of creation, without the head, which is part of the image."""
    heads = [number for number, address in enumerate(ring) if kernel.holds(address + offset)]
    if len(heads) != 1:
        return ring
    return [*ring[heads[0] + 1 :], *ring[: heads[0]]][::-1]


def _by_carving(kernel: Kernel, stop: Stop) -> Iterator[FoundVm]:
    """VMs by what each one holds: the address of KVM's MMU notifier operations.

    Where such a VM is in the kernel's address space, the pointer of its stage 2 to it says; the kernel's table has to
    agree.
    """
    operations = _notifier_operations(kernel, stop)
    kind = kernel.types.struct("kvm")
    offset, pointer, arch = (kind.offset(path) for path in ("mmu_notifier.ops", "arch.mmu.arch", "arch"))
    for start, end in stop.ram():
        for at in _occurrences(stop, start, end, operations):
            try:
                address = int.from_bytes(stop.machine.memory.read(at - offset + pointer, 8), "little") - arch
            except MemoryUnavailable:
                continue
            if kernel.memory.physical(address) == at - offset:
                how = "carved from memory by its MMU notifier and the pointers of its stage 2"
                yield FoundVm(Object(kernel, kind, VA(address)), how, certain=False)


def _notifier_operations(kernel: Kernel, stop: Stop) -> int:
    """Return the address of KVM's MMU notifier operations: listed, or in the image by the function in them."""
    listed = kernel.symbol("kvm_mmu_notifier_ops")
    if listed is not None:
        return listed
    release = kernel.symbol("kvm_mmu_notifier_release")
    if release is None:
        raise GdbhypError("the kernel's symbols do not list KVM's MMU notifier, so VMs cannot be carved")
    start = kernel.physical_base
    for at in _occurrences(stop, start, start + LARGEST_IMAGE, release):
        return kernel.base + at - start - kernel.types.struct("mmu_notifier_ops").offset("release")
    raise GdbhypError(
        "KVM's MMU notifier operations were not found in the kernel's image, so VMs cannot be carved"
    )


_SEARCHED_AT_ONCE = 1 << 22


def _occurrences(stop: Stop, start: int, end: int, word: int) -> Iterator[int]:
    """Yield the physical addresses where a 64-bit word stands; memory that is not there ends the search in its part."""
    pattern = word.to_bytes(8, "little")
    for at in range(start, end, _SEARCHED_AT_ONCE):
        data = _readable(stop, at, min(_SEARCHED_AT_ONCE, end - at))
        position = data.find(pattern)
        while position >= 0:
            if not position % 8:
                yield at + position
            position = data.find(pattern, position + 1)


def _readable(stop: Stop, start: int, size: int) -> bytes:
    """Return what there is of ``size`` bytes from ``start`` on, before the first one that is missing."""
    try:
        return stop.machine.memory.read(start, size)
    except MemoryUnavailable as error:
        return stop.machine.memory.read(start, error.first_bad - start) if error.first_bad > start else b""


@dataclass(frozen=True)
class Stage2:
    """A VM's stage 2: ``vttbr`` and ``vtcr`` as KVM loads them; ``vmid`` is None before its first run."""

    root: PA
    vmid: int | None
    vttbr: Word
    vtcr: Word | None


def stage2(kvm: Object, cnp: bool) -> Stage2:
    """Return the stage 2 of a VM; ``cnp`` says whether the kernel uses common translations (TTBR.CnP)."""
    mmu = kvm.part("arch.mmu") if kvm.has("arch.mmu") else kvm.part("arch")
    root = mmu.number("pgd_phys")
    vtcr = _first_of(mmu, kvm, "vtcr", "arch.vtcr")
    vmid = _vmid(mmu, vtcr)
    vttbr = stage2_register(root, vmid or 0, cnp)
    return Stage2(PA(root), vmid, vttbr, None if vtcr is None else Word(vtcr))


def stage2_register(root: int, vmid: int, cnp: bool) -> Word:
    """Return VTTBR_EL2 for a root, whose bits [51:48] are in bits [5:2] of the register."""
    return Word(vmid << 48 | root & _ROOT | root >> 48 << 2 | (_VTTBR_CNP if cnp else 0))


def _first_of(mmu: Object, kvm: Object, inner: str, outer: str) -> int | None:
    if mmu.has(inner):
        return mmu.number(inner)
    return kvm.number(outer) if kvm.has(outer) else None


def _vmid(mmu: Object, vtcr: int | None) -> int | None:
    """Return the VMID; older kernels keep its generation apart, newer ones above it (5.16)."""
    if mmu.has("vmid.id"):
        value = mmu.number("vmid.id")
    elif mmu.has("vmid.vmid"):
        value = mmu.number("vmid.vmid")
    else:
        return None
    if vtcr is None and value & 0xFF00:
        # The VMID goes on there, or the generation begins there.
        return None
    return value & (0xFFFF if vtcr is not None and vtcr & _VTCR_VS else 0xFF) or None


@dataclass(frozen=True)
class Slot:
    """A memory slot: ``number`` as the VMM calls it, ``flags`` are KVM's (1 dirty log, 2 read-only)."""

    number: int
    ipa: IPA
    size: int
    host_va: VA
    flags: int


def slots(kvm: Object) -> list[Slot]:
    """Return a VM's memory slots in ascending order of their IPA.

    :raises GdbhypError: if they cannot be read.
    """
    pages = kvm.kernel.page_shift
    found = []
    for slot in _slot_objects(_active_slots(kvm)):
        size = slot.number("npages") << pages
        if size:
            found.append(
                Slot(
                    slot.signed("id"),
                    IPA(slot.number("base_gfn") << pages),
                    size,
                    VA(slot.number("userspace_addr")),
                    slot.number("flags"),
                )
            )
    return sorted(found, key=lambda slot: slot.ipa)


def _active_slots(kvm: Object) -> Object:
    """Return the active slots of the first address space; arm64 has no other."""
    address = kvm.kernel.memory.word(kvm.at("memslots"))
    return struct_at(kvm.kernel, "kvm_memslots", address)


def _slot_objects(holder: Object) -> Iterator[Object]:
    if holder.has("id_hash"):
        yield from _hashed_slots(holder)
        return
    # Until 5.16 the slots are an array in the order of their addresses.
    kind = holder.type.types.struct("kvm_memory_slot")
    start = holder.at("memslots")
    for number in range(min(holder.number("used_slots"), _MOST_SLOTS)):
        yield Object(holder.kernel, kind, VA(start + kind.size * number))


def _hashed_slots(holder: Object) -> Iterator[Object]:
    """Slots are in a hash table by their number; each has two nodes, of which the active set uses one."""
    kind = holder.type.types.struct("kvm_memory_slot")
    node_size = holder.type.types.struct("hlist_node").size
    node = kind.offset("id_node") + node_size * holder.number("node_idx")
    table = holder.type.member("id_hash")
    heads = holder.kernel.memory.read(holder.at("id_hash"), table.size)
    seen: set[int] = set()
    for (first,) in struct.iter_unpack("<Q", heads):
        at = first
        while at:
            if at in seen or len(seen) > _MOST_SLOTS:
                raise GdbhypError("a VM's memory slots run in a circle")
            seen.add(at)
            yield Object(holder.kernel, kind, VA(at - node))
            at = holder.kernel.memory.word(at)


def vcpus(kvm: Object) -> Iterator[Object]:
    """Yield the vCPUs of a VM in the order of their index.

    :raises GdbhypError: after those that could be read, if the rest cannot be.
    """
    kind = kvm.type.types.struct("kvm_vcpu")
    count = min(kvm.number("online_vcpus"), _MOST_VCPUS)
    if kvm.has("vcpu_array"):
        pointers: Iterable[int] = _array_entries(kvm.part("vcpu_array"), count)
    else:
        data = kvm.kernel.memory.read(kvm.at("vcpus"), 8 * count)
        pointers = (pointer for (pointer,) in struct.iter_unpack("<Q", data))
    for pointer in pointers:
        vcpu = Object(kvm.kernel, kind, VA(pointer))
        if vcpu.number("kvm") != kvm.address:
            raise GdbhypError(
                f"what is at {pointer:#x} is no vCPU of the VM at {kvm.address:#x}: it does not point back"
            )
        yield vcpu


_NODE = 2
_SLOTS = 64


def _array_entries(array: Object, count: int) -> Iterator[int]:
    """Yield the first ``count`` entries of an XArray, those with the lowest indices.

    An entry with the low bits 10 is a node of 64 slots (lib/xarray.c, ``xa_is_node``), any other one is a pointer.
    """
    pending = [array.number("xa_head")]
    nodes = 0
    while pending and count:
        entry = pending.pop(0)
        if entry & 3 == _NODE:
            nodes += 1
            if nodes > _MOST_VCPUS:
                raise GdbhypError("a VM's vCPUs run in a circle")
            node = struct_at(array.kernel, "xa_node", entry - _NODE)
            data = array.kernel.memory.read(node.at("slots"), 8 * _SLOTS)
            pending[:0] = [slot for (slot,) in struct.iter_unpack("<Q", data) if slot]
        elif entry:
            count -= 1
            yield entry
