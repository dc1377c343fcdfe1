"""The host kernel's own stage 1 where a dump has no system registers: from VMCOREINFO, or from the kernel in memory.

Source: Linux, Documentation/admin-guide/kdump/vmcoreinfo.rst, and arch/arm64/kernel/machine_kexec.c, which exports
``NUMBER(kimage_voffset)`` (what is added to a physical address of the image to have its virtual one),
``NUMBER(VA_BITS)``, ``NUMBER(TCR_EL1_T1SZ)`` (since 5.10) and ``SYMBOL(swapper_pg_dir)``. Positions in TCR_EL1 as in
the Arm ARM.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gdbhyp.arch.fields import Bits, bit
from gdbhyp.arch.spaces import Word
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import BadInput, RegisterUnavailable
from gdbhyp.hypervisors.linux.kernel import NoKernel, find_kernel

_T1SZ, _EPD0, _TG1, _IPS, _DS = Bits(21, 16), bit(7), Bits(31, 30), Bits(34, 32), bit(59)
_TG1_OF = {4096: 0b10, 16384: 0b01, 65536: 0b11}
_IPS_52 = 6
# A kernel for 52-bit addresses and 64 KiB pages, on a processor with 48: its TTBR1_EL1 leads to the last 64 of the 1024
# entries (arch/arm64/include/asm/assembler.h, offset_ttbr1).
_OFFSET_4852 = (1024 - 64) * 8


@dataclass(frozen=True)
class KernelRoots:
    """The upper range of the host kernel's stage 1, as values of TTBR1_EL1 and TCR_EL1, and where they come from."""

    ttbr1: Word
    tcr: Word
    why: str


def kernel_roots(stop: Stop) -> KernelRoots:
    """Return the kernel's own tables.

    :raises RegisterUnavailable: if neither VMCOREINFO nor memory says where they are.
    :raises BadInput: if VMCOREINFO holds something else than numbers.
    """
    said = from_vmcoreinfo(stop.vmcoreinfo)
    if said is not None:
        return said
    try:
        kernel = find_kernel(stop)
    except NoKernel as error:
        raise RegisterUnavailable("TTBR1_EL1", f"give --ttbr1 and --tcr; {error}") from error
    own = kernel.memory.machine.registers
    ttbr1, tcr = own.get("TTBR1_EL1") or 0, own.get("TCR_EL1") or 0
    return KernelRoots(Word(ttbr1), Word(tcr), f"a kernel in memory: {kernel.how}")


def from_vmcoreinfo(info: Mapping[str, str] | None) -> KernelRoots | None:
    """Return what VMCOREINFO says, None if it does not say enough.

    :raises BadInput: if it holds something else than numbers.
    """
    needed = ("SYMBOL(swapper_pg_dir)", "NUMBER(kimage_voffset)", "PAGESIZE")
    if not info or not all(name in info for name in needed):
        return None
    if "NUMBER(TCR_EL1_T1SZ)" not in info and "NUMBER(VA_BITS)" not in info:
        return None
    root = _number(info, "SYMBOL(swapper_pg_dir)", 16) - _number(info, "NUMBER(kimage_voffset)", 0)
    page = _number(info, "PAGESIZE", 10)
    if page not in _TG1_OF:
        raise BadInput(f"VMCOREINFO is damaged: PAGESIZE is {page}")
    t1sz = _t1sz(info)
    if page == 65536 and t1sz == 16 and info.get("NUMBER(VA_BITS)") == "52":
        root += _OFFSET_4852
    large_va = t1sz < 16
    tcr = _T1SZ.put(t1sz) | _EPD0.put(1) | _TG1.put(_TG1_OF[page]) | _IPS.put(_IPS_52)
    if large_va and page != 65536:
        tcr |= _DS.put(1)
    return KernelRoots(
        Word(root & (1 << 48) - 1),
        Word(tcr),
        "VMCOREINFO: swapper_pg_dir, kimage_voffset, PAGESIZE and "
        + ("TCR_EL1_T1SZ" if "NUMBER(TCR_EL1_T1SZ)" in info else "VA_BITS"),
    )


def _t1sz(info: Mapping[str, str]) -> int:
    """Return TCR_EL1.T1SZ; VMCOREINFO has it in place, as the kernel writes it."""
    if "NUMBER(TCR_EL1_T1SZ)" in info:
        in_place = _number(info, "NUMBER(TCR_EL1_T1SZ)", 0)
        size = _T1SZ(in_place) if in_place >= 64 else in_place
    else:
        size = 64 - _number(info, "NUMBER(VA_BITS)", 10)
    if not 12 <= size <= 48:
        raise BadInput(f"VMCOREINFO is damaged: addresses of {64 - size} bits")
    return size


def _number(info: Mapping[str, str], name: str, base: int) -> int:
    try:
        return int(info[name], base)
    except ValueError as error:
        raise BadInput(f"VMCOREINFO is damaged: {name} is '{info[name]}'") from error
