"""What a leaf descriptor allows: direct and indirect permissions and overlays, of both stages.

A set of rights is an int of the bits READ, WRITE, EXECUTE and GCS. Source: Arm ARM (DDI 0487) D8.4; Arm's ASL
v9.4 ``AArch64_S1DirectBasePermissions``, ``AArch64_S1IndirectBasePermissions``,
``AArch64_S1OverlayPermissions``, ``AArch64_S1ComputePermissions``, ``AArch64_S1CheckPermissions`` and their
stage-2 counterparts.

Choice where the architecture leaves one: fetching an instruction from Device memory is not a permission fault
of its own.
"""

from __future__ import annotations

from typing import NamedTuple

from gdbhyp.arch import stage1, stage2
from gdbhyp.arch.regimes import Regime, Space
from gdbhyp.arch.stage1 import Stage1Params
from gdbhyp.arch.stage2 import Stage2Params

READ = 1
WRITE = 2
EXECUTE = 4
GCS = 8
RW = READ | WRITE
RX = READ | EXECUTE
RWX = READ | WRITE | EXECUTE

_AP_PRIVILEGED = (RW, RW, READ, READ)
_AP_UNPRIVILEGED = (0, RW, 0, READ)

_INDIRECT = (
    0,
    READ,
    EXECUTE,
    RX,
    0,
    RW,
    RWX,  # write and execute exclude each other: see _WXN_ENCODING
    RWX,
    READ,
    READ | GCS,
    RX,
    0,
    RW,
    0,
    RWX,
    0,
)
"""Base rights by the four bits of a PIR_ELx or PIRE0_ELx field; 8 and up have no overlay."""

_WXN_ENCODING = 0b0110
_NO_OVERLAY = 0b1000

_OVERLAY = (0, READ, EXECUTE, RX, WRITE, RW, WRITE | EXECUTE, RWX)
"""Overlay rights by the low three bits of a POR_ELx field; 8 and up allow nothing."""


class Rights(NamedTuple):
    """Base and overlay rights of one privilege; ``overlay`` is None when no overlay applies."""

    base: int
    overlay: int | None

    @property
    def both(self) -> int:
        """What is allowed in the end."""
        return self.base if self.overlay is None else self.base & self.overlay


class Denied(NamedTuple):
    """Why an access is a permission fault, as ESR_ELx.ISS2 and PAR_EL1 qualify it."""

    overlay: bool = False
    dirty_bit: bool = False
    top_level: bool = False
    assured_only: bool = False


def _nibble(register: int, index: int) -> int:
    return register >> 4 * index & 0xF


def _overlay(por: int, index: int) -> int:
    field = _nibble(por, index)
    return _OVERLAY[field] if field < len(_OVERLAY) else 0


def _with_wxn(base: int, wxn: bool, overlay: int | None) -> Rights:
    """Writable memory that must not execute loses the right to write if an overlay executes it, else to
    execute.
    """
    if wxn:
        if overlay is not None and overlay & EXECUTE:
            return Rights(base, overlay & ~WRITE)
        base &= ~EXECUTE
    return Rights(base, overlay)


def _executable_from(p: Stage1Params, space: Space) -> bool:
    """Whether the regime may execute from a physical space: not Root or Realm from elsewhere, nor with SIF."""
    if space is p.space:
        return True
    if p.space is Space.SECURE:
        return not p.sif
    return not (p.space is Space.ROOT or (p.space is Space.REALM and p.regime is not Regime.EL10))


def _direct(p: Stage1Params, descriptor: int, tables: int) -> tuple[int, int, int]:
    """Privileged, unprivileged and "would EL0 execute" rights from AP, XN and the table descriptors."""
    ap = stage1.AP(descriptor)
    if p.ha and p.hd and stage1.DBM(descriptor):
        ap &= 0b01
    ap_table = stage1.AP_TABLE(tables)
    if not p.regime.has_unprivileged:
        base = READ if ap & 0b10 or ap_table & 0b10 else RW
        if not (stage1.UXN(descriptor) or stage1.XN_TABLE(tables)):
            base |= EXECUTE
        return base, 0, 0
    if p.nv1:
        # AP[1] and UXN act as 0; bit 54 and bit 60 are PXN and PXNTable.
        ap &= 0b10
        ap_table &= 0b10
        pxn, uxn = stage1.UXN(descriptor) or stage1.XN_TABLE(tables), 0
    else:
        pxn = stage1.PXN(descriptor) or stage1.PXN_TABLE(tables)
        uxn = stage1.UXN(descriptor) or stage1.XN_TABLE(tables)
    privileged, unprivileged = _AP_PRIVILEGED[ap], _AP_UNPRIVILEGED[ap]
    if ap_table & 0b01:
        unprivileged = 0
    if ap_table & 0b10:
        privileged &= ~WRITE
        unprivileged &= ~WRITE
    if not (pxn or unprivileged & WRITE):
        privileged |= EXECUTE
    if not uxn:
        unprivileged |= EXECUTE
    return privileged, unprivileged, unprivileged & EXECUTE


