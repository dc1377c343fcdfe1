"""How long who ran, and how long exits took: from events that have a time.

The time between two events of a CPU belongs to who ran in between: below EL2 the world that EL2 had returned to, in EL2
the hypervisor, on behalf of whom it was entered from. An exit is handled when its CPU enters the same guest again (what
``perf kvm stat`` measures, sleep included); a host's call is, when EL2 is left, unless EL2 is that host (VHE).
"""

from __future__ import annotations

from gdbhyp.trace.worlds import Party

_PRECISION = 7
"""Durations are told apart to this many bits after the first, for the percentile: better than 1 %."""

ExitKey = tuple[Party, int | None, int]
"""A row of exits: who, the exception class, and the kind of exception."""


class Spread:
    """Durations in nanoseconds, in bounded memory: their number, sum, least, greatest, and percentiles."""

    __slots__ = ("_buckets", "count", "least", "most", "total")

    def __init__(self) -> None:
        self.count = self.total = self.most = 0
        self.least = 1 << 64
        self._buckets: dict[int, int] = {}

    def add(self, duration: int) -> None:
        """Count one duration."""
        self.count += 1
        self.total += duration
        if duration > self.most:
            self.most = duration
        if duration < self.least:
            self.least = duration
        shift = duration.bit_length() - _PRECISION - 1
        bucket = duration >> shift << shift if shift > 0 else duration
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    def merge(self, other: Spread) -> None:
        """Count all durations of another spread as well."""
        self.count += other.count
        self.total += other.total
        self.most = max(self.most, other.most)
        self.least = min(self.least, other.least)
        for bucket, count in other._buckets.items():
            self._buckets[bucket] = self._buckets.get(bucket, 0) + count

    def percentile(self, percent: int) -> int:
        """Return the duration that so many percent do not exceed, rounded down to the bits that are kept."""
        wanted = -(-self.count * percent // 100)
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= wanted:
                return max(bucket, self.least)
        return self.most


class _Cpu:
    """What one CPU does since when, and what it has to finish."""

    __slots__ = ("call", "called", "exit", "exited", "handed_over", "since", "who")

    def __init__(self) -> None:
        self.since: int | None = None
        self.who: tuple[Party, bool] | None = None
        self.exit: ExitKey | None = None
        self.exited = 0
        self.handed_over = False
        self.call: ExitKey | None = None
        self.called = 0


class Times:
    """Adds up the time of all CPUs.

    ``spent`` is by who: a party below EL2, or with True EL2 on its behalf. ``handled`` is by row of exits. ``entries``
    counts the returns to each, ``handed_over`` how often an exit of a guest was not settled in EL2: the CPU went on in
    a host.
    """

    def __init__(self) -> None:
        self.spent: dict[tuple[Party, bool], int] = {}
        self.handled: dict[ExitKey, Spread] = {}
        self.entries: dict[Party, int] = {}
        self.handed_over: dict[Party, int] = {}
        self._cpus: dict[int, _Cpu] = {}

    def taken(self, number: int, time: int, from_el: int, key: ExitKey, *, vhe: bool) -> None:
        """An exception was taken to EL2, which ``key`` says of whom and why; with ``vhe``, EL2 is the host."""
        cpu = self._cpus.get(number)
        if cpu is None:
            cpu = self._cpus[number] = _Cpu()
        if from_el == 2:
            # EL2 goes on, on behalf of whom it did.
            return
        if cpu.who is not None and cpu.who[1]:
            # It was in EL2 already: a return was not recorded, so nobody knows when it left, and for whom.
            cpu.who = cpu.exit = cpu.call = None
        self._pass(cpu, time)
        party = key[0]
        cpu.who = (party, True)
        if party.world == "guest":
            cpu.exit, cpu.exited, cpu.handed_over = key, time, False
        elif not vhe:
            cpu.call, cpu.called = key, time

    def returned(self, number: int, time: int, to_el: int, below: Party | None) -> None:
        """EL2 was left for ``below``; None if it is not known whom."""
        cpu = self._cpus.get(number)
        if cpu is None:
            cpu = self._cpus[number] = _Cpu()
        if to_el == 2:
            return
        self._pass(cpu, time)
        cpu.who = None if below is None else (below, False)
        if cpu.call is not None:
            self._done(cpu.call, time - cpu.called)
            cpu.call = None
        if below is None:
            return
        self.entries[below] = self.entries.get(below, 0) + 1
        exit_ = cpu.exit
        if exit_ is None:
            return
        if below.world == "guest":
            if exit_[0] == below:
                self._done(exit_, time - cpu.exited)
            cpu.exit, cpu.handed_over = None, False
        elif not cpu.handed_over:
            cpu.handed_over = True
            self.handed_over[exit_[0]] = self.handed_over.get(exit_[0], 0) + 1

    def lost(self, number: int | None) -> None:
        """Events of a CPU, or of any, are missing: what it did is not known until its next event."""
        if number is None:
            self._cpus.clear()
        else:
            self._cpus.pop(number, None)

    def _pass(self, cpu: _Cpu, time: int) -> None:
        since, cpu.since = cpu.since, time
        if since is not None and cpu.who is not None and time > since:
            self.spent[cpu.who] = self.spent.get(cpu.who, 0) + time - since

    def _done(self, key: ExitKey, duration: int) -> None:
        spread = self.handled.get(key)
        if spread is None:
            spread = self.handled[key] = Spread()
        spread.add(max(duration, 0))
