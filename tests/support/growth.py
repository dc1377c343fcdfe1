"""Whether a process grows while the same thing is done over and over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Growth:
    """Resident KiB of a process after the first ``warm_up`` rounds, half-way and at the end; what a round added.

    What is loaded once is a step in one half; what piles up is in both.
    """

    rounds: int
    before: int
    middle: int
    after: int

    @property
    def a_round(self) -> float:
        """KiB that a round added."""
        return (self.after - self.before) / self.rounds


def resident(pid: int) -> int:
    """Return the resident memory of a process in KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1])


def growth(pid: int, action: Callable[[], object], rounds: int, warm_up: int) -> Growth:
    """Do ``action`` and measure process ``pid``; what the first rounds load once does not count."""
    for _ in range(warm_up):
        action()
    before = middle = resident(pid)
    for number in range(rounds):
        if number == rounds // 2:
            middle = resident(pid)
        action()
    return Growth(rounds, before, middle, resident(pid))
