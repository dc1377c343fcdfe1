"""Memory attributes: MAIR_ELx bytes, stage-2 MemAttr, shareability, and how the two stages combine.

An attribute is carried as the byte that MAIR_ELx uses and PAR_EL1.ATTR reports, shareability as the two-bit
SH field. Source: Arm ARM (DDI 0487) D8.6 and the descriptions of MAIR_EL1, PAR_EL1 and HCR_EL2; Arm's ASL
v9.4 ``S1DecodeMemAttrs``, ``S2CombineS1MemAttrs``, ``AArch64_S2ApplyFWBMemAttrs``, ``EncodePARAttrs``.

Choices where the architecture leaves one: a reserved MAIR byte and SH = 0b01 are reported as they are, and a
reserved stage-2 inner cacheability counts as Write-Back. PAR_EL1.ATTR may hold "the resulting attribute that
is actually implemented" (``ReportedPARAttrs``): of FEAT_XS that is XS = 0 where a MAIR byte says it. The XS =
0 that Write-Back memory has by definition is not reported once it is made weaker, and FnXS of stage 2, which
is about TLB maintenance, is not reported at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

DEVICE_nGnRnE = 0x00
NORMAL_NC = 0x44
NORMAL_NC_NXS = 0x40
NORMAL_WT_NXS = 0xA0
NORMAL_WB = 0xFF
TAGGED = 0xF0
TAGGED_NO_ACCESS = 0xE0

NON_SHAREABLE = 0b00
OUTER_SHAREABLE = 0b10
INNER_SHAREABLE = 0b11

# One cacheability nibble of a Normal attribute byte: 0b0100 Non-cacheable, else [3] non-transient, [2]
# Write-Back (Write-Through when 0), [1:0] read and write allocation.
_NC = 0b0100
_NON_TRANSIENT = 0b1000
_WRITE_BACK = 0b0100
_HINTS = 0b0011
_WB_RWA = 0b1111
_WT_RA = 0b1010


@dataclass(frozen=True, slots=True)
class Stage2Memory:
    """What decides how a stage-2 MemAttr field reads: HCR_EL2.FWB and CD, and three features."""

    fwb: bool
    cd: bool
    mte2: bool
    mte_perm: bool
    xs: bool


def is_device(attr: int) -> bool:
    """Whether a MAIR attribute byte is some type of Device memory."""
    return not attr & 0xF0


def stage2_is_device(memattr: int, fwb: bool) -> bool:
    """Whether a stage-2 MemAttr[3:0] alone makes memory Device: with FWB that is MemAttr[2] = 0."""
    return not memattr & (0b0100 if fwb else 0b1100)


def par_shareability(attr: int, sh: int) -> int:
    """PAR_EL1.SH: Device and Normal Non-cacheable memory are always Outer Shareable."""
    return OUTER_SHAREABLE if not attr & 0xF0 or attr in (NORMAL_NC, NORMAL_NC_NXS) else sh


def _normal_nibble(nibble: int) -> int:
    """A reserved 0b0000 has no allocation hints, and without any there is no transient: Write-Through."""
    return nibble or _NON_TRANSIENT


def _combine_nibble(first: int, second: int) -> int:
    """The weaker cacheability of both stages, with the allocation hints of stage 1."""
    if _NC in (first, second):
        return _NC
    return first if second & _WRITE_BACK else first & ~_WRITE_BACK


def _combine_shareability(first: int, second: int) -> int:
    if OUTER_SHAREABLE in (first, second):
        return OUTER_SHAREABLE
    return INNER_SHAREABLE if INNER_SHAREABLE in (first, second) else NON_SHAREABLE


@dataclass(frozen=True, slots=True)
class _Memory:
    """An attribute byte taken apart: ``device`` 0 to 3 or None, else two nibbles; ``nxs`` is XS = 0."""

    device: int | None
    outer: int
    inner: int
    nxs: bool
    tagged: bool


def _decode(attr: int, xs: bool, mte2: bool) -> _Memory:
    if is_device(attr):
        return _Memory(attr >> 2 & 3, 0, 0, xs and bool(attr & 1), False)
    if xs and attr == NORMAL_NC_NXS:
        return _Memory(None, _NC, _NC, True, False)
    if xs and attr == NORMAL_WT_NXS:
        return _Memory(None, _WT_RA, _WT_RA, True, False)
    if mte2 and attr == TAGGED:
        return _Memory(None, _WB_RWA, _WB_RWA, False, True)
    return _Memory(None, _normal_nibble(attr >> 4), _normal_nibble(attr & 15), False, False)


def uncached(attr: int, xs: bool) -> int:
    """What SCTLR_ELx.C = 0 makes of a MAIR attribute byte: Normal memory becomes Non-cacheable and keeps its
    XS.
    """
    if is_device(attr):
        return attr
    return NORMAL_NC_NXS if _decode(attr, xs, True).nxs else NORMAL_NC


def _encode(memory: _Memory, no_tag_access: bool) -> int:
    if memory.device is not None:
        return memory.device << 2 | memory.nxs
    if memory.tagged:
        return TAGGED_NO_ACCESS if no_tag_access else TAGGED
    if memory.nxs and memory.outer == memory.inner == _NC:
        return NORMAL_NC_NXS
    if memory.nxs and memory.outer == _WT_RA and not memory.inner & _WRITE_BACK:
        return NORMAL_WT_NXS
    return memory.outer << 4 | memory.inner


def _plain(first: _Memory, memattr: int, how: Stage2Memory) -> tuple[_Memory, bool]:
    """Combine without FWB: the stronger Device type or the weaker cacheability wins."""
    no_tag_access = how.mte_perm and memattr == 0b0100
    nxs = first.nxs
    if not memattr & 0b1100:
        device = memattr & 3
        if first.device is not None:
            device = min(device, first.device)
        return _Memory(device, 0, 0, nxs, False), no_tag_access
    if first.device is not None:
        return _Memory(first.device, 0, 0, nxs, False), no_tag_access
    if how.cd:
        return _Memory(None, _NC, _NC, nxs, False), no_tag_access
    kinds = {0b01: _NC, 0b10: _WT_RA}
    outer, inner = memattr >> 2, memattr & 3
    if no_tag_access:
        outer = inner = 0b11
    outer = _combine_nibble(first.outer, kinds.get(outer, _WB_RWA))
    inner = _combine_nibble(first.inner, kinds.get(inner, _WB_RWA))
    return _Memory(None, outer, inner, nxs, first.tagged), no_tag_access


def _forced(first: _Memory, memattr: int, how: Stage2Memory) -> tuple[_Memory, bool]:
    """Combine with FWB: stage 2 forces the type, or says that stage 1 decides."""
    no_tag_access = how.mte_perm and memattr >> 1 == 0b111
    nxs = first.nxs
    if not memattr & 0b0100:
        device = memattr & 3
        if first.device is not None:
            device = min(device, first.device)
        return _Memory(device, 0, 0, nxs, False), no_tag_access
    choice = memattr & 3
    if choice == 0b10:
        cacheable = first.device is None
        outer = first.outer if cacheable and first.outer != _NC else _WB_RWA
        inner = first.inner if cacheable and first.inner != _NC else _WB_RWA
        result = _Memory(None, outer | _WRITE_BACK, inner | _WRITE_BACK, False, first.tagged)
    elif choice == 0b11 or first.device is not None:
        result = _Memory(first.device, first.outer, first.inner, nxs, first.tagged)
    else:
        result = _Memory(None, _NC, _NC, nxs, False)
    if how.cd and result.device is None:
        result = _Memory(None, _NC, _NC, result.nxs, False)
    return result, no_tag_access


@lru_cache(maxsize=4096)
def combine(attr: int, sh: int, memattr: int, sh2: int, how: Stage2Memory) -> tuple[int, int]:
    """Combine stage 1's attribute byte and SH with a stage-2 descriptor's MemAttr[3:0] and SH.

    Returns the byte and shareability of the whole translation, as PAR_EL1 reports them.
    """
    first = _decode(attr, how.xs, how.mte2)
    result, no_tag_access = (_forced if how.fwb else _plain)(first, memattr, how)
    if result.tagged and not (result.device is None and result.outer == result.inner == _WB_RWA):
        result = _Memory(result.device, result.outer, result.inner, result.nxs, False)
    combined = _encode(result, no_tag_access)
    return combined, par_shareability(combined, _combine_shareability(sh, sh2))


_DEVICE_NAMES = ("Device-nGnRnE", "Device-nGnRE", "Device-nGRE", "Device-GRE")
_SHAREABILITY_NAMES = ("Non-shareable", "reserved shareability", "Outer Shareable", "Inner Shareable")


def _cacheability_words(nibble: int) -> str:
    if nibble == _NC:
        return "Non-cacheable"
    kind = "Write-Back" if nibble & _WRITE_BACK else "Write-Through"
    hints = ("no allocate", "Write-Allocate", "Read-Allocate", "Read-Allocate Write-Allocate")[
        nibble & _HINTS
    ]
    transient = "" if nibble & _NON_TRANSIENT else " transient"
    return f"{kind}{transient} {hints}"


def memory_words(attr: int) -> str:
    """A MAIR attribute byte in words: "Device-nGnRE", "Normal Write-Back Read-Allocate Write-Allocate"."""
    if is_device(attr):
        name = _DEVICE_NAMES[attr >> 2 & 3] + (" XS=0" if attr & 1 else "")
        return name if not attr & 2 else f"reserved attribute {attr:#04x}, as {name}"
    special = {
        NORMAL_NC_NXS: "Normal Non-cacheable XS=0",
        NORMAL_WT_NXS: "Normal Write-Through Read-Allocate XS=0",
        TAGGED: "Normal Tagged Write-Back Read-Allocate Write-Allocate",
        TAGGED_NO_ACCESS: "Normal Tagged (no tag access) Write-Back Read-Allocate Write-Allocate",
    }
    if attr in special:
        return special[attr]
    outer, inner = attr >> 4, attr & 15
    if not inner:
        return f"reserved attribute {attr:#04x}"
    if outer == inner:
        return f"Normal {_cacheability_words(inner)}"
    return f"Normal Inner {_cacheability_words(inner)}, Outer {_cacheability_words(outer)}"


def stage2_memory_words(memattr: int, fwb: bool) -> str:
    """A stage-2 MemAttr[3:0] in words, for a stage-2 mapping on its own."""
    if stage2_is_device(memattr, fwb):
        return _DEVICE_NAMES[memattr & 3]
    if fwb:
        return {
            0b10: "Normal Write-Back (forced)",
            0b11: "as stage 1",
        }.get(memattr & 3, "Normal Non-cacheable, or Device as stage 1")
    kinds = ("reserved", "Non-cacheable", "Write-Through", "Write-Back")
    outer, inner = kinds[memattr >> 2], kinds[memattr & 3]
    return f"Normal {inner}" if outer == inner else f"Normal Inner {inner}, Outer {outer}"


def shareability_words(sh: int) -> str:
    """The SH field in words."""
    return _SHAREABILITY_NAMES[sh & 3]
