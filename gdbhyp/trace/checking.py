"""Is the world switch right? What each world left when it was interrupted, against what it finds when it goes on.

A guest is followed by VTTBR_EL2's VMID and VMPIDR_EL2, whatever CPU it runs on; a host below EL2 by its CPU, and only
where a guest ran in between. Every register that differs is explained by a rule of ``switch_rules``, or is a finding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from gdbhyp.arch.spaces import VA, Word
from gdbhyp.arch.worlds import Hcr, World
from gdbhyp.trace import switch_rules as rules
from gdbhyp.trace.statistics import KIND_TITLES, syndrome_of
from gdbhyp.trace.switch_rules import Allowance
from gdbhyp.trace.worlds import Party


@dataclass(frozen=True)
class Snapshot:
    """One CPU at a vector of EL2 or at an ERET: ``place``. ``party`` was interrupted, or is about to go on.

    ``esr`` is None where it does not describe the exception. ``number`` counts snapshots.
    """

    number: int
    cpu: int
    place: int
    kind: int
    party: Party
    esr: int | None
    registers: Mapping[str, int]

    @property
    def why(self) -> str:
        """Why the world was left."""
        return KIND_TITLES[self.kind] if self.esr is None else syndrome_of(self.esr).summary


@dataclass(frozen=True)
class Place:
    """Where something was seen: ``place`` is a vector or an ERET of EL2, ``pc`` where the world was left or goes on.

    ``pc`` is None where the target does not show ELR_EL2.
    """

    number: int
    cpu: int
    place: VA
    symbol: str | None
    pc: VA | None


@dataclass(frozen=True)
class Finding:
    """A register that is not what it has to be.

    ``kind`` is "leak" where the wrong value is another world's (``whose``), else "lost". ``expected`` was seen at
    ``left``, ``found`` at ``entered``. ``why`` says what ``left`` was about. ``count`` counts the same finding.
    """

    kind: Literal["leak", "lost"]
    world: World
    vmid: int | None
    vcpu: Word | None
    register: str
    expected: Word
    found: Word
    whose: str | None
    why: str
    left: Place
    entered: Place
    count: int = 1


@dataclass(frozen=True)
class Explained:
    """How often a register changed for a reason that is right."""

    world: World
    register: str
    reason: str
    count: int


@dataclass(frozen=True)
class CheckReport:
    """What was compared and what was found.

    ``guest_runs`` are entries into guests, ``guest_checks`` those that an earlier exit of the same vCPU could be
    compared with, ``host_checks`` the returns to a host after guests ran. ``not_shown`` registers are not in the
    target's description, so that nothing is said of them. ``restarts`` of a vCPU are not compared.
    """

    kind: ClassVar[str] = "trace_check"

    guest_runs: int
    guest_checks: int
    host_checks: int
    restarts: int
    registers: int
    not_shown: tuple[str, ...]
    findings: tuple[Finding, ...]
    explained: tuple[Explained, ...]
    notes: tuple[str, ...]


@dataclass
class _Cpu:
    """What is known of one CPU: its host's last exception, and whether a guest ran since."""

    host: Snapshot | None = None
    guest_ran: bool = False


Guest = tuple[int | None, int | None]


