"""What a host asks of its own EL2 code: names for the numbers and addresses in x0 of its HVCs.

KVM's host calls EL2 with SMC64 function numbers (arch/arm64/include/asm/kvm_asm.h, KVM_HOST_SMCCC_ID), whose meaning
changes from version to version. Each is an index into the table of handlers that EL2 uses itself, ``host_hcall``: it is
read from the kernel's image, and its entries are named by the kernel's symbols. Kernels without CONFIG_KALLSYMS_ALL do
not list the table, but the code of ``handle_trap`` says where it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gdbhyp.arch.dataflow import Element, facts
from gdbhyp.engine.stop import Stop
from gdbhyp.engine.virtual import PAGE_SIZE, VirtualReader
from gdbhyp.errors import BadInput, GdbhypError, MemoryUnavailable
from gdbhyp.hypervisors.identify import identify
from gdbhyp.hypervisors.linux.hyp import PREFIX, el2_regime
from gdbhyp.hypervisors.linux.kernel import Kernel, find_kernel

HOST_CALL = 0xC600_0000
"""The first function number of KVM's host: a fast SMC64 call to the vendor-specific hypervisor."""

_MOST_CALLS = 0x100
_TABLE = f"{PREFIX}host_hcall"
_DISPATCHERS = (f"{PREFIX}handle_trap", f"{PREFIX}handle_host_hcall")
_HANDLER = f"{PREFIX}handle_"
# EL2 is entered with number 0 before it has vectors that use the table.
_INITIAL = "__kvm_hyp_init"
_SEPARATE = ("kvm-nvhe", "kvm-hvhe", "pkvm")


@dataclass(frozen=True)
class HostCalls:
    """Names by number; None where the table has no handler. ``how`` says how the table was found."""

    names: tuple[str | None, ...]
    how: str

    def name(self, x0: int) -> str | None:
        """Return the function that ``x0`` asks for, None if it is no number of the table."""
        number = (x0 & 0xFFFF_FFFF) - HOST_CALL
        return self.names[number] if 0 <= number < len(self.names) else None


_known: dict[str, HostCalls] = {}


def host_calls(stop: Stop) -> HostCalls:
    """Return KVM's own calls by number.

    :raises GdbhypError: in a sentence, if the hypervisor is none that is called so, or its table is not found.
    """
    name = identify(stop).name
    if name not in _SEPARATE:
        raise BadInput(f"{name} has no calls from a host by number")
    kernel = find_kernel(stop)
    if kernel.build_id not in _known or not kernel.build_id:
        _known[kernel.build_id] = _read(stop, kernel)
    return _known[kernel.build_id]


def _read(stop: Stop, kernel: Kernel) -> HostCalls:
    table, how = _table(kernel)
    hyp = VirtualReader(stop.machine, el2_regime(stop))
    names: list[str | None] = []
    for number in range(_MOST_CALLS):
        try:
            handler = kernel.memory.word(table + 8 * number)
        except MemoryUnavailable:
            break
        name = _handler(kernel, hyp, handler) if handler else None
        if handler and name is None:
            break
        names.append(name)
    while names and names[-1] is None:
        names.pop()
    if not names:
        raise BadInput(f"the table of host calls at VA {table:#x} holds no handlers")
    names[0] = names[0] or _INITIAL
    return HostCalls(tuple(names), how)


def _table(kernel: Kernel) -> tuple[int, str]:
    """Return where the table is in the kernel's image, and how that is known."""
    listed = kernel.symbol(_TABLE)
    if listed is not None:
        return listed, f"the kernel's symbol {_TABLE}"
    for dispatcher in _DISPATCHERS:
        start = kernel.symbol(dispatcher)
        if start is None:
            continue
        code = kernel.memory.read(start, _size_of(kernel, start))
        for fact in facts(code, start):
            if isinstance(fact, Element) and fact.size == 8 and fact.array.constant is not None:
                return fact.array.constant, f"the code of {dispatcher} takes its handlers from there"
    raise BadInput(
        "the table of host calls was not found: the kernel lists neither it nor the code that uses it"
    )


def _size_of(kernel: Kernel, start: int) -> int:
    """Return the size of a function, which ends where the next symbol begins."""
    offsets = kernel.image.symbols.offsets
    following = (offset for offset in offsets if offset > start - kernel.base)
    return min(next(following, PAGE_SIZE), start - kernel.base + PAGE_SIZE) - (start - kernel.base)


def _handler(kernel: Kernel, hyp: VirtualReader, address: int) -> str | None:
    """Return the function behind a handler, whose address is EL2's own (or the kernel's, before EL2 is set up)."""
    pa = hyp.physical(address)
    own = address if pa is None else kernel.base + pa - kernel.physical_base
    name = kernel.name(own)
    return name.removeprefix(_HANDLER) if name and name.startswith(_HANDLER) and "+" not in name else None


def namer(stop: Stop) -> Callable[[int], str | None]:
    """Return a function that names what a host asks for by x0; it looks for the table when it is first needed.

    A number is looked up in KVM's table. An address (as in the first KVM for arm64) is named by the target's symbols.
    What is not known is None.
    """
    table: list[HostCalls | None] = []

    def name(x0: int) -> str | None:
        if x0 >> 32:
            found = stop.symbol(x0)
            return found if found and "+" not in found else None
        if not table:
            try:
                table.append(host_calls(stop))
            except GdbhypError:
                table.append(None)
        return table[0].name(x0) if table[0] else None

    return name