def stage1_rights(
    p: Stage1Params, descriptor: int, tables: int, space: Space, *, pan: bool = False
) -> tuple[Rights, Rights]:
    """Return the rights of the regime's own EL and of EL0 for a stage-1 leaf.

    ``tables`` is the OR of the table descriptors above it, ``space`` the physical space of its output;
    ``pan`` says that PSTATE.PAN = 1 restricts the access. With E0PD every access from EL0 faults, whatever the
    descriptor says; what it says still counts for PAN and for the privileged right to execute.
    """
    if p.pie:
        own, user = _indirect_rights(p, descriptor, space, pan)
    else:
        own, user = _direct_rights(p, descriptor, tables, space, pan)
    return own, Rights(0, None) if p.e0pd else user


def _direct_rights(
    p: Stage1Params, descriptor: int, tables: int, space: Space, pan: bool
) -> tuple[Rights, Rights]:
    privileged, unprivileged, user_executes = _direct(p, descriptor, tables if p.hierarchical else 0)
    wxn_privileged = p.wxn and privileged & (WRITE | EXECUTE) == WRITE | EXECUTE
    wxn_unprivileged = p.wxn and unprivileged & (WRITE | EXECUTE) == WRITE | EXECUTE
    if pan and p.pan and (unprivileged & RW or (p.epan and user_executes)):
        privileged &= ~RW
        wxn_privileged = False
    if not _executable_from(p, space):
        privileged &= ~EXECUTE
        unprivileged &= ~EXECUTE
    index = stage1.PO_INDEX(descriptor)
    return (
        _with_wxn(privileged, wxn_privileged, _overlay(p.por, index) if p.poe else None),
        _with_wxn(unprivileged, wxn_unprivileged, _overlay(p.por_el0, index) if p.e0poe else None),
    )


def permission_index(descriptor: int) -> int:
    """PIIndex of a 64-bit descriptor, either stage: bits 54, 53, 51 and 6."""
    return (
        (stage1.UXN(descriptor) << 3)
        | (stage1.PXN(descriptor) << 2)
        | (stage1.DBM(descriptor) << 1)
        | stage1.AP(descriptor) & 1
    )


def _indirect_rights(p: Stage1Params, descriptor: int, space: Space, pan: bool) -> tuple[Rights, Rights]:
    index = permission_index(descriptor)
    own = _nibble(p.pir, index)
    user = _nibble(p.pire0, index) if p.regime.has_unprivileged else 0
    privileged, unprivileged = _INDIRECT[own], _INDIRECT[user]
    if privileged & (EXECUTE | GCS) and unprivileged & (WRITE | GCS):
        privileged = unprivileged = 0
    if pan and p.pan and user:
        privileged &= ~RW
    if not _executable_from(p, space):
        privileged &= RW
        unprivileged &= RW
    overlay = stage1.PO_INDEX(descriptor)
    return (
        _with_wxn(
            privileged,
            own == _WXN_ENCODING,
            _overlay(p.por, overlay) if p.poe and not own & _NO_OVERLAY else None,
        ),
        _with_wxn(
            unprivileged,
            user == _WXN_ENCODING,
            _overlay(p.por_el0, overlay) if p.e0poe and not user & _NO_OVERLAY else None,
        ),
    )


def stage1_denies(p: Stage1Params, descriptor: int, rights: Rights, kind: str) -> Denied | None:
    """Return why stage 1 refuses a "read", "write" or "execute", None when it does not."""
    wanted = {"read": READ, "write": WRITE, "execute": EXECUTE}[kind]
    base, overlay = rights
    if overlay is not None and not overlay & wanted:
        return Denied(overlay=True)
    if not base & wanted:
        return Denied()
    if wanted == WRITE and p.pie and not (p.ha and p.hd) and stage1.NDIRTY(descriptor):
        return Denied(dirty_bit=True)
    return None


class Stage2Rights(NamedTuple):
    """Base rights of a stage-2 leaf; ``mmu`` are those of a stage-1 table walk and its hardware updates,
    ``top_level`` are the VA ranges (bit 0 lower, bit 1 upper) whose first table may be here."""

    privileged: int
    unprivileged: int
    mmu: int
    top_level: int = 0


_NOTHING = Stage2Rights(0, 0, 0)
_MOSTLY_READ_ONLY = Stage2Rights(READ, READ, RW)


def _stage2_plain(base: int, px: bool, ux: bool, mmu: int) -> Stage2Rights:
    return Stage2Rights(base | EXECUTE * px, base | EXECUTE * ux, mmu)


