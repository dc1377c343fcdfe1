"""What a translation yields: the whole walk, and an output address or an architectural fault, as values.

Addresses carry their space in their type (VA, IPA, PA) or, where it varies, in a field beside them.
"""

from __future__ import annotations

from dataclasses import dataclass

from gdbhyp.arch.regimes import Regime
from gdbhyp.arch.spaces import IPA, Address, Word


@dataclass(frozen=True, slots=True)
class Access:
    """An access to judge permissions for.

    ``kind`` is "read", "write" or "execute"; ``el`` is the Exception level whose permissions apply (0 to 3);
    ``pan`` says that PSTATE.PAN restricts it, as it does ordinary privileged loads and stores but not AT
    S1E1R.
    """

    kind: str = "read"
    el: int = 1
    pan: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One descriptor fetch.

    ``table`` and ``descriptor_address`` are addresses of ``table_space`` ("PA", or "IPA" for a stage-1 table
    of the EL1&0 regime with stage 2 on); ``index`` counts descriptors from ``table``; ``kind`` is "table",
    "block", "page" or "invalid"; ``output`` is the next table or the mapped address as the descriptor gives
    it, None when invalid. ``nested`` are the stage-2 steps that found this stage-1 descriptor in memory.
    """

    stage: int
    level: int
    table: Address
    table_space: str
    index: int
    descriptor_address: Address
    descriptor: Word
    kind: str
    output: Address | None
    note: str = ""
    nested: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class Fault:
    """An MMU fault, as the processor would report it.

    ``kind`` is "translation", "access_flag", "permission", "address_size", "external_abort" (on the walk) or
    "granule_protection"; ``level`` is -1 to 3; ``s1ptw`` says that stage 2 faulted on a stage-1 table walk;
    ``fst`` is the status code as in PAR_EL1.FST, ESR_ELx.xFSC. ``ipa`` is the IPA that stage 2 was asked for,
    None for a stage-1 fault. ``address`` is the physical address of the descriptor that could not be read.
    ``esr_el2``, ``far_el2`` and ``hpfar_el2`` are what these registers would hold had the access been made
    and the fault taken to EL2; ``hpfar_el2`` is None when the architecture leaves it UNKNOWN (``hpfar_valid``
    is False), ``far_el2`` for stage 2 on its own, where there is no VA. ``dirty_bit``, ``overlay``,
    ``top_level`` and ``assured_only`` qualify permission faults as ESR_ELx.ISS2 does.
    """

    kind: str
    stage: int
    level: int
    s1ptw: bool
    fst: int
    ipa: IPA | None
    address: Address | None
    text: str
    esr_el2: Word
    far_el2: Word | None
    hpfar_el2: Word | None
    hpfar_valid: bool
    dirty_bit: bool = False
    overlay: bool = False
    top_level: bool = False
    assured_only: bool = False


@dataclass(frozen=True, slots=True)
class Permissions:
    """What the mapping allows, over the stages asked for.

    ``read``, ``write`` and ``execute`` are the privileged ones (EL1, or the regime's own EL), the ``el0_``
    ones the unprivileged ones, None in a regime without EL0. PSTATE.PAN is not part of them. ``text`` is
    "rw-/r-x" like.
    """

    read: bool
    write: bool
    execute: bool
    el0_read: bool | None
    el0_write: bool | None
    el0_execute: bool | None
    text: str


@dataclass(frozen=True, slots=True)
class Attributes:
    """The memory type in words, the same as a MAIR_ELx attribute byte, and the shareability in words."""

    memory: str
    attr: int
    shareability: str


@dataclass(frozen=True, slots=True)
class Translation:
    """One translation: ``input`` of ``input_space`` ("VA" or "IPA") to ``output`` of ``output_space``.

    ``ipa`` is the intermediate address where stage 2 was walked after stage 1. ``output`` is None exactly
    when ``fault`` is not. ``level`` is the level of the last leaf, ``page_size`` the size in bytes of the
    smallest block or page over both stages (0 when translation is off), ``contiguous`` the contiguous bit of
    the last stage. ``space`` is the physical address space of the output, ``ns`` the same as one bit.
    """

    input: Address
    input_space: str
    output: Address | None
    output_space: str
    ipa: IPA | None
    regime: Regime
    stages: str
    fault: Fault | None
    steps: tuple[Step, ...]
    permissions: Permissions | None
    attributes: Attributes | None
    level: int | None
    page_size: int
    contiguous: bool
    space: str
    ns: bool
    asid: int | None
    vmid: int | None
