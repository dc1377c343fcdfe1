"""Breakpoints on EL2's vectors, shared by all that want to know of exceptions: the break source, hyp-catch, the check.

The vectors are where VBAR_EL2 says. A hypervisor may have one vector base while the host runs and another while a
guest does (KVM's nVHE modes), and only the one in force can be read. So breakpoints also go to the ERET instructions
near the vectors, by which every world is entered: there VBAR_EL2 is read, a new base gets breakpoints of its own, and
an ERET that has shown its worth is let go, unless returns are wanted as such.

Where the host has a vector base of its own, those who wait only for guests are not bothered with it: a base is the
host's once enough exceptions have come there, all of them from the host, and guests were seen to run with another one.

GDB 18 cuts a breakpoint's address, when it is made, to what the selected CPU's translation regime takes for
an address rather than a pointer signature, if the stub shows those masks (QEMU 10 does). While a guest with 48-bit
addresses is selected, that loses the upper bits of an EL2 that has 52. So a breakpoint is made while a CPU is selected
whose mask leaves the address alone, and later where there is none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import gdb

from gdbhyp.errors import GdbhypError, NoTarget
from gdbhyp.plugin.remote import is_connected
from gdbhyp.plugin.threads import borrowed_thread
from gdbhyp.plugin.trace_interrupt import CtrlC
from gdbhyp.plugin.trace_registers import PacketRegisters
from gdbhyp.trace.worlds import Party, party_below

if TYPE_CHECKING:
    from gdbhyp.engine.stop import Stop

VECTOR_SIZE = 0x80
KINDS = range(4)
# From a lower EL in AArch64 and in AArch32: the second half of the table, four kinds each.
_LOWER_EL = (0x400, 0x600)

# Measured: GDB 18.1 does, 13.1 does not. Those between are taken to do so, which costs nothing where a CPU fits.
_GDB_CUTS = int(gdb.VERSION.partition(".")[0]) > 13

# How often an ERET is looked at before it is let go: some serve several worlds, and each CPU may have its own base.
_LOOKS = 16
# How many exceptions, all from the host, make a vector base the host's.
_HOSTS = 32


# What GDB asks the stub for at every stop by itself, so that it costs no packet.
_WITH_THE_STOP = {"CPSR": "$cpsr", "X0": "$x0"}


class Hit:
    """A CPU that stands at a vector or an ERET of EL2; each register is asked for once, by a packet of its own."""

    def __init__(self, address: int, registers: PacketRegisters) -> None:
        self.address = address
        self.cpu = _cpu()
        self._registers = registers
        self._known: dict[str, int | None] = {}

    def get(self, name: str, /) -> int | None:
        """Return a register, None if the stub does not show it or does not answer."""
        if name not in self._known:
            expression = _WITH_THE_STOP.get(name)
            if expression is None:
                self._known[name] = self._registers.get(name)
            else:
                self._known[name] = int(gdb.parse_and_eval(expression)) & 0xFFFF_FFFF_FFFF_FFFF
        return self._known[name]

    def general(self) -> dict[str, int]:
        """Return X0 to X30."""
        return self._registers.general()

    @property
    def kind(self) -> int:
        """SYNC, IRQ, FIQ or SERROR, at a vector."""
        return self.address >> 7 & 3

    @property
    def saved_el(self) -> int:
        """The exception level in SPSR_EL2.M: where the exception came from, or where the ERET goes."""
        spsr = self.get("SPSR_EL2")
        if spsr is None:
            return 1
        if spsr >> 4 & 1:
            return 0 if spsr & 0xF == 0 else 1
        return spsr >> 2 & 3

    @property
    def vtcr(self) -> int | None:
        """VTCR_EL2 where it matters: it says whether VMID[15:8] count, so only if any of them is set."""
        vttbr = self.get("VTTBR_EL2")
        return self.get("VTCR_EL2") if vttbr is not None and vttbr >> 56 else None

    @property
    def party(self) -> Party:
        """Who was interrupted below EL2, or is about to be entered."""
        hcr, vttbr = self.get("HCR_EL2"), self.get("VTTBR_EL2")
        if hcr is None or vttbr is None:
            return Party("unknown")
        return party_below(hcr, vttbr, self.vtcr)

    def walked_ipa(self) -> int | None:
        """Return where stage 1 of the interrupted world leads FAR_EL2, None where it leads nowhere."""
        from gdbhyp.analyses.guest import stage1_walk
        from gdbhyp.plugin.target import hit_stop

        far = self.get("FAR_EL2")
        if far is None:
            return None
        try:
            with hit_stop(self, self.cpu) as stop:
                walk = stage1_walk(stop, far)
        except GdbhypError:
            return None
        return walk.output if walk is not None else None


class Member(Protocol):
    """Who wants to know. ``kinds`` of exceptions are wanted, and returns from EL2 as well if ``returns``."""

    returns: bool

    @property
    def guests_only(self) -> bool:
        """Whether exceptions that the host takes do not matter."""
        ...

    @property
    def kinds(self) -> frozenset[int]: ...

    @property
    def commands(self) -> str | None:
        """What GDB shall do when it has stopped because of this member, as of a breakpoint."""
        ...

    def taken(self, hit: Hit) -> bool:
        """An exception was taken to EL2; return whether to stop for the person."""
        ...

    def returned(self, hit: Hit) -> bool:
        """EL2 is about to return; return whether to stop for the person."""
        ...

    def stopped(self) -> None:
        """GDB has stopped for the person because this member asked for it: say why."""
        ...

    def failed(self, reason: str) -> None:
        """The target does not answer any more."""
        ...


@dataclass
class _Base:
    """What was seen of a vector base: exceptions from the host, and whether a guest had it."""

    from_host: int = 0
    of_guest: bool = False


class Point(gdb.Breakpoint):
    """An internal hardware breakpoint. ``hit`` says whether to stop for the person.

    Hardware, because memory is not touched for it, and because QEMU makes no difference.
    """

    def __init__(self, address: int, hit: Callable[[Point], bool]) -> None:
        super().__init__(f"*{address:#x}", type=gdb.BP_HARDWARE_BREAKPOINT, internal=True)
        self.silent = True
        self.address = address
        self.looks = 0
        self._hit = hit

    def stop(self) -> bool:
        return self._hit(self)

    @property
    def misplaced(self) -> bool:
        """Whether GDB has put it somewhere else (see the module)."""
        places: list[gdb.BreakpointLocation] = getattr(self, "locations", [])
        return any(place.address != self.address for place in places)


class Vectors:
    """The breakpoints, and who wants them."""

    def __init__(self) -> None:
        self.false_hits = 0
        self.stops = 0
        self._members: list[Member] = []
        self._asked: list[Member] = []
        self._bases: dict[int, _Base] = {}
        self._erets: list[int] = []
        self._searched: frozenset[int] = frozenset()
        self._points: dict[int, Point] = {}
        self._let_go: set[int] = set()
        self._registers: PacketRegisters | None = None
        self._listening = False
        self._in_hit = False
        self._ctrl_c = CtrlC()

    @property
    def bases(self) -> tuple[int, ...]:
        """The vector bases that are watched, ascending."""
        return tuple(sorted(self._bases))

    @property
    def watched_erets(self) -> tuple[int, ...]:
        """The ERET instructions that are watched, ascending."""
        return tuple(address for address in self._erets if address in self._points)

    @property
    def erets(self) -> tuple[int, ...]:
        """The ERET instructions that were found near the vectors, ascending."""
        return tuple(self._erets)

    @property
    def notes(self) -> list[str]:
        """What a person has to know, in sentences."""
        if not self.unplaced:
            return []
        return [
            f"{len(self.unplaced)} addresses of EL2 cannot be watched yet: GDB {gdb.VERSION} would cut them to what "
            "every CPU's translation takes for an address now; they are as soon as a CPU stops in the host or in EL2"
        ]

    @property
    def packets(self) -> int:
        """How many packets have asked for registers."""
        return 0 if self._registers is None else self._registers.sent

    @property
    def unplaced(self) -> tuple[int, ...]:
        """The addresses that have no breakpoint yet because GDB would cut them."""
        return tuple(sorted(self._wanted() - self._points.keys()))

    def join(self, member: Member, stop: Stop, bases: Iterable[int] = ()) -> None:
        """Watch for ``member`` from now on; ``bases`` are vector bases besides those that are found.

        :raises NoTarget: if the stub shows no VBAR_EL2, or no CPU has vectors yet.
        """
        self._connect()
        self._members.append(member)
        self._listen()
        try:
            self._find(stop, bases)
        except BaseException:
            self.leave(member)
            raise

    def _find(self, stop: Stop, bases: Iterable[int]) -> None:
        """Find the vectors and what leads to them, and place breakpoints."""
        for base in (*vector_bases(), *bases):
            self._add(base)
        if not self._bases:
            raise NoTarget("VBAR_EL2 is 0 on every CPU: let the hypervisor set its vectors first")
        self._search(stop)
        self._let_go.clear()
        self._place()

    def leave(self, member: Member, *, in_event: bool = False) -> None:
        """Watch for ``member`` no longer; say so if GDB is about to tell of its breakpoints."""
        if member in self._members:
            self._members.remove(member)
        self.refresh(in_event=in_event)

    def refresh(self, *, in_event: bool = False) -> None:
        """Take notice that a member wants something else than before.

        While GDB goes through its breakpoints to tell of them (``in_event``) none may be deleted, so what is not wanted
        any more is disabled, and deleted soon.
        """
        if self._in_hit:
            return
        if in_event:
            self._place(tidy=False)
            gdb.post_event(self._tidy)
        else:
            self._tidy()

    def _tidy(self) -> None:
        if not self._members:
            self._end()
        elif self._registers is not None:
            self._place()

    def _connect(self) -> None:
        registers = self._registers
        connection = gdb.selected_inferior().connection
        if registers is None or registers.connection is not connection:
            self._forget()
            registers = PacketRegisters()
            if registers.get("VBAR_EL2") is None:
                raise NoTarget("the stub shows no VBAR_EL2, so the vectors of EL2 cannot be found")
            self._registers = registers

    def _search(self, stop: Stop) -> None:
        """Find the ERETs around all bases that are known, once for each set of them."""
        from gdbhyp.analyses.erets import find_erets

        bases = frozenset(self._bases)
        if not bases <= self._searched:
            self._erets = find_erets(stop, self.bases)
            self._searched = bases

    def _wanted(self) -> set[int]:
        """Return the addresses at which the members want breakpoints."""
        wanted = {
            base + half + kind * VECTOR_SIZE
            for base in self._bases
            for member in self._members
            if not (member.guests_only and self._is_hosts(base))
            for kind in member.kinds
            for half in _LOWER_EL
        }
        if any(member.returns for member in self._members):
            wanted.update(self._erets)
        elif self._members:
            wanted.update(address for address in self._erets if address not in self._let_go)
        return wanted

    def _add(self, base: int) -> bool:
        """Take notice of a value of VBAR_EL2; return whether it is a new one. 0 is one that was never set."""
        base &= ~0x7FF
        if not base or base in self._bases:
            return False
        self._bases[base] = _Base()
        return True

    def _is_hosts(self, base: int) -> bool:
        """Return whether only the host's exceptions come to this base."""
        seen = self._bases[base]
        return (
            seen.from_host >= _HOSTS
            and not seen.of_guest
            and any(other.of_guest for other in self._bases.values())
        )

    def _place(self, *, here: bool = False, tidy: bool = True) -> None:
        """Make the breakpoints that are wanted and not there, and delete what is not wanted, or just disable it.

        With ``here`` no other CPU is selected: this one is in EL2.
        """
        wanted = self._wanted()
        for address in wanted:
            if address in self._points:
                self._enable(address, True)
            elif (thread := _fitting(address, gdb.selected_thread() if here else None)) is not None:
                self._make(address, thread)
        for address in self._points.keys() - wanted:
            if tidy:
                self._delete(address)
            else:
                self._enable(address, False)

    def _enable(self, address: int, enabled: bool) -> None:
        point = self._points[address]
        if point.is_valid() and point.enabled != enabled:
            point.enabled = enabled

    def _make(self, address: int, thread: gdb.InferiorThread) -> None:
        hit = self._returned if address in self._erets else self._taken
        with borrowed_thread(thread):
            point = Point(address, hit)
        if point.misplaced:
            point.delete()
        else:
            self._points[address] = point

    def _delete(self, address: int) -> None:
        point = self._points.pop(address)
        if point.is_valid():
            point.delete()

    def _taken(self, point: Point) -> bool:
        return self._ask(point, lambda member, hit: hit.kind in member.kinds and member.taken(hit))

    def _returned(self, point: Point) -> bool:
        return self._ask(point, self._look)

    def _look(self, member: Member, hit: Hit) -> bool:
        return member.returns and member.returned(hit)

    def _ask(self, point: Point, ask: Callable[[Member, Hit], bool]) -> bool:
        """Tell all members, if the CPU is in EL2; return whether to stop."""
        self._ctrl_c.hold()
        self.stops += 1
        self._asked = []
        self._in_hit = True
        assert self._registers is not None
        try:
            hit = Hit(point.address, self._registers)
            cpsr = hit.get("CPSR")
            if cpsr is not None and cpsr & 0x1C != 0x8:
                self.false_hits += 1
            else:
                if point.address in self._erets:
                    self._learn(point, hit)
                else:
                    self._learn_base(hit)
                self._asked = [member for member in list(self._members) if ask(member, hit)]
        except (gdb.error, GdbhypError) as error:
            self._fail(f"the target did not answer: {error}")
        finally:
            self._in_hit = False
        if self._asked:
            point.commands = "\n".join(member.commands or "" for member in self._asked)
        return self._ctrl_c.pressed or bool(self._asked)

    def _learn(self, point: Point, hit: Hit) -> None:
        """At an ERET, whose world is about to be entered: find its vectors."""
        vbar = hit.get("VBAR_EL2")
        base = 0 if vbar is None else vbar & ~0x7FF
        known = not self._add(base)
        if base and not self._bases[base].of_guest and hit.party.world == "guest":
            self._bases[base].of_guest = True
            known = False
        if not known or self.unplaced:
            self._place(here=True, tidy=False)
        point.looks = point.looks + 1 if known else 0
        if point.looks >= _LOOKS and not any(member.returns for member in self._members):
            # A breakpoint may not be deleted while it is being hit; disabled, it costs no more.
            self._let_go.add(point.address)
            point.enabled = False

    def _learn_base(self, hit: Hit) -> None:
        """At a vector: count who comes there, until that is known."""
        seen = self._bases.get(hit.address & ~0x7FF)
        if seen is None or seen.of_guest or seen.from_host > _HOSTS:
            return
        if hit.party.world == "guest":
            seen.of_guest = True
        else:
            seen.from_host += 1
        if seen.of_guest or seen.from_host == _HOSTS:
            self._place(here=True, tidy=False)

    def _fail(self, reason: str) -> None:
        for member in list(self._members):
            member.failed(reason)

    def _stop(self, _: gdb.StopEvent) -> None:
        """Use a stop for the person to look for what has changed, and to say why it was."""
        pressed = self._ctrl_c.pressed
        self._ctrl_c.release()
        asked, self._asked = self._asked, []
        if pressed and not asked:
            gdb.write("Interrupted at an exception or a return that is watched.\n")
        for member in asked:
            member.stopped()
        if pressed or asked:
            gdb.execute("frame")
        try:
            self._look_around()
        except (gdb.error, GdbhypError) as error:
            self._fail(f"the target did not answer: {error}")

    def _look_around(self) -> None:
        """The CPU that stopped may be in a world with a vector base of its own, and may fit where none did."""
        if not self._members:
            self._end()
            return
        if self._registers is None:
            self._find_again()
            return
        vbar = self._registers.get("VBAR_EL2")
        if vbar is not None:
            self._add(vbar)
        for address, point in list(self._points.items()):
            # A new symbol file makes GDB work all addresses out again.
            if not point.is_valid() or point.misplaced:
                self._delete(address)
        self._place()

    def _find_again(self) -> None:
        """Watch another target than before, as soon as it has vectors."""
        from gdbhyp.plugin.target import live_stop

        with contextlib.suppress(GdbhypError), live_stop() as stop:
            self._connect()
            self._find(stop, ())

    def _prompt(self, _: None = None) -> None:
        """Make sure that Ctrl-C is GDB's while the person types."""
        self._ctrl_c.release()
        if not self._members:
            self._end()

    def _gone(self, event: gdb.ConnectionEvent) -> None:
        if self._registers is not None and event.connection is self._registers.connection:
            self._forget()

    def _exiting(self, _: gdb.GdbExitingEvent) -> None:
        self._end()

    def _listen(self) -> None:
        if not self._listening:
            self._listening = True
            gdb.events.stop.connect(self._stop)
            gdb.events.before_prompt.connect(self._prompt)
            gdb.events.connection_removed.connect(self._gone)
            gdb.events.gdb_exiting.connect(self._exiting)

    def _forget(self) -> None:
        """Forget the target, and delete all breakpoints."""
        self._ctrl_c.release()
        for address in list(self._points):
            self._delete(address)
        self._registers = None
        self._bases.clear()
        self._erets = []
        self._searched = frozenset()
        self._let_go.clear()
        self.stops = self.false_hits = 0

    def _end(self) -> None:
        self._members.clear()
        self._forget()
        if self._listening:
            self._listening = False
            gdb.events.stop.disconnect(self._stop)
            gdb.events.before_prompt.disconnect(self._prompt)
            gdb.events.connection_removed.disconnect(self._gone)
            gdb.events.gdb_exiting.disconnect(self._exiting)


