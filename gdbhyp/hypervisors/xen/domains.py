"""Xen's domains: their identifiers, roots and vCPUs, from Xen's own lists.

Xen's table of symbols need not have data, and its structures depend on version and configuration. Both are read off
functions that use them: ``get_domain_by_id`` looks for a domain in ``domain_hash``, and ``p2m_restore_state`` loads
VTTBR_EL2 for a vCPU. What is found is believed when it agrees with itself: a domain stands in the bucket of its
identifier, its vCPUs point back to it, and its root is in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from gdbhyp.arch.dataflow import Argument, Element, Loaded, SystemWrite, Value, facts
from gdbhyp.arch.spaces import VA, Word
from gdbhyp.arch.sysregs import encoding_of
from gdbhyp.arch.worlds import vmid_of
from gdbhyp.engine.stop import Stop
from gdbhyp.engine.virtual import VirtualReader
from gdbhyp.errors import BadInput, GdbhypError, MemoryUnavailable
from gdbhyp.hypervisors.vms import PcSource, Vcpu, Vm, VmSearch, root_of
from gdbhyp.hypervisors.xen.image import Image, find_image

_BUCKETS = 256
_MOST_DOMAINS = 1 << 12
_MOST_VCPUS = 128
_ID_BYTES, _POINTER_BYTES = 2, 8
# struct domain begins with domain_id, max_vcpus and vcpu; struct vcpu with vcpu_id (xen/include/xen/sched.h).
_VCPUS_WITHIN = 64
_VCPU_BYTES = 0x1000
# xen/arch/arm: a vCPU's stack, at whose top cpu_info holds the guest's registers.
_STACK_BYTES = 0x8000
_CPU_INFO_BYTES = 0x200
SAVED_PC, SAVED_SPSR = 0x100, 0x108


@dataclass(frozen=True)
class Layout:
    """Where Xen's lists are: ``table`` is domain_hash, the rest are offsets in struct domain and struct vcpu."""

    table: VA
    next_in_bucket: int
    domain_id: int
    vttbr: int
    domain_of_vcpu: int

    @property
    def text(self) -> str:
        """How it was found, and where."""
        return (
            f"domain_hash at VA {self.table:#x} and the offset {self.vttbr:#x} of VTTBR_EL2 in struct domain "
            "are read off get_domain_by_id and p2m_restore_state"
        )


def read_layout(image: Image) -> Layout:
    """Read where Xen keeps its domains off the functions that use them.

    :raises BadInput: if the functions are not there, or do not look like those of a known Xen.
    """
    table, next_in_bucket, domain_id = _hash_layout(image)
    vttbr, domain = _root_layout(image)
    return Layout(VA(table), next_in_bucket, domain_id, vttbr, domain)


def _hash_layout(image: Image) -> tuple[int, int, int]:
    """Return domain_hash, and the offsets of next_in_hashbucket and domain_id."""
    address, code = image.function("get_domain_by_id")
    found = [fact for fact in facts(code, address) if isinstance(fact, Element | Loaded)]
    for bucket in found:
        if not isinstance(bucket, Element) or bucket.size != _POINTER_BYTES or bucket.array.constant is None:
            continue
        links = [fact for fact in found if isinstance(fact, Loaded) and fact.address.origin == bucket]
        following = [link for link in links if link.size == _POINTER_BYTES]
        domains = [bucket, *following]
        ids = [
            f for f in found if isinstance(f, Loaded) and f.size == _ID_BYTES and f.address.origin in domains
        ]
        if following and ids:
            return bucket.array.constant, following[0].address.offset, ids[0].address.offset
    raise BadInput(
        "get_domain_by_id does not look for a domain in a hash of lists, as in the Xen that is known"
    )


def _root_layout(image: Image) -> tuple[int, int]:
    """Return the offsets of arch.p2m.vttbr in struct domain and of domain in struct vcpu."""
    address, code = image.function("p2m_restore_state")
    vttbr_el2 = encoding_of("VTTBR_EL2")
    for fact in facts(code, address):
        if isinstance(fact, SystemWrite) and fact.encoding == vttbr_el2 and fact.value is not None:
            root = _load_of(fact.value)
            domain = _load_of(Value(root.address.origin, 0)) if root is not None else None
            if root is not None and domain is not None and domain.address.origin == Argument(0):
                return root.address.offset, domain.address.offset
    raise BadInput(
        "p2m_restore_state does not load VTTBR_EL2 from its vCPU's domain, as in the Xen that is known"
    )


def _load_of(value: Value) -> Loaded | None:
    return value.origin if isinstance(value.origin, Loaded) and not value.offset else None