_S2_INDIRECT = (
    _NOTHING,
    _NOTHING,
    _MOSTLY_READ_ONLY,
    _MOSTLY_READ_ONLY._replace(top_level=0b10),
    _stage2_plain(WRITE, False, False, 0),
    _NOTHING,
    _MOSTLY_READ_ONLY._replace(top_level=0b01),
    _MOSTLY_READ_ONLY._replace(top_level=0b11),
    _stage2_plain(READ, False, False, READ),
    _stage2_plain(READ, False, True, READ),
    _stage2_plain(READ, True, False, READ),
    _stage2_plain(READ, True, True, READ),
    _stage2_plain(RW, False, False, RW),
    _stage2_plain(RW, False, True, RW),
    _stage2_plain(RW, True, False, RW),
    _stage2_plain(RW, True, True, RW),
)
"""Rights by the four bits of an S2PIR_EL2 or S2POR_EL1 field."""

_XN_RIGHTS = ((EXECUTE, EXECUTE), (0, EXECUTE), (0, 0), (EXECUTE, 0))
"""Privileged and unprivileged right to execute by XN[1:0], with FEAT_XNX."""


def stage2_base(p: Stage2Params, descriptor: int) -> Stage2Rights:
    """Base rights of a stage-2 leaf, without overlay."""
    if p.s2pie:
        return _S2_INDIRECT[_nibble(p.s2pir, permission_index(descriptor))]
    base = stage2.S2AP(descriptor)
    if p.ha and p.hd and stage2.DBM(descriptor):
        base |= WRITE
    xn = stage2.XN(descriptor)
    px, ux = _XN_RIGHTS[xn if p.xnx else xn & 0b10]
    return Stage2Rights(base | px, base | ux, base)


def stage2_overlay(p: Stage2Params, descriptor: int) -> Stage2Rights | None:
    """Overlay rights of a stage-2 leaf, None when no overlay applies."""
    return _S2_INDIRECT[_nibble(p.s2por, stage2.S2PO_INDEX(descriptor))] if p.s2poe else None


def mostly_read_only(base: Stage2Rights, overlay: Stage2Rights | None) -> bool:
    """Whether only the MMU may write here, which makes a stage-1 table "assured" (FEAT_THE)."""
    own, mmu = base.privileged, base.mmu
    if overlay is not None:
        own, mmu = own & overlay.privileged, mmu & overlay.mmu
    return bool(mmu & WRITE) and not own & WRITE


def _top_level(base: Stage2Rights, overlay: Stage2Rights | None) -> int:
    if overlay is None:
        return base.top_level
    return base.top_level | overlay.top_level if mostly_read_only(base, overlay) else 0


def stage2_denies_walk(
    p: Stage2Params, descriptor: int, *, write: bool, top: bool | None, device: bool, space: Space
) -> Denied | None:
    """Return why stage 2 refuses a fetch of a stage-1 descriptor (or, with ``write``, its update by
    hardware).

    ``top`` is None below the first table, else whether the walk is of the upper VA range.
    """
    base, overlay = stage2_base(p, descriptor), stage2_overlay(p, descriptor)
    if top is not None and (p.tl0 or p.tl1):
        allowed = _top_level(base, overlay)
        own, other = (0b10, 0b01) if top else (0b01, 0b10)
        own_locked, other_locked = (p.tl1, p.tl0) if top else (p.tl0, p.tl1)
        if (own_locked and not allowed & own) or (other_locked and allowed == other):
            return Denied(top_level=True)
    if p.ptw and device:
        return Denied()
    wanted = RW if write else READ
    if overlay is not None and wanted & ~overlay.mmu:
        return Denied(overlay=True)
    if p.realm and space is not Space.REALM:
        return Denied()
    if wanted & ~base.mmu:
        return Denied()
    if write and p.s2pie and not (p.ha and p.hd) and not stage2.S2DIRTY(descriptor):
        return Denied(dirty_bit=True)
    return None


def stage2_denies(
    p: Stage2Params, descriptor: int, kind: str, el: int, *, assured: bool, space: Space
) -> Denied | None:
    """Return why stage 2 refuses an access, None when it does not; ``assured`` is stage 1's side of FEAT_THE."""
    if p.assuredonly and stage2.ASSURED_ONLY(descriptor) and not assured:
        return Denied(assured_only=True)
    wanted = {"read": READ, "write": WRITE, "execute": EXECUTE}[kind]
    base, overlay = stage2_base(p, descriptor), stage2_overlay(p, descriptor)
    if overlay is not None and not (overlay.privileged if el else overlay.unprivileged) & wanted:
        return Denied(overlay=True)
    if wanted == EXECUTE and p.realm and space is not Space.REALM:
        return Denied()
    if not (base.privileged if el else base.unprivileged) & wanted:
        return Denied()
    if wanted == WRITE and p.s2pie and not (p.ha and p.hd) and not stage2.S2DIRTY(descriptor):
        return Denied(dirty_bit=True)
    return None


def words(rights: int) -> str:
    """Rights as "rwx", with "-" for what is missing."""
    return "".join(
        letter if rights & right else "-" for letter, right in (("r", READ), ("w", WRITE), ("x", EXECUTE))
    )
