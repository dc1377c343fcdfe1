"""Whose world each exception interrupted, and when worlds changed.

With HCR_EL2 and VTTBR_EL2 in the event there is nothing to guess: the registers say it (``party_below``). A log that
has neither is read by these rules, each of which is a deduction and is called one in what is reported:

* What runs first below EL2 is the host.
* A host that calls EL2 (HVC) and does not get control back at the call's return address has started a guest. The guest
  runs until EL2 returns to that address. This holds for KVM's nVHE modes and for any hypervisor of their kind.
* An SVC that is taken to EL2, or an HVC that comes back at EL2, shows a host that *is* EL2 (VHE). Then whatever comes
  from EL1 is a guest.
* Vector bases that have been seen with one of both are evidence from then on, and so are pages of code.
* Where all of that is silent, as at the start of a log that begins in the middle: a WFI, a system register access or
  an interrupt is not taken to EL2 from a host that runs at EL1, so it was a guest's.
* A Xen hypercall (HVC #0xEA1) shows Xen, under which there is no host: all domains are guests.

A return does not say its CPU. If it goes exactly where one CPU in EL2 has to go on, it is that CPU's. Otherwise it is
kept, and claimed when a CPU that was in EL2 takes its next exception from below: the nearest that fits is this CPU's.
If there was a choice, what the return implies is believed only where vector bases and pages do not know better. A
return that no CPU known to be in EL2 can have made is a CPU's first.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, cast, get_args

from gdbhyp.arch import smccc
from gdbhyp.arch.worlds import Hcr, World, vmid_of, world_below
from gdbhyp.trace.events import (
    EC_HVC64,
    EC_SVC64,
    EC_SYS64,
    EC_WFX,
    FIQ,
    IRQ,
    Event,
    Lost,
    Returned,
    State,
    Taken,
)

WORLDS: tuple[str, ...] = get_args(World)

_MOST_PAGES = 1 << 14
_MOST_RETURNS = 64
_SYNC_LOWER = 0x400


class Party(NamedTuple):
    """Who was interrupted: a world, and its VMID where VTTBR_EL2 was recorded."""

    world: World
    vmid: int | None = None


HOST, HYPERVISOR, GUEST, UNKNOWN = Party("host"), Party("hypervisor"), Party("guest"), Party("unknown")


@lru_cache(maxsize=1024)
def is_host_at_el2(hcr: int) -> bool:
    """Return whether EL2 is the host (VHE) with this HCR_EL2."""
    return Hcr(hcr).el2_is_host


@lru_cache(maxsize=4096)
def party_below(hcr: int, vttbr: int, vtcr: int | None) -> Party:
    """Return who runs below EL2 with these registers; the rules are those of ``hyp-status``."""
    world, _ = world_below(Hcr(hcr), vttbr, vtcr)
    return Party(world, vmid_of(vttbr, vtcr)) if world == "guest" else HOST


def party_by_registers(event: Taken) -> Party | None:
    """Return whom the exception interrupted as its registers tell it, None if they were not recorded."""
    if event.world is not None:
        return Party(cast(World, event.world), event.vmid)
    if event.vttbr is None and event.hcr is None:
        return None
    if event.from_el == 2:
        return HOST if event.hcr is not None and is_host_at_el2(event.hcr) else HYPERVISOR
    if event.vttbr == 0:
        return HOST
    if event.hcr is None or event.vttbr is None:
        return UNKNOWN
    return party_below(event.hcr, event.vttbr, event.vtcr)


def _below(state: State) -> Party | None:
    """Return who runs below EL2, or ran there last, None where the registers that say so are not known."""
    if state.hcr is None or state.vttbr is None:
        return None
    return GUEST if party_below(state.hcr, state.vttbr, state.vtcr).world == "guest" else HOST


class _Cpu:
    """What is known of one CPU between two events.

    ``below`` runs, or ran last, below EL2; ``outstanding`` is the return address of the call by which a host started
    the guest that runs now. ``certain`` is False once a choice was made on the way.
    """

    __slots__ = ("below", "certain", "depth", "in_el2", "last", "last_party", "left", "outstanding")

    def __init__(self) -> None:
        self.in_el2 = True
        self.below: Party | None = None
        self.certain = True
        self.depth = 0
        self.last: Taken | None = None
        self.last_party: Party | None = None
        self.outstanding: int | None = None
        self.left: Returned | None = None

    def goes_on_at(self, pc: int | None) -> bool:
        """Return whether a return to ``pc`` ends this CPU's last exception, or its host's call."""
        if self.last is None or pc is None:
            return False
        elr = self.last.elr
        return pc == self.outstanding or (elr is not None and (pc == elr or pc == elr + 4))

    def may_go_anywhere(self) -> bool:
        """Return whether this CPU may be about to start a guest, at a place that nothing has announced."""
        return self.last is None or (self.outstanding is None and self.last.ec == EC_HVC64)

    def forget(self) -> None:
        """Start again: events are missing."""
        self.below = self.last_party = self.outstanding = None
        self.certain = True


class _Kept:
    """A return of which the CPU is not known yet; ``doubtful`` once another return was claimed in its place."""

    __slots__ = ("doubtful", "event", "pc", "seq")

    def __init__(self, event: Returned) -> None:
        self.event = event
        self.seq = event.seq
        self.pc = event.pc
        self.doubtful = False


class _Evidence:
    """Whom keys (vector bases, pages) have been seen with; an answer only where it was nearly always the same."""

    _CLEAR = 8
    _OFTEN = 64

    def __init__(self, most: int) -> None:
        self._seen: dict[int, list[int]] = {}
        self._most = most

    def learn(self, key: int, party: Party) -> None:
        tally = self._seen.get(key)
        if tally is None:
            if len(self._seen) >= self._most:
                return
            tally = self._seen[key] = [0, 0]
        tally[party is GUEST] += 1

    def get(self, key: int) -> Party | None:
        tally = self._seen.get(key)
        if tally is None:
            return None
        host, guest = tally
        if host > self._CLEAR * guest:
            return HOST
        return GUEST if guest > self._CLEAR * host else None

    def knows(self, party: Party) -> bool:
        """Return whether some key stands for this party."""
        return any(self.get(key) is party for key in self._seen)

    def sure(self, key: int) -> Party | None:
        """Return the party that a key has stood for so often that it outweighs what was deduced otherwise."""
        tally = self._seen.get(key)
        return None if tally is None or sum(tally) < self._OFTEN else self.get(key)

    def parts(self) -> bool:
        """Return whether the two parties surely have keys of their own."""
        return {self.sure(key) for key in self._seen} >= {HOST, GUEST}


class WorldTracker:
    """Follows all CPUs; ``take`` each event in order and learn whom it interrupted.

    ``switches`` counts changes between host and guest, or guest and guest; ``contradictions`` counts events that
    do not fit what the ones before implied, as after a loss. ``vhe`` and ``xen`` become True when a log shows them;
    rows that were counted before are corrected by ``settle``.
    """

    def __init__(self, *, vhe: bool = False) -> None:
        self.contradictions = 0
        self.vhe = vhe
        self.xen = False
        self.observed = True
        self._cpus: dict[int, _Cpu] = {}
        self._bases = _Evidence(_MOST_PAGES)
        self._pages = _Evidence(_MOST_PAGES)
        self._returns: list[_Kept] = []
        self._first_returns = 0
        self._switches = 0
        self._calls_only: dict[int, bool] = {}
        self._vhe_bases: dict[int, Party] = {}

    def take(self, event: Event) -> Party | None:
        """Return whom an exception interrupted; None for the other kinds of events."""
        if type(event) is Taken:
            return self._taken(event)
        if type(event) is Returned:
            self._returned(event)
        elif type(event) is Lost:
            self._lost(event)
        elif type(event) is State:
            self._begin(event)
        return None

    @property
    def blind(self) -> bool:
        """Whether switches cannot be told: all of Xen's domains are guests, and a log does not say which one ran."""
        return self.xen and not self.observed

    @property
    def switches(self) -> int:
        """How often the world below EL2 changed."""
        return 0 if self.blind else self._switches

    def return_before(self, event: Taken) -> Returned | None:
        """Return how the CPU of ``event``, which was just taken, had last left EL2; None if that is not known."""
        return self._cpus[event.cpu].left if event.cpu in self._cpus else None

    def below(self, cpu: int) -> Party | None:
        """Return who runs below EL2 on a CPU, or ran there last; None if nothing is known of it."""
        return self._cpus[cpu].below if cpu in self._cpus else None

    def settle(self, party: Party) -> Party:
        """Return the party as all that has been seen by now names it."""
        if self.xen and party == HOST:
            return GUEST
        if self.vhe and party == HYPERVISOR:
            return HOST
        return party

    def _begin(self, state: State) -> None:
        """Start with what a CPU did: it runs something below EL2, or something that it ran is interrupted."""
        self.vhe = self.vhe or (state.hcr is not None and is_host_at_el2(state.hcr))
        below = _below(state)
        cpu = self._cpu(state.cpu)
        cpu.in_el2 = state.el == 2
        cpu.below = cpu.last_party = below
        if cpu.in_el2:
            cpu.last = Taken(state.seq, state.cpu, state.base + _SYNC_LOWER, 1, esr=state.esr, elr=state.elr)
        if self.vhe and state.hcr is not None and not is_host_at_el2(state.hcr):
            self._vhe_bases[state.base] = GUEST

    def _cpu(self, number: int) -> _Cpu:
        cpu = self._cpus.get(number)
        if cpu is None:
            cpu = self._cpus[number] = _Cpu()
        return cpu

    def _taken(self, event: Taken) -> Party:
        cpu = self._cpu(event.cpu)
        party = party_by_registers(event)
        if event.hcr is not None and is_host_at_el2(event.hcr):
            self.vhe = True
        if party is None:
            self.observed = False
            party = HYPERVISOR if event.from_el == 2 else self._deduce(cpu, event)
        if event.from_el != 2:
            self._count_switch(cpu, party)
            cpu.last, cpu.last_party, cpu.depth = event, party, 0
        else:
            cpu.depth += 1
        cpu.in_el2 = True
        return party

    def _count_switch(self, cpu: _Cpu, party: Party) -> None:
        if self.vhe:
            # The host is EL2: the guest was entered from it and exits to it, and it makes no exceptions of its own.
            self._switches += 2 * (party.world == "guest")
        elif cpu.last_party is not None and not _same(cpu.last_party, party):
            self._switches += 1

    # ---- without registers

    def _deduce(self, cpu: _Cpu, event: Taken) -> Party:
        self._recognise(event)
        if self.vhe:
            return self._deduce_vhe(event)
        if cpu.in_el2:
            self._claim_return(cpu, event)
        page = None if event.elr is None else event.elr >> 12
        expected = cpu.below
        if expected is not None and expected is not UNKNOWN and cpu.certain:
            seen = self._bases.sure(event.base)
            if seen is not None and seen is not expected and self._bases.parts():
                # Another CPU's return was taken for this one's.
                self.contradictions += 1
                self._correct(cpu, seen)
                return seen
            self._bases.learn(event.base, expected)
            if page is not None:
                self._pages.learn(page, expected)
            return expected
        # That a base was the host's so far says nothing unless guests have others.
        party = self._bases.get(event.base) if self._bases.knows(GUEST) else None
        if party is None and page is not None:
            party = self._pages.get(page)
        if party is None:
            party = self._by_kind(event) if expected is None or expected is UNKNOWN else expected
        self._correct(cpu, party)
        return party

    def _deduce_vhe(self, event: Taken) -> Party:
        """Return whom EL2, which is the host, was entered from: the host's own user space, or a guest.

        A host that still boots a CPU at EL1 makes nothing but calls, through vectors that no guest uses.
        """
        if event.from_el == 1 and not self._calls_only.get(event.base):
            self._vhe_bases[event.base] = GUEST
        elif event.ec == EC_SVC64:
            self._vhe_bases[event.base] = HOST
        return self._vhe_bases.get(event.base, HOST)

    @staticmethod
    def _correct(cpu: _Cpu, party: Party) -> None:
        """Let the state of the CPU agree with whom evidence says it ran."""
        cpu.below = party
        if party is HOST:
            cpu.outstanding, cpu.certain = None, True
        elif cpu.outstanding is None and cpu.last is not None and cpu.last_party is HOST:
            cpu.outstanding = cpu.last.elr

    def _by_kind(self, event: Taken) -> Party:
        if event.kind in (IRQ, FIQ) or event.ec in (EC_WFX, EC_SYS64):
            return GUEST
        # Where a guest has vectors of its own, other vectors are the host's.
        return HOST if self._bases.knows(GUEST) else UNKNOWN

    def _recognise(self, event: Taken) -> None:
        ec = event.ec
        if len(self._calls_only) < _MOST_PAGES or event.base in self._calls_only:
            self._calls_only[event.base] = ec == EC_HVC64 and self._calls_only.get(event.base, True)
        if ec == EC_SVC64:
            self.vhe = True
        elif ec == EC_HVC64 and (event.esr or 0) & 0xFFFF == smccc.XEN_IMMEDIATE:
            self.xen = True

    def _claim_return(self, cpu: _Cpu, event: Taken) -> None:
        """Find the return by which this CPU had left EL2, for it did."""
        if cpu.last is None and self._first_returns:
            self._first_returns -= 1
            cpu.in_el2, cpu.below = False, HOST
            return
        since = -1 if cpu.last is None else cpu.last.seq
        fitting = [kept for kept in self._returns if kept.seq > since]
        if fitting:
            claimed = fitting[0] if len(fitting) == 1 else self._choose(cpu, event, fitting)
            self._returns.remove(claimed)
            self._left(cpu, claimed.event)
            cpu.certain = cpu.certain and not claimed.doubtful
        elif cpu.last is not None:
            self.contradictions += 1
            cpu.forget()

    def _choose(self, cpu: _Cpu, event: Taken, fitting: list[_Kept]) -> _Kept:
        """Choose the return that only this CPU can have made, or else the nearest to its exception."""
        others = [c.last.seq for c in self._cpus.values() if c is not cpu and c.in_el2 and c.last is not None]
        own = [kept for kept in fitting if not any(seq < kept.seq for seq in others)]
        claimed = own[0] if own else min(fitting, key=lambda kept: _distance(event.elr, kept.pc))
        if any(kept.pc != claimed.pc for kept in fitting):
            # If this was another CPU's return, then that one will find this CPU's.
            for kept in fitting:
                kept.doubtful = True
        return claimed

    def _returned(self, event: Returned) -> None:
        if event.to_el == 2:
            self._returned_to_el2(event)
        elif event.cpu is not None:
            cpu = self._cpu(event.cpu)
            if event.world is not None:
                cpu.in_el2, cpu.left, cpu.below = False, event, Party(cast(World, event.world))
            elif event.hcr is not None and event.vttbr is not None:
                cpu.in_el2, cpu.left = False, event
                cpu.below = party_below(event.hcr, event.vttbr, event.vtcr)
            else:
                self._left(cpu, event)
        elif not self.vhe:
            self._keep_or_assign(event)

    def _keep_or_assign(self, event: Returned) -> None:
        """Give the return to the one CPU that it fits exactly; keep it if it may be that of another."""
        inside = [cpu for cpu in self._cpus.values() if cpu.in_el2]
        exact = [cpu for cpu in inside if cpu.goes_on_at(event.pc)]
        if (
            len(exact) == 1
            and not self._returns
            and not any(c.may_go_anywhere() for c in inside if c not in exact)
        ):
            self._left(exact[0], event)
        elif inside:
            self._returns.append(_Kept(event))
            if len(self._returns) > len(inside):
                self._drop_first_returns(inside)
        else:
            self._first_returns += 1

    def _drop_first_returns(self, inside: list[_Cpu]) -> None:
        """Set aside the returns that no CPU in EL2 can have made: each is the first of a CPU not seen yet."""
        oldest = min((cpu.last.seq for cpu in inside if cpu.last is not None), default=0)
        possible = [kept for kept in self._returns if kept.seq > oldest][-_MOST_RETURNS:]
        self._first_returns += len(self._returns) - len(possible)
        self._returns = possible

    def _returned_to_el2(self, event: Returned) -> None:
        """A return that no exception from EL2 explains: the HVC by which a host moves itself to EL2."""
        inside = [c for n, c in self._cpus.items() if c.in_el2 and event.cpu in (None, n)]
        if any(cpu.depth for cpu in inside):
            for cpu in inside:
                if cpu.depth:
                    cpu.depth -= 1
                    return
        calls = [cpu.last for cpu in inside if cpu.last is not None and cpu.last.ec == EC_HVC64]
        if event.pc is not None and any(call.elr == event.pc for call in calls):
            self.vhe = True

    def _left(self, cpu: _Cpu, event: Returned) -> None:
        """Deduce who runs below EL2 after this return."""
        cpu.in_el2, cpu.left = False, event
        pc = event.pc
        last, party = cpu.last, cpu.last_party
        if pc is None:
            cpu.forget()
        elif last is None:
            cpu.below = HOST
        elif cpu.outstanding is not None:
            if pc == cpu.outstanding:
                cpu.below, cpu.outstanding, cpu.certain = HOST, None, True
            else:
                cpu.below = GUEST
        elif party == HOST and last.ec == EC_HVC64 and last.elr is not None and pc != last.elr:
            cpu.below, cpu.outstanding = GUEST, last.elr
        elif party == GUEST and not _resumes(last, pc):
            # Its host's call was before the log began.
            cpu.below = self._pages.get(pc >> 12) or HOST
        else:
            cpu.below = party

    def _lost(self, event: Lost) -> None:
        for number, cpu in self._cpus.items():
            if event.cpu is None or event.cpu == number:
                cpu.forget()
        self._returns.clear()


def _distance(one: int | None, other: int | None) -> int:
    """Return how far apart two addresses are; farther than any two are where one is not known."""
    return 1 << 64 if one is None or other is None else abs(one - other)


def _same(one: Party, other: Party) -> bool:
    """Return whether two parties may be the same: a VMID that was not recorded differs from none."""
    return one.world == other.world and (one.vmid == other.vmid or None in (one.vmid, other.vmid))


def _resumes(last: Taken, pc: int) -> bool:
    """Return whether ``pc`` goes on after the exception: there, behind the instruction, or at a vector of EL1."""
    return last.elr is None or pc in (last.elr, last.elr + 4) or pc & 0x7F == 0