_the: list[Vectors] = []


def vectors() -> Vectors:
    """Return the one set of breakpoints of this GDB."""
    if not _the:
        _the.append(Vectors())
    return _the[0]


def vector_bases() -> list[int]:
    """Return VBAR_EL2 of each CPU."""
    bases = []
    for thread in gdb.selected_inferior().threads():
        with borrowed_thread(thread):
            bases.append(int(gdb.parse_and_eval("$VBAR_EL2")) & 0xFFFF_FFFF_FFFF_FFFF)
    return bases


def _cpu() -> int:
    """Return the CPU of the selected thread: QEMU's thread ids count from 1."""
    thread = gdb.selected_thread()
    if thread is None or not is_connected():
        raise NoTarget("no CPU is selected")
    return (thread.ptid[1] or thread.num) - 1


def _fitting(address: int, only: gdb.InferiorThread | None) -> gdb.InferiorThread | None:
    """Return a CPU during whose selection GDB leaves ``address`` alone, None if there is none now."""
    selected = gdb.selected_thread()
    if not _GDB_CUTS:
        return selected
    threads = [only] if only is not None else [selected, *gdb.selected_inferior().threads()]
    return next((thread for thread in threads if thread is not None and _fits(address, thread)), None)


def _fits(address: int, thread: gdb.InferiorThread) -> bool:
    with borrowed_thread(thread):
        mask = _mask("_high" if address >> 55 & 1 else "")
    # The bits of a signature become copies of bit 55.
    return address & mask == (mask if address >> 55 & 1 else 0)


def _mask(half: str) -> int:
    """Return what GDB takes for a pointer signature with the selected CPU, 0 if the stub does not show it."""
    from gdbhyp.plugin.target import shown_names

    # Only those that are there: to evaluate another would make a convenience variable of that name.
    shown = shown_names(gdb.selected_inferior().architecture()).shown
    mask = 0
    for name in shown & {f"pauth_cmask{half}", f"pauth_dmask{half}"}:
        value = gdb.parse_and_eval(f"${name}")
        if value.type.code != gdb.TYPE_CODE_VOID:
            mask |= int(value) & 0xFFFF_FFFF_FFFF_FFFF
    return mask
