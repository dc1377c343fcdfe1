"""World switches by breakpoints on EL2's vectors: slow, but for any stub, and with every register."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from gdbhyp.errors import NoTarget
from gdbhyp.plugin.vectors import KINDS, Hit, vectors
from gdbhyp.trace.events import EC_HVC64, EC_SMC64, SERROR, SYNC, Returned, Taken
from gdbhyp.trace.ring import Recording

if TYPE_CHECKING:
    from gdbhyp.engine.stop import Stop

# HVC32, HVC64, SMC32, SMC64: x0 is worth a packet. The classes that set FAR_EL2, and HPFAR_EL2.
_CALLS = frozenset((0x12, EC_HVC64, 0x13, EC_SMC64))
_WITH_FAR = frozenset((0x20, 0x21, 0x22, 0x24, 0x25, 0x34, 0x35))
_WITH_HPFAR = frozenset((0x20, 0x24))

_NO_ERETS = (
    "no ERET was found near the vectors, so if a guest runs with another VBAR_EL2 its exits are missed: stop once "
    "while it runs, or give --vector"
)


class BreakSource:
    """The recording by breakpoints. ``fail(reason)`` is called once if it cannot go on.

    :raises NoTarget: if the vectors of EL2 cannot be found.
    """

    name = "break"
    failure: str | None = None
    kinds = frozenset(KINDS)
    commands = None
    guests_only = False

    def __init__(
        self,
        recording: Recording,
        fail: Callable[[str], None],
        stop: Stop,
        bases: Iterable[int],
        *,
        returns: bool,
    ) -> None:
        self.recording = recording
        self.returns = returns
        self._fail = fail
        self._seq = 0
        self._vectors = vectors()
        self._false_before = 0
        try:
            self._vectors.join(self, stop, bases)
        except NoTarget as error:
            raise NoTarget(f"{error}, name them with --vector, or use --source log") from None
        self._false_before = self._vectors.false_hits

    @property
    def notes(self) -> list[str]:
        """What a person has to know, in sentences."""
        if not self._vectors.bases:
            return []
        notes = [] if self._vectors.erets else [_NO_ERETS]
        return [*notes, *self._vectors.notes]

    @property
    def vectors(self) -> tuple[int, ...]:
        """The vector bases that are watched, ascending."""
        return self._vectors.bases

    @property
    def watched(self) -> tuple[int, ...]:
        """The ERET instructions that are watched, ascending."""
        return self._vectors.watched_erets

    @property
    def false_hits(self) -> int:
        """How many stops were outside EL2."""
        return self._vectors.false_hits - self._false_before

    def taken(self, hit: Hit) -> bool:
        """Record an exception."""
        self.recording.add(self._exception(hit))
        return False

    def returned(self, hit: Hit) -> bool:
        """Record a return."""
        self.recording.add(self._return(hit))
        return False

    def stopped(self) -> None:
        """A recording never stops for the person."""

    def failed(self, reason: str) -> None:
        """End the recording."""
        self._fail(reason)

    def catch_up(self) -> None:
        """Everything is recorded when it happens."""

    def at_stop(self) -> None:
        """The breakpoints look after themselves."""

    def at_resume(self) -> None:
        """Nothing is to be done."""

    def at_prompt(self) -> None:
        """The breakpoints look after themselves."""

    def close(self) -> None:
        """Take all breakpoints away that nobody else wants."""
        self._vectors.leave(self)

    def _exception(self, hit: Hit) -> Taken:
        get = hit.get
        now = time.monotonic_ns()
        vttbr = get("VTTBR_EL2")
        esr = get("ESR_EL2") if hit.kind in (SYNC, SERROR) else None
        ec = None if esr is None or hit.kind != SYNC else esr >> 26 & 0x3F
        event = Taken(
            seq=self._seq,
            cpu=hit.cpu,
            vector=hit.address,
            from_el=hit.saved_el,
            time=now,
            esr=esr,
            far=get("FAR_EL2") if ec in _WITH_FAR else None,
            hpfar=get("HPFAR_EL2") if ec in _WITH_HPFAR else None,
            elr=get("ELR_EL2"),
            spsr=get("SPSR_EL2"),
            # Without a stage-2 root it was the host, and HCR_EL2 is not worth a packet.
            hcr=get("HCR_EL2") if vttbr else None,
            vttbr=vttbr,
            vtcr=hit.vtcr,
            x0=get("X0") if ec in _CALLS else None,
        )
        self._seq += 1
        return event

    def _return(self, hit: Hit) -> Returned:
        get = hit.get
        event = Returned(
            seq=self._seq,
            cpu=hit.cpu,
            to_el=hit.saved_el,
            pc=get("ELR_EL2"),
            time=time.monotonic_ns(),
            hcr=get("HCR_EL2"),
            vttbr=get("VTTBR_EL2"),
            vtcr=hit.vtcr,
            vector_base=get("VBAR_EL2"),
        )
        self._seq += 1
        return event
