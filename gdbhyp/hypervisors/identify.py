"""Which hypervisor owns EL2, from registers and memory alone.

The code that VBAR_EL2 points to belongs to it, and each hypervisor's vectors begin in a way of their own. The patterns
below are instruction words that were read at stops of Debian's Linux 6.1 and 6.12 (nVHE, VHE, pKVM, hVHE) and Xen 4.17
under QEMU; none needs a symbol. What matches no pattern is unknown, and no guess is made from registers alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

from gdbhyp.arch.regimes import Regime
from gdbhyp.arch.spaces import PA
from gdbhyp.engine.stop import Stop
from gdbhyp.engine.translate import registers_needed, translate
from gdbhyp.errors import GdbhypError
from gdbhyp.hypervisors import pkvm

Name = Literal["kvm-nvhe", "kvm-vhe", "kvm-hvhe", "pkvm", "xen", "unknown"]

_VECTORS_SIZE = 0x800
_ESB, _NOP, _BTI_J = 0xD503_221F, 0xD503_201F, 0xD503_249F
_PUSH_X0_X1 = 0xA9BF_07E0  # stp x0, x1, [sp, #-16]!
_MRS_X0_ESR_EL2 = 0xD53C_5200
_MSR_TPIDRRO_EL0_X30 = 0xD51B_D07E
_ADD_SP_SP_X0 = 0x8B20_63FF
_SUB_X0_SP_X0 = 0xCB20_63E0
# Xen programs its own set of memory types; xen/arch/arm, MAIR_EL2 as read from Xen 4.17.
_XEN_MAIR = 0xFF00_0004_EEAA_4400


@dataclass(frozen=True)
class Identity:
    """The hypervisor and why it is thought to be that one.

    ``protected`` says whether KVM keeps the host behind a stage 2 of its own (pKVM), None where that is not known or
    does not apply. ``vectors`` is the physical address of the code that VBAR_EL2 points to.
    """

    name: Name
    evidence: tuple[str, ...]
    protected: bool | None = None
    vectors: PA | None = None


def identify(stop: Stop) -> Identity:
    """Return which hypervisor owns EL2, "unknown" with the reason where nothing says so."""
    found = _identify(stop)
    if stop.assumed is None:
        return found
    said = f"'set hyp hypervisor {stop.assumed}' says so"
    name = cast(Name, stop.assumed)
    return replace(
        found, name=name, evidence=(said, *found.evidence), protected=found.protected or name == "pkvm"
    )


def _identify(stop: Stop) -> Identity:
    hcr, vbar = stop.optional("HCR_EL2"), stop.optional("VBAR_EL2")
    if vbar == 0:
        return Identity("unknown", ("VBAR_EL2 is zero: no hypervisor has set its vectors",))
    e2h = bool(hcr is not None and hcr >> 34 & 1)
    regime = Regime.EL20 if e2h else Regime.EL2
    missing = "VBAR_EL2" if vbar is None else _missing(stop, regime, vbar)
    if vbar is None or missing:
        return Identity("unknown", (f"the vectors cannot be found: the target does not show {missing}",))
    try:
        found = translate(stop.machine, vbar & ~0x7FF, regime).output
        if found is None:
            return Identity("unknown", (f"VBAR_EL2 = {vbar:#x} is not mapped",))
        code = stop.machine.memory.read(found, _VECTORS_SIZE)
    except GdbhypError as error:
        return Identity("unknown", (f"the vectors cannot be read: {error}",))
    return _by_vectors(stop, PA(found), _words(code), e2h, bool(vbar >> 55 & 1))


def _missing(stop: Stop, regime: Regime, address: int) -> str | None:
    """Return a register that is not shown and without which EL2's ``address`` cannot be translated."""
    upper = bool(address >> 55 & 1) if regime.has_unprivileged else None
    # Of what memory type the code is, does not matter.
    needed = (name for name in registers_needed(regime, "1", upper=upper) if name != "MAIR_EL2")
    return next(iter(stop.machine.missing(needed)), None)


def is_xen(stop: Stop) -> bool:
    """Return whether Xen owns EL2; where its memory types are not in MAIR_EL2, no memory is read to say no."""
    if stop.assumed is not None:
        return stop.assumed == "xen"
    return stop.optional("MAIR_EL2") == _XEN_MAIR and identify(stop).name == "xen"


