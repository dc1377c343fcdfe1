"""Refault storms: a guest that faults again and again at the same place without getting anywhere.

That is what happens when a hypervisor cannot resolve a fault (the IPA was not found, the mapping was made for another
VM) and resumes the guest all the same. A device that is polled looks alike but is none: there EL2 returns *behind* the
instruction. So only faults count to which the CPU had returned exactly at the faulting instruction, which needs returns
to be recorded.
"""

from __future__ import annotations

from dataclasses import dataclass

from gdbhyp.arch.spaces import VA, Word
from gdbhyp.arch.worlds import World
from gdbhyp.trace.events import EC_DABT_LOWER, EC_IABT_LOWER, Returned, Taken
from gdbhyp.trace.worlds import Party

LEAST = 3
"""So many faults in a row are a storm: two have good reasons, a translation and then a permission."""

_MOST = 1024
_SHOWN = 10


@dataclass(frozen=True)
class StormRow:
    """The same instruction of a CPU's guest faulted at the same address: ``faults`` times in ``runs`` storms.

    ``longest`` is the longest run of faults without progress.
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


class _Run:
    """The faults that a CPU's guest has made in a row."""

    __slots__ = ("key", "length")

    def __init__(self, key: tuple[Party, int, int, int]) -> None:
        self.key = key
        self.length = 1


class Storms:
    """Watches the exceptions of all CPUs."""

    def __init__(self) -> None:
        self._runs: dict[int, _Run] = {}
        self._found: dict[tuple[int, tuple[Party, int, int, int]], list[int]] = {}

    def add(self, event: Taken, ec: int | None, party: Party, came_by: Returned | None) -> None:
        """Look at a guest's exception of class ``ec``; ``came_by`` is how the CPU had left EL2 before, if known."""
        if ec not in (EC_DABT_LOWER, EC_IABT_LOWER) or event.elr is None or event.far is None:
            self._runs.pop(event.cpu, None)
            return
        key = (party, event.elr, event.far, event.esr or 0)
        run = self._runs.get(event.cpu)
        if run is None or run.key != key or came_by is None or came_by.pc != event.elr:
            self._runs[event.cpu] = _Run(key)
            return
        run.length += 1
        if run.length >= LEAST:
            self._storm(event.cpu, run)

    def _storm(self, cpu: int, run: _Run) -> None:
        found = self._found.get((cpu, run.key))
        if found is None:
            if len(self._found) >= _MOST:
                return
            found = self._found[cpu, run.key] = [0, 0, 0]
        begins = run.length == LEAST
        found[0] += LEAST if begins else 1
        found[1] += begins
        found[2] = max(found[2], run.length)

    def rows(self) -> tuple[StormRow, ...]:
        """Return the storms, those with most faults first."""
        ordered = sorted(self._found.items(), key=lambda item: -item[1][0])[:_SHOWN]
        return tuple(
            StormRow(*party, cpu, VA(pc), VA(far), Word(esr), *counts)
            for (cpu, (party, pc, far, esr)), counts in ordered
        )