@dataclass(frozen=True)
class Domain:
    """A domain as Xen knows it; ``vcpus`` are the addresses of its struct vcpu, in order."""

    id: int
    address: VA
    vttbr: int
    vcpus: tuple[VA, ...]


def domains(memory: VirtualReader, layout: Layout) -> tuple[list[Domain], list[str]]:
    """Return the domains in the order of their identifiers, and sentences about what does not fit."""
    found: dict[int, Domain] = {}
    problems = []
    heads = _words(memory, layout.table, _BUCKETS)
    for bucket, head in enumerate(heads):
        try:
            for address in _bucket(memory, layout, head):
                number = _number(memory, address + layout.domain_id, _ID_BYTES)
                if number % _BUCKETS != bucket or number in found:
                    problems.append(
                        f"domain_hash[{bucket}] leads to VA {address:#x}, which is no domain of it"
                    )
                    break
                found[number] = _domain(memory, layout, address, number)
        except MemoryUnavailable as error:
            problems.append(f"domain_hash[{bucket}] cannot be followed: {error}")
    return [found[number] for number in sorted(found)], problems


def _bucket(memory: VirtualReader, layout: Layout, head: int) -> Iterator[int]:
    seen: set[int] = set()
    while head and head not in seen and len(seen) < _MOST_DOMAINS:
        seen.add(head)
        yield head
        head = _number(memory, head + layout.next_in_bucket)


def _domain(memory: VirtualReader, layout: Layout, address: int, number: int) -> Domain:
    vttbr = _number(memory, address + layout.vttbr)
    return Domain(number, VA(address), vttbr, _vcpus(memory, layout, address))