def _by_vectors(stop: Stop, vectors: PA, code: Sequence[int], e2h: bool, kernel_address: bool) -> Identity:
    if _is_linux_kernel(code) and e2h and kernel_address:
        return Identity(
            "kvm-vhe", ("VBAR_EL2 points to the Linux kernel's own vectors (VHE)",), None, vectors
        )
    if e2h and kernel_address and _is_trampoline(code):
        why = "VBAR_EL2 points to the Linux kernel's vectors for user space with page table isolation (VHE)"
        return Identity("kvm-vhe", (why,), None, vectors)
    guest, host = _is_kvm_guest(code), _is_kvm_host(code)
    if guest and kernel_address:
        why = "VBAR_EL2 points to KVM's guest vectors at a kernel address (VHE)"
        return Identity("kvm-vhe", (why,), None, vectors)
    if guest or host:
        return _separate_kvm(stop, vectors, "guest" if guest else "host", e2h)
    if _only_branches(code) and stop.optional("MAIR_EL2") == _XEN_MAIR:
        evidence = ("the vectors are single branches", "MAIR_EL2 holds Xen's memory types")
        return Identity("xen", evidence, None, vectors)
    return Identity("unknown", (f"the vectors at PA {vectors:#x} are none of KVM's or Xen's",), None, vectors)


def _separate_kvm(stop: Stop, vectors: PA, whose: str, e2h: bool) -> Identity:
    """Tell the modes apart in which KVM's hypervisor code is separate from the kernel."""
    evidence = [f"VBAR_EL2 points to KVM's {whose} vectors at a hypervisor address"]
    protected, why = pkvm.is_protected(stop, in_host=whose == "host")
    evidence.append(why)
    if e2h:
        evidence.append("HCR_EL2.E2H is 1: nVHE code with E2H (hVHE)")
        return Identity("kvm-hvhe", tuple(evidence), protected, vectors)
    return Identity("pkvm" if protected else "kvm-nvhe", tuple(evidence), protected, vectors)


def _words(code: bytes) -> list[int]:
    return [int.from_bytes(code[at : at + 4], "little") for at in range(0, len(code), 4)]


def _entry(code: Sequence[int], offset: int) -> Sequence[int]:
    return code[offset // 4 : offset // 4 + 32]


def _is_branch(word: int) -> bool:
    return word >> 26 == 0b000101


def _is_trampoline(code: Sequence[int]) -> bool:
    """Each of the four vectors for AArch64 user space puts a register aside before anything else."""
    return all(_entry(code, offset)[0] == _MSR_TPIDRRO_EL0_X30 for offset in range(0x400, 0x600, 0x80))


def _is_kvm_guest(code: Sequence[int]) -> bool:
    """An error barrier (or none, without FEAT_RAS), a push, a landing pad (since BTI), and a branch."""
    for offset in (0x400, 0x480, 0x600):
        first, push, *rest = _entry(code, offset)
        branch = rest[1] if rest[0] == _BTI_J else rest[0]
        if first not in (_ESB, _NOP) or push != _PUSH_X0_X1 or not _is_branch(branch):
            return False
    return True


def _is_kvm_host(code: Sequence[int]) -> bool:
    """A push and a look at ESR_EL2 for a host's HVC; a check of the stack at the vectors from EL2 itself."""
    return list(_entry(code, 0x400)[:2]) == [_PUSH_X0_X1, _MRS_X0_ESR_EL2] and _checks_stack(code, 0)


def _is_linux_kernel(code: Sequence[int]) -> bool:
    """The kernel's vectors make room for the registers and check the stack before they do anything else."""
    return _checks_stack(code, 0x200)


def _checks_stack(code: Sequence[int], offset: int) -> bool:
    start = list(_entry(code, offset)[:4])
    return any(start[i : i + 2] == [_ADD_SP_SP_X0, _SUB_X0_SP_X0] for i in range(3))


def _only_branches(code: Sequence[int]) -> bool:
    return all(_is_branch(code[offset // 4]) for offset in range(0, _VECTORS_SIZE, 0x80))
