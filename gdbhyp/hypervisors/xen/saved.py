"""The context of a vCPU under Xen: where Xen saves its registers, and which of them a CPU holds in a newer state.

Where each register is saved differs between versions and configurations, so it is read off the functions that save it.
On the way from a guest into Xen, ``guest_sync_slowpath`` puts the general-purpose registers and those that belong to
the exception to cpu_info, at the top of the vCPU's stack; ``schedule_tail`` and ``p2m_save_state`` put the other system
registers to struct vcpu when another vCPU gets the CPU. An offset is believed if what loads the register again, for the
next vCPU, takes it from the same one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gdbhyp.arch.dataflow import Argument, Fact, Stack, Stored, SystemRead, SystemWrite, facts
from gdbhyp.arch.dataflow import Loaded as LoadedFrom
from gdbhyp.arch.spaces import VA
from gdbhyp.arch.sysregs import name_of
from gdbhyp.arch.worlds import vmid_of
from gdbhyp.engine.stop import Stop
from gdbhyp.engine.virtual import VirtualReader
from gdbhyp.errors import BadInput
from gdbhyp.hypervisors.saved import Context, Loaded, SavedVcpu
from gdbhyp.hypervisors.vms import Vm, root_of
from gdbhyp.hypervisors.xen.domains import SAVED_PC, SAVED_SPSR, CpuInfo, cpu_info
from gdbhyp.hypervisors.xen.image import Image, find_image
from gdbhyp.hypervisors.xen.symbols import plain_name

_SAVES = ("schedule_tail", "p2m_save_state")
_RESTORES = ("schedule_tail", "p2m_restore_state")
_ENTRIES = ("guest_sync_slowpath", "guest_sync")
_CONTROL = ("HCR_EL2", "MDCR_EL2", "VMPIDR_EL2")
_HOW = "as Xen saved them: X0 to X30 and PC at its last exit, system registers when the CPU was last taken from it"
# Registers of an exception that was taken to EL2 are saved under what they say of the guest.
_OF_GUEST = {"ELR_EL2": "PC", "SPSR_EL2": "CPSR"}


@dataclass(frozen=True)
class SavedLayout:
    """Where registers are by their names: (offset, size in bytes) in cpu_info and in struct vcpu."""

    info: Mapping[str, tuple[int, int]]
    vcpu: Mapping[str, tuple[int, int]]


def read_saved_layout(image: Image) -> SavedLayout:
    """Read where Xen saves registers off the functions that do it.

    :raises BadInput: if the functions are not there, or do not look like those of a known Xen.
    """
    return SavedLayout(dict(_info_layout(image)), _vcpu_layout(image))


def _info_layout(image: Image) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield where a register is in cpu_info; PC and PSTATE say where that begins."""
    stores = [
        fact
        for fact in _facts(image, _ENTRIES)
        if isinstance(fact, Stored) and fact.value is not None and fact.address.origin == Stack()
    ]
    named: dict[str, Stored] = {}
    general: dict[int, Stored] = {}
    # Of what else a symbol covers, such as the next entry, only the first is about this one.
    for store in stores:
        name = _read_name(store)
        if name is not None:
            named.setdefault(name, store)
        elif store.value is not None and isinstance(store.value.origin, Argument) and not store.value.offset:
            general.setdefault(store.value.origin.number, store)
    pc, spsr = named.get("ELR_EL2"), named.get("SPSR_EL2")
    if pc is None or spsr is None or spsr.address.offset - pc.address.offset != SAVED_SPSR - SAVED_PC:
        raise BadInput(
            "the entry from a guest does not save ELR_EL2 and SPSR_EL2 as in the Xen that is known"
        )
    start = pc.address.offset - SAVED_PC
    # X0 and X1 were saved before, where others leave room for them.
    if any(n not in general or general[n].address.offset - start != 8 * n for n in range(2, 31)):
        raise BadInput("the entry from a guest does not save X2 to X30 as in the Xen that is known")
    yield from ((f"X{number}", (8 * number, 8)) for number in range(31))
    for name, store in named.items():
        if name in _OF_GUEST or name.endswith(("_EL1", "_EL0")):
            yield _OF_GUEST.get(name, name), (store.address.offset - start, store.size)


