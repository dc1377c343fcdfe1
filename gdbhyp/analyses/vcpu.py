"""One vCPU: its registers as the hypervisor saved them, beside those that a CPU holds now, and why it last exited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from gdbhyp.analyses.esr import EsrReport, explain
from gdbhyp.analyses.vms import vcpu_of, vm_of
from gdbhyp.arch import registers
from gdbhyp.arch.fields import Bits
from gdbhyp.arch.spaces import IPA, VA, Word
from gdbhyp.arch.syndrome import decode_esr
from gdbhyp.arch.syndrome_context import SyndromeContext
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import GdbhypError
from gdbhyp.hypervisors.guest import of_saved
from gdbhyp.hypervisors.saved import saved_vcpu
from gdbhyp.hypervisors.vms import Process, Vcpu, Vm, find_vms


@dataclass(frozen=True)
class ContextRegister:
    """A register of a guest: as the hypervisor saved it, and as a CPU holds it now, None where no CPU does."""

    name: str
    saved: Word
    live: Word | None

    @property
    def differs(self) -> bool:
        return self.live is not None and self.live != self.saved


@dataclass(frozen=True)
class Instruction:
    """An instruction of the guest; ``text`` is None where there is no disassembler."""

    address: VA
    word: Word
    text: str | None


@dataclass(frozen=True)
class CallFrame:
    """A return address of the guest, and the frame record that it stands in (None for the PC itself)."""

    pc: VA
    record: VA | None


@dataclass(frozen=True)
class Frame:
    """The guest's code around its PC, and its callers by frame records; ``problems`` say what could not be read."""

    code: tuple[Instruction, ...]
    calls: tuple[CallFrame, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class VcpuReport:
    """The state of one vCPU.

    ``registers_from`` says where the newest values are. Of a ``protected`` VM, what is saved is what pKVM shows the
    host, None where the hypervisor does not tell. ``last_exit`` decodes the last exit that was no interrupt;
    ``ipa`` is its faulting IPA, as the hypervisor resolved it. ``pending`` are what will be injected, in words, None
    where that is not known. Without ``exits_are_saved`` the hypervisor does not keep why a vCPU exited.
    """

    kind: ClassVar[str] = "vcpu"

    vm: int
    vmid: int | None
    protected: bool | None
    vcpu: int
    state: str
    cpu: int | None
    task: Process | None
    pc: VA | None
    pc_from: str | None
    object: VA | None
    registers_from: str
    general: tuple[ContextRegister, ...]
    system: tuple[ContextRegister, ...]
    control: tuple[ContextRegister, ...]
    pstate: str
    last_exit: EsrReport | None
    far: VA | None
    hpfar: Word | None
    ipa: IPA | None
    traps: tuple[str, ...]
    pending: tuple[str, ...] | None
    frame: Frame | None
    problems: tuple[str, ...] = ()
    exits_are_saved: bool = field(default=True, metadata={"json": False})
    verbose: bool = field(default=False, metadata={"json": False})


def choose(stop: Stop, number: int | None, vcpu: int | None) -> tuple[Vm, Vcpu]:
    """Return the vCPU that is asked for: without numbers, that of the CPU's own guest, or the only one that there is.

    :raises GdbhypError: if there is no such vCPU, or more than one to choose from.
    """
    if number is not None:
        vm = vm_of(stop, number)
        if vcpu is not None:
            return vm, vcpu_of(stop, vm, vcpu)
        if len(vm.vcpus) <= 1:
            return vm, vcpu_of(stop, vm, vm.vcpus[0].vcpu if vm.vcpus else 0)
        raise GdbhypError(f"say which vCPU of VM {number}: {_listed([(vm, v) for v in vm.vcpus])}")
    everything = [(vm, v) for vm in find_vms(stop).vms for v in vm.vcpus]
    here = [(vm, v) for vm, v in everything if v.cpu == stop.cpu and v.pc_from in ("live", "ELR_EL2")]
    if len(here or everything) == 1:
        return (here or everything)[0]
    if not everything:
        raise GdbhypError("no vCPU was found")
    raise GdbhypError(f"CPU {stop.cpu} runs no guest, so say which vCPU: {_listed(everything)}")


def _listed(found: Sequence[tuple[Vm, Vcpu]]) -> str:
    return ", ".join(f"{vm.vm}.{vcpu.vcpu}" for vm, vcpu in found)


def vcpu_report(
    stop: Stop, vm: Vm, vcpu: Vcpu, frame: Frame | None = None, *, verbose: bool = False
) -> VcpuReport:
    """Describe a vCPU.

    :raises GdbhypError: if its saved context cannot be read, or the hypervisor's objects are not known.
    """
    if vcpu.object is None or vm.root is None:
        seen = "" if vcpu.cpu is None else f"; its registers are those of CPU {vcpu.cpu}"
        raise GdbhypError(
            f"where the hypervisor saves the vCPUs of VM {vm.vm} is not known (it was found {vm.how}){seen}"
        )
    saved = saved_vcpu(stop, vm, vcpu)
    context, where = saved.context, saved.loaded
    fault = context.fault or {}
    live = where.cpu if where is not None else None
    general_live = live if where is not None and where.general else None
    problems: list[str] = []
    return VcpuReport(
        vm=vm.vm,
        vmid=vm.vmid,
        protected=vm.protected,
        vcpu=vcpu.vcpu,
        state=vcpu.state,
        cpu=vcpu.cpu,
        task=vcpu.task,
        pc=vcpu.pc,
        pc_from=vcpu.pc_from,
        object=vcpu.object,
        registers_from=of_saved(stop, vm, saved).registers_from,
        general=_beside(context.general, general_live, tuple(context.general)),
        system=_beside(context.system, live, saved.switched),
        control=_beside(context.control, None, ()),
        pstate=pstate_words(context.general["CPSR"]),
        last_exit=_last_exit(fault),
        far=_optional(fault.get("FAR_EL2")),
        hpfar=None if "HPFAR_EL2" not in fault else Word(fault["HPFAR_EL2"]),
        ipa=_ipa(fault),
        traps=tuple(registers.trapped_by("HCR_EL2", context.control["HCR_EL2"]))
        if "HCR_EL2" in context.control
        else (),
        pending=None if saved.pending is None else tuple(saved.pending(problems)),
        frame=frame,
        problems=tuple(problems),
        exits_are_saved=context.fault is not None,
        verbose=verbose,
    )


def _optional(value: int | None) -> VA | None:
    return None if value is None else VA(value)


def _beside(
    values: Mapping[str, int], live: Stop | None, switched: Sequence[str]
) -> tuple[ContextRegister, ...]:
    """Put what a CPU holds beside saved values, of those registers that it holds for the guest."""
    rows = []
    for name, value in values.items():
        now = live.optional(name) if live is not None and name in switched else None
        rows.append(ContextRegister(name, Word(value), None if now is None else Word(now)))
    return tuple(rows)


def _last_exit(fault: Mapping[str, int]) -> EsrReport | None:
    """Decode the last exit; the general-purpose registers may be those of a later one, so they do not help."""
    esr = fault.get("ESR_EL2")
    if not esr:
        return None
    context = SyndromeContext(
        far=fault.get("FAR_EL2"), hpfar=fault.get("HPFAR_EL2"), ipa=_address(fault), guest=True
    )
    return explain(decode_esr(esr, el=2, context=context))


# ESR_EL2.EC of an instruction or data abort of a lower level, and HPFAR_EL2.FIPA, which is bits [55:12] of an IPA.
_ABORTS = (0x20, 0x24)
_EC = Bits(31, 26)
_FIPA = Bits(47, 4)


def _address(fault: Mapping[str, int]) -> int | None:
    """Return the IPA of an abort: KVM resolves HPFAR_EL2 also where the processor leaves it UNKNOWN."""
    if _EC(fault.get("ESR_EL2", 0)) not in _ABORTS or "HPFAR_EL2" not in fault:
        return None
    return _FIPA(fault["HPFAR_EL2"]) << 12 | fault.get("FAR_EL2", 0) & 0xFFF


def _ipa(fault: Mapping[str, int]) -> IPA | None:
    address = _address(fault)
    return None if address is None else IPA(address)


_MODES = {0b0000: "EL0t", 0b0100: "EL1t", 0b0101: "EL1h", 0b1000: "EL2t", 0b1001: "EL2h"}


def pstate_words(pstate: int) -> str:
    """Return the level, flags and masks of a saved PSTATE (SPSR_EL2 gives the positions).

    >>> pstate_words(0x600003C5)
    'EL1h, ZC, DAIF masked'
    """
    mode = "AArch32" if pstate >> 4 & 1 else _MODES.get(pstate & 0xF, f"mode {pstate & 0xF:#x}")
    flags = "".join(
        letter for letter, bit in zip("NZCV", range(31, 27, -1), strict=True) if pstate >> bit & 1
    )
    masks = "".join(letter for letter, bit in zip("DAIF", range(9, 5, -1), strict=True) if pstate >> bit & 1)
    words = [mode, flags, f"{masks} masked" if masks else "nothing masked"]
    return ", ".join(word for word in words if word)