def _vcpus(memory: VirtualReader, layout: Layout, domain: int) -> tuple[VA, ...]:
    """Return the domain's vCPUs: those of the one array at its beginning whose elements point back to it."""
    for array in _words(memory, domain, _VCPUS_WITHIN // _POINTER_BYTES):
        found = []
        for index in range(_MOST_VCPUS):
            vcpu = _vcpu(memory, layout, array + _POINTER_BYTES * index, domain, index)
            if vcpu is None:
                break
            found.append(vcpu)
        if found:
            return tuple(found)
    return ()


def _vcpu(memory: VirtualReader, layout: Layout, slot: int, domain: int, index: int) -> VA | None:
    try:
        vcpu = _number(memory, slot)
        owner, number = _number(memory, vcpu + layout.domain_of_vcpu), _number(memory, vcpu, 4)
    except MemoryUnavailable:
        return None
    return VA(vcpu) if owner == domain and number == index else None


def find(stop: Stop, loaded: VmSearch) -> VmSearch:
    """Return Xen's domains; those that CPUs have loaded, ``loaded``, when Xen's own list cannot be read."""
    try:
        vms, problems = to_vms(stop, find_image(stop))
    except GdbhypError as error:
        return VmSearch(loaded.vms, (*loaded.problems, f"Xen's own list of domains was not read: {error}"))
    listed = {vm.vttbr for vm in vms}
    first = max((vm.vm for vm in vms), default=-1) + 1
    others = [vm for vm in loaded.vms if vm.vttbr not in listed]
    problems += [f"VTTBR_EL2 {vm.vttbr:#x}, {vm.how}, is of no domain in Xen's list" for vm in others]
    vms += [replace(vm, vm=first + number) for number, vm in enumerate(others)]
    return VmSearch(tuple(vms), (*loaded.problems, *problems))


def to_vms(stop: Stop, image: Image) -> tuple[list[Vm], list[str]]:
    """Return Xen's domains as VMs, and sentences about what could not be found.

    :raises BadInput: if this Xen's lists are not understood.
    :raises MemoryUnavailable: if domain_hash cannot be read.
    """
    layout = read_layout(image)
    found, problems = domains(image.memory, layout)
    cpus = stop.cpus()
    vtcr = stop.optional("VTCR_EL2")
    stacks = _Stacks.of(image.memory, [vcpu for domain in found for vcpu in domain.vcpus])
    vms = []
    for domain in found:
        how = f"domain {domain.id} of Xen: {layout.text}"
        loaded = [cpu.cpu for cpu in cpus if cpu.optional("VTTBR_EL2") == domain.vttbr]
        if loaded:
            how += f"; loaded in VTTBR_EL2 of CPU {' and '.join(map(str, loaded))}"
        vcpus = tuple(_state(image.memory, cpus, stacks, v, number) for number, v in enumerate(domain.vcpus))
        vmid = vmid_of(domain.vttbr, vtcr)
        vms.append(
            Vm(
                domain.id,
                vmid,
                Word(domain.vttbr),
                None if vtcr is None else Word(vtcr),
                how,
                vcpus,
                root=root_of(domain.vttbr),
                # VTCR_EL2 is the same for all domains.
                ipa_bits=64 - (vtcr & 0x3F) if vtcr else None,
                object=domain.address,
            )
        )
    return vms, problems


@dataclass(frozen=True)
class _Stacks:
    """Where struct vcpu points to a vCPU's cpu_info, behind the pointer to its stack; None if that was not found."""

    info: int | None

    @classmethod
    def of(cls, memory: VirtualReader, vcpus: Sequence[VA]) -> _Stacks:
        """Return the one offset at which each vCPU has a stack and the cpu_info at its top."""
        candidates: set[int] | None = None
        for vcpu in vcpus:
            try:
                words = _words(memory, vcpu, _VCPU_BYTES // _POINTER_BYTES)
            except MemoryUnavailable:
                return cls(None)
            own = {
                _POINTER_BYTES * at
                for at in range(1, len(words))
                if words[at - 1] % _STACK_BYTES == 0
                and words[at - 1]
                and 0 < words[at - 1] + _STACK_BYTES - words[at] <= _CPU_INFO_BYTES
            }
            candidates = own if candidates is None else candidates & own
        return cls(candidates.pop() if candidates and len(candidates) == 1 else None)


@dataclass(frozen=True)
class CpuInfo:
    """A vCPU's cpu_info, which is at the top of its stack."""

    address: int

    def is_stack_of(self, cpu: Stop) -> bool:
        """Return whether a CPU's EL2 stack is the vCPU's."""
        stack, top = _el2_stack(cpu), -(-self.address // _STACK_BYTES) * _STACK_BYTES
        return stack is not None and top - _STACK_BYTES <= stack < top


def cpu_info(memory: VirtualReader, vcpus: Sequence[VA], vcpu: VA) -> CpuInfo | None:
    """Return the cpu_info of one of a VM's ``vcpus``; None if it was not found.

    :raises MemoryUnavailable: if it cannot be read.
    """
    offset = _Stacks.of(memory, vcpus).info
    return None if offset is None else CpuInfo(_number(memory, vcpu + offset))


def _el2_stack(cpu: Stop) -> int | None:
    return cpu.optional("SP" if cpu.el == 2 else "SP_EL2")


def _state(memory: VirtualReader, cpus: Sequence[Stop], stacks: _Stacks, vcpu: VA, number: int) -> Vcpu:
    """Return where a vCPU's guest is: by the CPU whose EL2 stack is the vCPU's, else as Xen saved it."""
    if stacks.info is None:
        return Vcpu(number, None, None, object=vcpu)
    info = CpuInfo(_number(memory, vcpu + stacks.info))
    for cpu in cpus:
        stack = _el2_stack(cpu)
        if stack is None or not info.is_stack_of(cpu):
            continue
        if cpu.el < 2:
            pc: int | None = cpu.register("PC")
            return _vcpu_at(number, pc, cpu.cpu, "live", "in the guest", vcpu)
        # The exception's registers go to cpu_info from its top down; until they are there, they are the CPU's.
        if stack <= info.address:
            pc = _saved_pc(memory, info.address)
            return _vcpu_at(number, pc, cpu.cpu, "saved", f"in Xen on CPU {cpu.cpu}", vcpu)
        pc = cpu.optional("ELR_EL2")
        return _vcpu_at(number, pc, cpu.cpu, "ELR_EL2", "between guest and hypervisor", vcpu)
    return _vcpu_at(number, _saved_pc(memory, info.address), None, "saved", "not loaded", vcpu)


def _vcpu_at(number: int, pc: int | None, cpu: int | None, source: PcSource, state: str, vcpu: VA) -> Vcpu:
    known = pc is not None
    return Vcpu(
        number, VA(pc) if pc is not None else None, cpu, source if known else None, state, object=vcpu
    )


def _saved_pc(memory: VirtualReader, info: int) -> int | None:
    """Return the guest's PC in cpu_info, None if the SPSR beside it is not one of EL1 or EL0."""
    try:
        pc, spsr = _number(memory, info + SAVED_PC), _number(memory, info + SAVED_SPSR)
    except MemoryUnavailable:
        return None
    return pc if spsr >> 32 == 0 and (spsr & 0x1F in (0b00000, 0b00100, 0b00101) or spsr & 0x10) else None


def _words(memory: VirtualReader, address: int, count: int) -> list[int]:
    data = memory.read(address, 8 * count)
    return [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)]


def _number(memory: VirtualReader, address: int, size: int = _POINTER_BYTES) -> int:
    return int.from_bytes(memory.read(address, size), "little")
