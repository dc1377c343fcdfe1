"""What KVM will inject into a vCPU: exceptions, virtual interrupts, and requests to itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gdbhyp.errors import GdbhypError
from gdbhyp.hypervisors.linux.objects import Object, list_entries

# HCR_EL2.
_VSE, _VI, _VF = 1 << 8, 1 << 7, 1 << 6
# arch/arm64/include/asm/kvm_host.h, the flags of iflags (since 5.19): an exception, or an instruction to skip.
_EXCEPTION, _SKIP = 1 << 0, 1 << 1
_KINDS = {
    0: "a synchronous exception at EL1",
    1: "an IRQ at EL1",
    2: "an FIQ at EL1",
    3: "an SError at EL1",
    4: "a synchronous exception at EL2",
    5: "an IRQ at EL2",
    6: "an FIQ at EL2",
    7: "an SError at EL2",
}


def pending(vcpu: Object, control: Mapping[str, int], problems: list[str]) -> Iterator[str]:
    """Yield in words what is pending; what cannot be read is appended to ``problems``."""
    hcr = control.get("HCR_EL2", 0)
    for bit, name in ((_VSE, "a virtual SError (HCR_EL2.VSE)"), (_VI, "a virtual IRQ (HCR_EL2.VI)")):
        if hcr & bit:
            yield name
    if hcr & _VF:
        yield "a virtual FIQ (HCR_EL2.VF)"
    if vcpu.has("arch.iflags"):
        flags = vcpu.number("arch.iflags")
        if flags & _EXCEPTION:
            yield _KINDS[flags >> 1 & 7]
        elif flags & _SKIP:
            yield "the instruction at PC is skipped at the next entry"
    try:
        yield from _interrupts(vcpu)
    except GdbhypError as error:
        problems.append(f"the virtual interrupt controller cannot be read: {error}")
    if requests := vcpu.number("requests"):
        yield f"requests of KVM to itself, {requests:#x}"


def _interrupts(vcpu: Object) -> Iterator[str]:
    """Interrupts that are active or pending, as the virtual GIC queues them for this vCPU."""
    if not vcpu.has("arch.vgic_cpu.ap_list_head"):
        return
    head = vcpu.at("arch.vgic_cpu.ap_list_head")
    if not vcpu.kernel.memory.word(head):
        return
    for irq in list_entries(vcpu.kernel, head, "vgic_irq", "ap_list"):
        states = [name for name in ("active", "enabled") if irq.number(name)]
        if irq.number("pending_latch") or irq.number("line_level"):
            states.insert(0, "pending")
        yield f"interrupt {irq.number('intid')} ({', '.join(states)})"
