"""Refault storms: a guest that faults again and again at the same place without getting anywhere.

That is what happens when a hypervisor cannot resolve a fault (the IPA was not found, the mapping was made for another
VM) and resumes the guest all the same. A device that is polled looks alike but is none: there EL2 returns *behind* the
instruction. So only faults count to which the CPU had returned exactly at the faulting instruction, which needs returns
to be recorded. One instruction may have to fault for each table of its stage-1 walk: that is progress, which HPFAR_EL2
shows; where it was not recorded, more faults are needed.
"""

from __future__ import annotations

from dataclasses import dataclass

from gdbhyp.arch.spaces import VA, Word
from gdbhyp.arch.worlds import World
from gdbhyp.trace.events import EC_DABT_LOWER, EC_IABT_LOWER, Returned, Taken
from gdbhyp.trace.worlds import Party

LEAST = 3
"""So many faults in a row are a storm: two have good reasons, a translation and then a permission."""

LEAST_ON_WALKS = 7
"""The same on stage-1 walks where nothing says which table faulted: a walk has at most five, and a last permission."""

_S1PTW = 1 << 7

_MOST = 1024
_SHOWN = 10


@dataclass(frozen=True)
class StormRow:
    """The same instruction of a CPU's guest faulted at the same address: ``faults`` times in ``runs`` storms.

    ``longest`` is the longest run of faults without progress, ``per_second`` how often it faulted during the runs,
    None where the source has no time.
    """

    world: World
    vmid: int | None
    cpu: int
    pc: VA
    far: VA
    esr: Word
    faults: int
    runs: int
    longest: int
    per_second: float | None


Key = tuple[Party, int, int, int]
"""Whose fault, its PC, FAR_EL2 and ESR_EL2."""


class _Run:
    """The faults that a CPU's guest has made in a row, the first of them at ``began``."""

    __slots__ = ("began", "key", "length", "table")

    def __init__(self, key: Key, table: int | None, began: int | None) -> None:
        self.key = key
        self.table = table
        self.began = began
        self.length = 1


class _Storm:
    """What is known of the storms at one place."""

    __slots__ = ("faults", "longest", "nanoseconds", "runs")

    def __init__(self) -> None:
        self.faults = self.runs = self.longest = 0
        self.nanoseconds = 0


class Storms:
    """Watches the exceptions of all CPUs."""

    def __init__(self) -> None:
        self._runs: dict[int, _Run] = {}
        self._found: dict[tuple[int, Key], _Storm] = {}

    def add(self, event: Taken, ec: int | None, party: Party, came_by: Returned | None) -> None:
        """Look at a guest's exception of class ``ec``; ``came_by`` is how the CPU had left EL2 before, if known."""
        if ec not in (EC_DABT_LOWER, EC_IABT_LOWER) or event.elr is None or event.far is None:
            self._runs.pop(event.cpu, None)
            return
        esr = event.esr or 0
        key = (party, event.elr, event.far, esr)
        table = event.hpfar if esr & _S1PTW else None
        run = self._runs.get(event.cpu)
        if run is None or (run.key, run.table) != (key, table) or came_by is None or came_by.pc != event.elr:
            self._runs[event.cpu] = _Run(key, table, event.time)
            return
        run.length += 1
        least = LEAST_ON_WALKS if esr & _S1PTW and table is None else LEAST
        if run.length >= least:
            self._storm(event, run, least)

    def _storm(self, event: Taken, run: _Run, least: int) -> None:
        storm = self._found.get((event.cpu, run.key))
        if storm is None:
            if len(self._found) >= _MOST:
                return
            storm = self._found[event.cpu, run.key] = _Storm()
        begins = run.length == least
        storm.faults += least if begins else 1
        storm.runs += begins
        storm.longest = max(storm.longest, run.length)
        if event.time is not None and run.began is not None:
            # All of the run when it is found to be a storm; then from one fault to the next.
            storm.nanoseconds += event.time - run.began
            run.began = event.time

    def rows(self) -> tuple[StormRow, ...]:
        """Return the storms, those with most faults first."""
        ordered = sorted(self._found.items(), key=lambda item: -item[1].faults)[:_SHOWN]
        return tuple(_row(cpu, key, storm) for (cpu, key), storm in ordered)


def _row(cpu: int, key: Key, storm: _Storm) -> StormRow:
    party, pc, far, esr = key
    # The first fault of a run begins its time.
    rate = round((storm.faults - storm.runs) * 1e9 / storm.nanoseconds, 1) if storm.nanoseconds > 0 else None
    return StormRow(*party, cpu, VA(pc), VA(far), Word(esr), storm.faults, storm.runs, storm.longest, rate)
