"""What a recording inside a debugger is doing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gdbhyp.arch.spaces import VA
from gdbhyp.arch.worlds import World


@dataclass(frozen=True)
class TraceStatus:
    """Whether and what is recorded.

    ``why`` says why this source was chosen. ``ended`` says why a recording is over, None while it runs. ``dropped``
    events are known to be missing, ``overwritten`` ones were recorded and gave way to newer ones (statistics still
    count them). ``vectors`` are the vector bases and ``returns`` the ERET instructions at which the breakpoint source
    stops the CPU; ``false_hits`` were at the same addresses of another exception level. ``per_second`` is the rate of
    events between the first and the last.
    """

    kind: ClassVar[str] = "trace_status"

    running: bool
    source: str
    why: str
    ended: str | None
    events: int
    exceptions: int
    world_switches: int
    dropped: int
    overwritten: int
    per_second: float | None
    vectors: tuple[VA, ...]
    returns: tuple[VA, ...]
    false_hits: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class SaveReport:
    """A recording that was written to a file."""

    kind: ClassVar[str] = "trace_save"

    path: str
    events: int
    dropped: int


@dataclass(frozen=True)
class FollowRow:
    """What happened in one interval, which ends ``seconds`` after the beginning.

    ``exceptions`` and ``switches`` are those of the interval, ``total`` counts exceptions from the start of the
    recording; ``exits`` are the most frequent reasons of the interval.
    """

    seconds: float
    exceptions: int
    per_second: float
    switches: int
    total: int
    dropped: int
    exits: tuple[FollowExit, ...]


@dataclass(frozen=True)
class FollowExit:
    """One reason for exits in an interval."""

    world: World
    vmid: int | None
    ec: int | None
    name: str
    count: int


@dataclass(frozen=True)
class FollowReport:
    """A machine that ran while its exits were counted; a JSON line an interval. ``stopped`` says why it stands."""

    kind: ClassVar[str] = "trace_follow"
    json_lines: ClassVar[bool] = True

    rows: tuple[FollowRow, ...]
    stopped: str


@dataclass(frozen=True)
class StartOptions:
    """How to record: ``capacity`` events are kept; ``vectors`` are vector bases to watch besides those found.

    ``returns`` asks the breakpoint source to stop at returns from EL2 as well. ``vmid``, ``cpus`` and ``classes``
    (ESR_EL2.EC) are what the TCG plugin is to record, None is all.
    """

    source: str
    capacity: int
    vectors: tuple[int, ...] = ()
    returns: bool = False
    vmid: int | None = None
    cpus: frozenset[int] | None = None
    classes: frozenset[int] | None = None

    @property
    def filtered(self) -> bool:
        """Whether not everything is to be recorded."""
        return (self.vmid, self.cpus, self.classes) != (None, None, None)
