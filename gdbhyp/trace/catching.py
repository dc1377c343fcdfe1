"""Which exits and entries somebody waits for, decided with as few registers as possible.

Each register of a live CPU costs a packet, so what costs nothing is looked at first: the vector says the kind of the
exception, ESR_EL2 its class, and only what is left is asked whose it is and where it faulted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from gdbhyp.arch import smccc
from gdbhyp.arch.spaces import VA
from gdbhyp.arch.worlds import World
from gdbhyp.errors import UsageError
from gdbhyp.trace.events import SERROR, SYNC
from gdbhyp.trace.listing import INTERRUPTS, REASONS
from gdbhyp.trace.statistics import syndrome_of
from gdbhyp.trace.worlds import Party

ANY = ("exit", "vmid")
ENTRY = "enter"
KINDS = (
    "dabt",
    "iabt",
    "sysreg",
    "hvc",
    "smc",
    "wfx",
    "fp",
    "svc",
    "irq",
    "fiq",
    "serror",
    "ec",
    *ANY,
    ENTRY,
)
"""What can be waited for: an exception class by its common word or number, an interrupt, any exit, or an entry."""

_HVC64 = 0x16
_PAGE = 0xFFF

Range = tuple[int, int]
"""First and last address, both included."""


class Occasion(Protocol):
    """A CPU at a vector of EL2, or at an ERET of EL2."""

    cpu: int

    def get(self, name: str, /) -> int | None:
        """Return a register, None if it is not shown."""
        ...

    @property
    def kind(self) -> int: ...

    @property
    def saved_el(self) -> int: ...

    @property
    def party(self) -> Party:
        """Who was interrupted below EL2, or is about to be entered."""
        ...

    def walked_ipa(self) -> int | None:
        """Return where stage 1 of the interrupted world leads FAR_EL2, None where it leads nowhere."""
        ...


@dataclass(frozen=True)
class Wanted:
    """What is waited for; an item that is None does not matter.

    ``what`` is one of ``KINDS``, ``detail`` what it was given: a register, a call, a class, a VMID. ``write`` is the
    direction of an abort or of a register's access.
    """

    what: str
    detail: str = ""
    world: World | None = "guest"
    vmid: int | None = None
    cpu: int | None = None
    write: bool | None = None
    ipa: Range | None = None
    pc: Range | None = None
    ec: int | None = None
    register: str | None = None
    call: int | str | None = None
    immediate: int | None = None

    _WORDS: ClassVar[dict[bool, str]] = {True: "--write", False: "--read"}

    @property
    def entry(self) -> bool:
        """Whether an entry is waited for, not an exit."""
        return self.what == ENTRY

    @property
    def kinds(self) -> frozenset[int]:
        """The kinds of exceptions, SYNC to SERROR, among which it can be."""
        if self.entry:
            return frozenset()
        if self.what in ANY:
            return frozenset((SYNC, *INTERRUPTS.values()))
        if self.what in INTERRUPTS:
            return frozenset((INTERRUPTS[self.what],))
        return frozenset((SYNC, SERROR)) if self.ec == 0x2F else frozenset((SYNC,))

    @property
    def words(self) -> str:
        """The command that waits for the same."""
        parts = ["hyp-catch", self.what, self.detail]
        if self.world != "guest":
            parts.append(f"--world {self.world or 'any'}")
        if self.vmid is not None and self.what != "vmid":
            parts.append(f"--vmid {self.vmid}")
        if self.cpu is not None:
            parts.append(f"--cpu {self.cpu}")
        if self.ipa is not None:
            parts.append(f"--ipa {_range_text(self.ipa)}")
        if self.pc is not None:
            parts.append(f"--pc {_range_text(self.pc)}")
        if self.write is not None:
            parts.append(self._WORDS[self.write])
        return " ".join(filter(None, parts))

    def matches(self, at: Occasion) -> bool:
        """Return whether this is it."""
        if self.cpu is not None and at.cpu != self.cpu:
            return False
        if self.entry:
            return at.saved_el < 2 and self._is_party(at.party) and self._is_pc(at)
        return self._is_reason(at) and self._is_party(at.party) and self._is_pc(at) and self._is_ipa(at)

    def _is_reason(self, at: Occasion) -> bool:
        if at.kind not in self.kinds:
            return False
        ecs = frozenset((self.ec,)) if self.ec is not None else REASONS.get(self.what)
        if ecs is None and self.write is None:
            return True
        # For an interrupt, ESR_EL2 is of an older exception.
        esr = at.get("ESR_EL2") if at.kind in (SYNC, SERROR) else None
        if esr is None or (ecs is not None and esr >> 26 & 0x3F not in ecs):
            return False
        return self._is_access(esr) and self._is_call(esr, at)

    def _is_access(self, esr: int) -> bool:
        if self.write is None and self.register is None:
            return True
        syndrome = syndrome_of(esr)
        if self.register is not None and (syndrome.system_register or "").upper() != self.register:
            return False
        if self.write is None:
            return True
        if syndrome.abort is not None:
            return syndrome.abort.access == ("write" if self.write else "read")
        # Bit 0 of a trapped access, Direction: 1 is a read.
        return syndrome.system_register is not None and bool(esr & 1) != self.write

    def _is_call(self, esr: int, at: Occasion) -> bool:
        if self.immediate is not None:
            return esr & 0xFFFF == self.immediate
        if self.call is None:
            return True
        x0 = at.get("X0")
        if x0 is None:
            return False
        if isinstance(self.call, int):
            return x0 == self.call or x0 & 0xFFFF_FFFF == self.call
        hvc = esr >> 26 & 0x3F == _HVC64
        guest = {"guest": True, "host": False}.get(at.party.world)
        name = smccc.call_name(esr & 0xFFFF, x0, hvc=hvc, guest=guest) or ""
        return self.call.upper() in (name.upper(), name.upper().removesuffix(" (SMC64)"))

    def _is_party(self, party: Party) -> bool:
        return self.world in (None, party.world) and self.vmid in (None, party.vmid)

    def _is_pc(self, at: Occasion) -> bool:
        if self.pc is None:
            return True
        elr = at.get("ELR_EL2")
        return elr is not None and self.pc[0] <= elr <= self.pc[1]

    def _is_ipa(self, at: Occasion) -> bool:
        if self.ipa is None:
            return True
        found = faulting_ipa(at)
        return found is not None and found[0] <= self.ipa[1] and self.ipa[0] <= found[1]


def faulting_ipa(at: Occasion) -> Range | None:
    """Return the faulting IPA, as a range where only its page is known; None if there is none or it cannot be told."""
    esr = at.get("ESR_EL2") if at.kind == SYNC else None
    abort = None if esr is None else syndrome_of(esr).abort
    if abort is None:
        return None
    far, hpfar = at.get("FAR_EL2"), at.get("HPFAR_EL2")
    if far is None:
        return None
    if abort.hpfar_valid and hpfar is not None:
        page = (hpfar & 0xFFFF_FFFF_FFF0) << 8
        if abort.s1ptw or abort.fnv:
            return page, page | _PAGE
        return page | far & _PAGE, page | far & _PAGE
    if (abort.kind, abort.s1ptw, abort.fnv) != ("permission", False, False):
        return None
    walked = at.walked_ipa()
    return None if walked is None else (walked, walked)


def check(wanted: Wanted) -> Wanted:
    """Return ``wanted``, if it can ever happen.

    :raises UsageError: if its items do not go together.
    """
    aborts = wanted.what in ("dabt", "iabt", "exit", "vmid", "ec")
    if wanted.ipa is not None and not aborts:
        raise UsageError(f"only aborts have an IPA: --ipa does not go with '{wanted.what}'")
    if wanted.write is not None and wanted.what not in ("dabt", "sysreg", "exit", "vmid", "ec"):
        raise UsageError(f"--read and --write do not go with '{wanted.what}', but with dabt and sysreg")
    if wanted.vmid is not None and wanted.world not in ("guest", None):
        raise UsageError(f"only a guest has a VMID: --vmid does not go with --world {wanted.world}")
    return wanted


def _range_text(addresses: Range) -> str:
    first, last = addresses
    return f"{first:#x}" if first == last else f"{first:#x}-{last:#x}"


@dataclass(frozen=True)
class CatchRow:
    """One catch: ``number`` is GDB's breakpoint number, ``hits`` counts those that matched, ``ignore`` are to be left
    out before the next stop."""

    number: int
    words: str
    condition: str | None
    enabled: bool
    temporary: bool
    hits: int
    ignore: int


@dataclass(frozen=True)
class CatchReport:
    """The catches that there are, or the one that was made; ``vectors`` are the vector bases that are watched."""

    kind: ClassVar[str] = "catch"

    made: bool
    catches: tuple[CatchRow, ...]
    vectors: tuple[VA, ...]
    notes: tuple[str, ...]
