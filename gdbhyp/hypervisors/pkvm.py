"""Whether KVM is in protected mode (pKVM), told from what only that mode does.

A protected host runs behind a stage 2 of its own, with VMID 0. While a guest runs that stage 2 is not loaded; but pKVM
also records who owns a page in the software bits of the hypervisor's own stage-1 leaves (Linux,
arch/arm64/kvm/hyp/include/nvhe/mem_protect.h, ``enum pkvm_page_state``), which plain KVM leaves zero: counted on
Debian's 6.1 and 6.12, 2,107 and 8 leaves in protected mode, none of 2,137 and 2,951 without.
"""

from __future__ import annotations

from collections.abc import Iterator

from gdbhyp.arch.fields import Bits
from gdbhyp.arch.granules import FINAL_LEVEL
from gdbhyp.arch.regimes import Regime
from gdbhyp.engine.stop import Stop
from gdbhyp.engine.walk import setup
from gdbhyp.errors import GdbhypError

_SOFTWARE = Bits(58, 55)
_SHARED_OWNED, _SHARED_BORROWED = 1, 2
_VMID = Bits(63, 48)
# A hypervisor's own tables are a few dozen; more than this is no such tree.
_MOST_TABLES = 512


def is_protected(stop: Stop, *, in_host: bool) -> tuple[bool | None, str]:
    """Return whether KVM is protected, None where that cannot be known, and why.

    ``in_host`` says that EL2's vectors are those for the host, whose HCR_EL2 then decides.
    """
    hcr, vttbr, cpsr = (stop.optional(name) for name in ("HCR_EL2", "VTTBR_EL2", "CPSR"))
    stage2 = hcr is not None and bool(hcr & 1)
    if stage2 and vttbr and not _VMID(vttbr):
        return True, "stage 2 is on with VMID 0: the host is behind a stage 2 of its own (pKVM)"
    if in_host and hcr is not None and not stage2 and cpsr is not None and stop.el < 2:
        return False, "the host runs with stage 2 off: KVM is not protected"
    try:
        marked = any(_SOFTWARE(leaf) in (_SHARED_OWNED, _SHARED_BORROWED) for leaf in _leaves(stop))
    except GdbhypError as error:
        return None, f"whether KVM is protected is not known: {error}"
    if marked:
        return True, "the hypervisor's own tables record the owners of pages (pKVM)"
    return False, "the hypervisor's own tables record no owners of pages: KVM is not protected"


def _leaves(stop: Stop) -> Iterator[int]:
    """Yield the leaf descriptors of the lower half of EL2's own stage 1."""
    regime = Regime.EL20 if stop.register("HCR_EL2") >> 34 & 1 else Regime.EL2
    params = setup(stop.machine.registers.get, regime).half(upper=False)
    entries = 1 << (params.levels[0].index_mask.bit_length() - 3)
    tables = [(params.base, entries, params.levels[0].level)]
    seen = {params.base}
    while tables and len(seen) <= _MOST_TABLES:
        base, count, level = tables.pop()
        data = stop.machine.memory.read(base, 8 * count)
        for at in range(0, len(data), 8):
            descriptor = int.from_bytes(data[at : at + 8], "little")
            if not descriptor & 1:
                continue
            below = params.format.address(descriptor)
            if level == FINAL_LEVEL or not descriptor & 2:
                yield descriptor
            elif below not in seen:
                seen.add(below)
                tables.append((below, (1 << params.tgx) // 8, level + 1))
