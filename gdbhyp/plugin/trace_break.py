"""World switches by breakpoints on EL2's vectors: slow, but for any stub, and with every register.

The vectors are where VBAR_EL2 says. A hypervisor may have one vector base while the host runs and another while a
guest does (KVM's nVHE modes), and only the one in force can be read. So breakpoints also go to the ERET instructions
near the vectors, by which every world is entered: there VBAR_EL2 is read, a new base gets breakpoints of its own, and
an ERET that has shown its worth is let go, unless returns are wanted as events.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import gdb

from gdbhyp.errors import GdbhypError, NoTarget
from gdbhyp.plugin.trace_interrupt import CtrlC
from gdbhyp.plugin.trace_registers import PacketRegisters
from gdbhyp.trace.events import EC_HVC64, EC_SMC64, SERROR, SYNC, Returned, Taken
from gdbhyp.trace.ring import Recording

_VECTOR_SIZE = 0x80
# From a lower EL in AArch64 and in AArch32: the second half of the table.
_LOWER_EL = range(0x400, 0x800, _VECTOR_SIZE)

# HVC32, HVC64, SMC32, SMC64: x0 is worth a packet. The classes that set FAR_EL2, and HPFAR_EL2.
_CALLS = frozenset((0x12, EC_HVC64, 0x13, EC_SMC64))
_WITH_FAR = frozenset((0x20, 0x21, 0x22, 0x24, 0x25, 0x34, 0x35))
_WITH_HPFAR = frozenset((0x20, 0x24))

# How often an ERET is looked at before it is let go: some serve several worlds, and each CPU may have its own base.
_LOOKS = 16


class Point(gdb.Breakpoint):
    """An internal hardware breakpoint that records and goes on.

    Hardware, because memory is not touched for it, and because QEMU makes no difference. ``hit`` says whether to stop.
    """

    def __init__(self, address: int, hit: Callable[[Point], bool]) -> None:
        super().__init__(f"*{address:#x}", type=gdb.BP_HARDWARE_BREAKPOINT, internal=True)
        self.silent = True
        self.address = address
        self.looks = 0
        self._hit = hit

    def stop(self) -> bool:
        """Record; return whether the person pressed Ctrl-C."""
        return self._hit(self)


class BreakSource:
    """The recording by breakpoints. ``fail(reason)`` is called once if it cannot go on."""

    name = "break"

    def __init__(self, recording: Recording, fail: Callable[[str], None], *, returns: bool) -> None:
        self.recording = recording
        self.registers = PacketRegisters()
        self.notes: list[str] = []
        self.false_hits = 0
        self.stops = 0
        self._fail = fail
        self._keep_returns = returns
        self._vectors: dict[int, list[Point]] = {}
        self._returns: dict[int, Point] = {}
        self._seq = 0
        self._done: list[Point] = []
        self._ctrl_c = CtrlC()
        if self.registers.get("VBAR_EL2") is None:
            raise NoTarget(
                "the stub shows no VBAR_EL2, so the vectors of EL2 cannot be found: use --source log"
            )

    @property
    def vectors(self) -> tuple[int, ...]:
        """The vector bases that are watched, ascending."""
        return tuple(sorted(self._vectors))

    @property
    def returns(self) -> tuple[int, ...]:
        """The ERET instructions that are watched, ascending."""
        return tuple(sorted(self._returns))

    def watch_vectors(self, base: int | None) -> None:
        """Put breakpoints on the vectors of one base, once; a base of 0 is one that was never set."""
        if base is None or base & ~0x7FF == 0 or base in self._vectors:
            return
        points: list[Point] = []
        self._vectors[base] = points
        points.extend(Point(base + offset, self._taken) for offset in _LOWER_EL)

    def watch_returns(self, addresses: Iterable[int]) -> None:
        """Put breakpoints on ERET instructions."""
        for address in addresses:
            if address not in self._returns:
                self._returns[address] = Point(address, self._returned)

    def catch_up(self) -> None:
        """Everything is recorded when it happens."""

    def at_stop(self) -> None:
        """Look at the CPU that stopped for the person: it may be in a world with a vector base of its own."""
        if self._ctrl_c.pressed:
            gdb.write("Interrupted at a recorded exception.\n")
            gdb.execute("frame")
        self._ctrl_c.release()
        self.watch_vectors(self.registers.get("VBAR_EL2"))

    def at_prompt(self) -> None:
        """Make sure that Ctrl-C is GDB's while the person types."""
        self._ctrl_c.release()

    def close(self) -> None:
        """Take all breakpoints away."""
        self._ctrl_c.release()
        points = [point for points in self._vectors.values() for point in points]
        points.extend(self._returns.values())
        self._vectors.clear()
        self._returns.clear()
        for point in points:
            if point.is_valid():
                point.delete()

    def _in_el2(self) -> bool:
        self.stops += 1
        cpsr = self.registers.get("CPSR")
        if cpsr is not None and cpsr & 0x1C == 0x8:
            return True
        self.false_hits += 1
        return False

    def _taken(self, point: Point) -> bool:
        answer = self._undisturbed(lambda: self.recording.add(self._exception(point.address)))
        self._let_go()
        return answer

    def _undisturbed(self, record: Callable[[], None]) -> bool:
        """Record if the CPU is in EL2; return whether the person pressed Ctrl-C."""
        self._ctrl_c.hold()
        try:
            if self._in_el2():
                record()
        except (gdb.error, GdbhypError) as error:
            self._fail(f"the target did not answer: {error}")
        return self._ctrl_c.pressed

    def _exception(self, vector: int) -> Taken:
        get = self.registers.get
        kind = vector >> 7 & 3
        now = time.monotonic_ns()
        vttbr = get("VTTBR_EL2")
        hcr = get("HCR_EL2")
        spsr = get("SPSR_EL2")
        esr = get("ESR_EL2") if kind in (SYNC, SERROR) else None
        ec = None if esr is None or kind != SYNC else esr >> 26 & 0x3F
        event = Taken(
            seq=self._seq,
            cpu=_cpu(),
            vector=vector,
            from_el=_source_el(spsr),
            time=now,
            esr=esr,
            far=get("FAR_EL2") if ec in _WITH_FAR else None,
            hpfar=get("HPFAR_EL2") if ec in _WITH_HPFAR else None,
            elr=get("ELR_EL2"),
            spsr=spsr,
            hcr=hcr,
            vttbr=vttbr,
            vtcr=self._vtcr_for(vttbr),
            x0=get("X0") if ec in _CALLS else None,
        )
        self._seq += 1
        return event

    def _vtcr_for(self, vttbr: int | None) -> int | None:
        """Return VTCR_EL2 where it matters: it says whether VMID[15:8] count, so only if any of them is set."""
        if vttbr is None or not vttbr >> 56:
            return None
        return self.registers.get("VTCR_EL2")

    def _returned(self, point: Point) -> bool:
        return self._undisturbed(lambda: self._look(point))

    def _look(self, point: Point) -> None:
        """At an ERET, whose world is about to be entered: find its vectors."""
        base = self.registers.get("VBAR_EL2")
        known = base in self._vectors
        self.watch_vectors(base)
        if self._keep_returns:
            self.recording.add(self._return(base))
            return
        point.looks = point.looks + 1 if known else 0
        if point.looks >= _LOOKS:
            self._done.append(point)

    def _let_go(self) -> None:
        """Delete the points that are done with; not from within themselves, and not while the machine runs."""
        while self._done:
            point = self._done.pop()
            if self._returns.pop(point.address, None) is point and point.is_valid():
                point.delete()

    def _return(self, base: int | None) -> Returned:
        get = self.registers.get
        vttbr = get("VTTBR_EL2")
        event = Returned(
            seq=self._seq,
            cpu=_cpu(),
            to_el=_source_el(get("SPSR_EL2")),
            pc=get("ELR_EL2") or 0,
            time=time.monotonic_ns(),
            hcr=get("HCR_EL2"),
            vttbr=vttbr,
            vtcr=self._vtcr_for(vttbr),
            vector_base=base,
        )
        self._seq += 1
        return event


def _cpu() -> int:
    """Return the CPU of the selected thread: QEMU's thread ids count from 1."""
    thread = gdb.selected_thread()
    if thread is None:
        raise NoTarget("no CPU is selected")
    return (thread.ptid[1] or thread.num) - 1


def _source_el(spsr: int | None) -> int:
    """Return the exception level in a saved program status: SPSR.M[3:2]; AArch32 modes are mapped to theirs."""
    if spsr is None:
        return 1
    if spsr >> 4 & 1:
        return 0 if spsr & 0xF == 0 else 1
    return spsr >> 2 & 3