@dataclass
class Checker:
    """Takes snapshots in order; ``report`` at the end."""

    guest_runs: int = 0
    guest_checks: int = 0
    host_checks: int = 0
    restarts: int = 0
    findings: dict[tuple[object, ...], Finding] = field(default_factory=dict)
    explained: dict[tuple[World, str, str], int] = field(default_factory=dict)
    _cpus: dict[int, _Cpu] = field(default_factory=dict)
    _left: dict[Guest, Snapshot] = field(default_factory=dict)
    _entered: dict[Guest, Snapshot] = field(default_factory=dict)

    def taken(self, now: Snapshot) -> None:
        """An exception was taken to EL2 from below."""
        cpu = self._cpus.setdefault(now.cpu, _Cpu())
        if now.party.world == "guest":
            self._left[_guest(now)] = now
        elif now.party.world == "host" and not _is_host_at_el2(now):
            cpu.host, cpu.guest_ran = now, False

    def returned(self, now: Snapshot) -> None:
        """EL2 is about to return to below."""
        cpu = self._cpus.setdefault(now.cpu, _Cpu())
        if now.party.world == "guest":
            self._enter_guest(now)
            cpu.guest_ran = True
        elif now.party.world == "host" and cpu.host is not None:
            if cpu.guest_ran:
                self._enter_host(cpu.host, now)
            cpu.host, cpu.guest_ran = None, False

    def _enter_guest(self, now: Snapshot) -> None:
        self.guest_runs += 1
        guest = _guest(now)
        left, entered = self._left.pop(guest, None), self._entered.get(guest)
        self._entered[guest] = now
        if left is None:
            return
        if _is_restart(left, now):
            self.restarts += 1
            return
        self.guest_checks += 1
        allowed = (
            *rules.ALWAYS,
            *rules.MOVED,
            *rules.out_of_reach(now.registers.get("HCR_EL2", 0)),
            *rules.emulated(left.esr),
            *_progress(left, now),
        )
        self._compare(left, now, (*rules.GENERAL, *rules.EL1, rules.PC, rules.PSTATE), allowed)
        if entered is not None:
            self._compare(entered, now, rules.CONTROLS, rules.ALWAYS, why="its entry before")

    def _enter_host(self, left: Snapshot, now: Snapshot) -> None:
        self.host_checks += 1
        allowed = (*rules.ALWAYS[:1], rules.CALL, rules.PLATFORM, *_progress(left, now))
        self._compare(left, now, rules.REGISTERS, allowed)

    def _compare(
        self,
        before: Snapshot,
        now: Snapshot,
        names: Iterable[str],
        allowed: Iterable[Allowance],
        why: str | None = None,
    ) -> None:
        by_name: dict[str, list[Allowance]] = {}
        for allowance in allowed:
            for name in allowance.registers:
                by_name.setdefault(name, []).append(allowance)
        for name in names:
            expected, found = before.registers.get(name), now.registers.get(name)
            if expected is None or found is None or expected == found:
                continue
            rest = expected ^ found
            for allowance in by_name.get(name, []):
                if rest & allowance.mask:
                    key = (now.party.world, name, allowance.reason)
                    self.explained[key] = self.explained.get(key, 0) + 1
                    rest &= ~allowance.mask
            if rest:
                self._find(before, now, name, expected, found, before.why if why is None else why)

    def _find(self, before: Snapshot, now: Snapshot, name: str, expected: int, found: int, why: str) -> None:
        whose = self._whose(name, found, now)
        key = (now.party, _vcpu(now) if now.party.world == "guest" else now.cpu, name, whose)
        if key in self.findings:
            self.findings[key] = replace(self.findings[key], count=self.findings[key].count + 1)
            return
        vcpu = _vcpu(now) if now.party.world == "guest" else None
        self.findings[key] = Finding(
            kind="lost" if whose is None else "leak",
            world=now.party.world,
            vmid=now.party.vmid,
            vcpu=None if vcpu is None else Word(vcpu),
            register=name,
            expected=Word(expected),
            found=Word(found),
            whose=whose,
            why=why,
            left=_place(before),
            entered=_place(now),
        )

    def _whose(self, name: str, value: int, now: Snapshot) -> str | None:
        """Return the world whose value this is, as it was seen last; zero says nothing."""
        if not value:
            return None
        cpu = self._cpus[now.cpu]
        if now.party.world == "guest" and cpu.host is not None and cpu.host.registers.get(name) == value:
            return "the host"
        for (vmid, vcpu), seen in [*self._left.items(), *self._entered.items()]:
            other = now.party.world == "host" or (vmid, vcpu) != _guest(now)
            if other and seen.registers.get(name) == value:
                return f"vCPU {vcpu or 0:#x} of VMID {vmid}"
        return None

    def report(self, not_shown: Iterable[str] = (), notes: Iterable[str] = ()) -> CheckReport:
        """Return what was found so far."""
        missing = tuple(not_shown)
        return CheckReport(
            guest_runs=self.guest_runs,
            guest_checks=self.guest_checks,
            host_checks=self.host_checks,
            restarts=self.restarts,
            registers=len(rules.REGISTERS) - len(missing),
            not_shown=missing,
            findings=tuple(sorted(self.findings.values(), key=lambda f: f.entered.number)),
            explained=tuple(Explained(*key, count) for key, count in sorted(self.explained.items())),
            notes=tuple(notes),
        )


def _vcpu(snapshot: Snapshot) -> int | None:
    return snapshot.registers.get("VMPIDR_EL2")


def _guest(snapshot: Snapshot) -> Guest:
    return snapshot.party.vmid, _vcpu(snapshot)


def _place(snapshot: Snapshot) -> Place:
    pc = snapshot.registers.get(rules.PC)
    return Place(snapshot.number, snapshot.cpu, VA(snapshot.place), None, None if pc is None else VA(pc))


def _progress(left: Snapshot, now: Snapshot) -> tuple[Allowance, ...]:
    """Return what going on elsewhere than at the place of the exit may change; all of it where that is not known."""
    before, pc = left.registers.get(rules.PC), now.registers.get(rules.PC)
    if before is None or pc is None:
        return (*rules.STEPPED, *rules.INJECTED)
    if pc == before:
        return ()
    if pc - before in (2, 4):
        return rules.STEPPED
    vbar = now.registers.get("VBAR_EL1")
    return rules.INJECTED if vbar is None or rules.is_vector(pc, vbar) else ()


def _is_host_at_el2(snapshot: Snapshot) -> bool:
    """Return whether this is a VHE host's user space: which thread of it goes on is the host's business."""
    return Hcr(snapshot.registers.get("HCR_EL2", 0)).el2_is_host


def _is_restart(left: Snapshot, now: Snapshot) -> bool:
    """Return whether the vCPU begins anew, as after PSCI CPU_ON: elsewhere, and with its MMU off again."""
    mmu_before = left.registers.get("SCTLR_EL1", 0) & 1
    mmu_now = now.registers.get("SCTLR_EL1", 0) & 1
    return bool(mmu_before) and not mmu_now and left.registers.get(rules.PC) != now.registers.get(rules.PC)