def _vcpu_layout(image: Image) -> dict[str, tuple[int, int]]:
    """Return where a register is in struct vcpu, the first argument of what saves it."""
    saved = {
        name: (fact.address.offset, fact.size)
        for fact in _facts(image, _SAVES)
        if isinstance(fact, Stored)
        and fact.address.origin == Argument(0)
        and (name := _read_name(fact)) is not None
    }
    restored = dict(_restored(image))
    found = {name: at for name, at in saved.items() if restored.get(name) == at}
    found |= {name: restored[name] for name in _CONTROL if name in restored}
    missing = [
        name for name in ("TTBR0_EL1", "TTBR1_EL1", "TCR_EL1", "SCTLR_EL1", "HCR_EL2") if name not in found
    ]
    if missing:
        raise BadInput(f"a switch between vCPUs does not save {missing[0]} as in the Xen that is known")
    return found


def _restored(image: Image) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield which offset of the next vCPU a register is loaded from."""
    for fact in _facts(image, _RESTORES):
        if not isinstance(fact, SystemWrite) or fact.value is None or fact.value.offset:
            continue
        name, source = name_of(*fact.encoding), fact.value.origin
        if name is not None and isinstance(source, LoadedFrom):
            yield name, (source.address.offset, source.size)


def _facts(image: Image, names: tuple[str, ...]) -> Iterator[Fact]:
    """Yield what those of the functions say that this Xen has; static ones begin with the name of their file."""
    for symbol in image.symbols:
        if plain_name(symbol.name) in names:
            address, code = image.function(symbol.name)
            yield from facts(code, address)


def _read_name(store: Stored) -> str | None:
    """Return the system register whose value is stored."""
    if store.value is None or store.value.offset or not isinstance(store.value.origin, SystemRead):
        return None
    return name_of(*store.value.origin.encoding)


def saved_vcpu(stop: Stop, vm: Vm, vcpu: VA) -> SavedVcpu:
    """Return what Xen has saved of the ``struct vcpu`` at ``vcpu``.

    :raises BadInput: if this Xen's way to save registers is not understood.
    :raises MemoryUnavailable: if the structures cannot be read.
    """
    image = find_image(stop)
    layout = read_saved_layout(image)
    info = cpu_info(image.memory, [one.object for one in vm.vcpus if one.object is not None], vcpu)
    if info is None:
        raise BadInput("where Xen has the stacks of this VM's vCPUs was not found")
    inside = _values(image.memory, info.address, layout.info)
    outside = _values(image.memory, vcpu, layout.vcpu)
    general = {name: inside.pop(name) for name in (*(f"X{n}" for n in range(31)), "SP_EL0", "PC", "CPSR")}
    control = {name: outside.pop(name) for name in _CONTROL if name in outside}
    system = {name: value for name, value in {**outside, **inside}.items() if not name.endswith("_EL2")}
    context = Context(general, dict(sorted(system.items())), control, None)
    return SavedVcpu(context, _loaded(stop, vm, info, control), tuple(system), _HOW, None)


def _values(memory: VirtualReader, start: int, layout: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    return {
        name: int.from_bytes(memory.read(start + offset, size), "little")
        for name, (offset, size) in layout.items()
    }


def _loaded(stop: Stop, vm: Vm, info: CpuInfo, control: Mapping[str, int]) -> Loaded | None:
    """Return the CPU that has the vCPU's registers: it is on its stack, and stage 2 and VMPIDR_EL2 are its own.

    In the middle of a switch the stack is the next vCPU's already, and its registers are not there yet.
    """
    for cpu in stop.cpus():
        vttbr = cpu.optional("VTTBR_EL2") or 0
        own = root_of(vttbr) == vm.root and vmid_of(vttbr, cpu.optional("VTCR_EL2")) == vm.vmid
        if own and info.is_stack_of(cpu) and cpu.optional("VMPIDR_EL2") == control.get("VMPIDR_EL2"):
            return Loaded(cpu, cpu.el < 2)
    return None
