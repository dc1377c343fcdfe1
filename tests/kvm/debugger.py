"""GDB at a rig: how to stop it in the host, in the guest, and where a guest exits to EL2."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from support.gdb_session import GdbSession

from kvm.rig import Rig

_ATTEMPTS = 400
_PATIENCE = 60.0
_AGAIN = 0.05
_E2H, _TGE, _VM = 1 << 34, 1 << 27, 1

SYNC_FROM_LOWER = 0x400
"""Offset of the vector for synchronous exceptions from a lower EL in AArch64 state (Arm ARM, D1.4.1.5)."""


class Debugger:
    """A GDB attached to a rig. CPUs count from 0; addresses and registers are integers."""

    def __init__(self, session: GdbSession, rig: Rig) -> None:
        self.session = session
        self.rig = rig

    @property
    def cpu(self) -> int:
        """The selected CPU."""
        return int(self.session.python("gdb.selected_thread().num")) - 1

    def select(self, cpu: int) -> None:
        """Select a CPU, for GDB and for GDB's ``monitor``, which are different choices."""
        self.session.run(f"thread {cpu + 1}")
        self.session.run(f"monitor cpu {cpu}")

    def register(self, name: str) -> int:
        """Return a register of the selected CPU by the stub's name."""
        return self.session.register(name)

    @property
    def el(self) -> int:
        """The exception level of the selected CPU."""
        return self.register("cpsr") >> 2 & 3

    def run_for(self, seconds: float) -> None:
        """Let all CPUs run until one stops by itself, but no longer than this.

        The stop comes from QEMU's own monitor, for an interrupt to GDB could arrive when it no longer waits. It is
        repeated because the first can arrive before GDB has made the CPUs run.
        """
        stopped = threading.Event()

        def stop() -> None:
            pause = seconds
            while not stopped.wait(pause):
                self.rig.machine.command("stop")
                pause = _AGAIN

        stopper = threading.Thread(target=stop)
        stopper.start()
        try:
            self.session.run("continue")
        finally:
            stopped.set()
            stopper.join()

    def run_to(self, address: int, condition: str = "") -> None:
        """Run until a CPU is about to execute at a VA, in whatever context, and select that CPU.

        ``condition`` is an expression of GDB's, which is several times quicker than one of ours.
        """
        if _needs_52_bits(address) and self.el < 2:
            self._run_to_by_packet(address)
            if not condition or self.session.python(f"bool(gdb.parse_and_eval({condition!r}))"):
                return
        where = f"hbreak *{address:#x}" + (f" if {condition}" if condition else "")
        number = self.session.run(where).split()[3]
        self.run_for(_PATIENCE)
        self.session.run(f"delete {number}")
        self.select(self.cpu)
        assert self.register("pc") == address, f"not reached: {where}\n{self.rig.tail()}"

    def _run_to_by_packet(self, address: int) -> None:
        """Do the same without GDB's breakpoints, which can miss an address of EL2 that needs 52 bits.

        GDB inserts a breakpoint at its address less what the selected CPU takes for a pointer signature (where the
        stub has the pauth masks), and in a guest with 48-bit addresses that is more than at EL2.
        """
        self.session.run(f"maintenance packet Z1,{address:x},4")
        self.run_for(_PATIENCE)
        self.session.run(f"maintenance packet z1,{address:x},4")
        self.select(self.cpu)
        assert self.register("pc") == address, f"not reached: {address:#x}\n{self.rig.tail()}"

    def run_until(self, wanted: Callable[[], bool]) -> None:
        """Stop at random moments until ``wanted()`` is true of a CPU, and select it."""
        moments = random.Random(0)
        for _ in range(_ATTEMPTS):
            self.run_for(moments.uniform(0.001, 0.02))
            for cpu in (0, 1):
                self.select(cpu)
                if wanted():
                    return
        raise AssertionError(f"no such stop in {_ATTEMPTS} attempts\n{self.rig.tail()}")

    def in_guest(self) -> bool:
        """Whether the selected CPU executes a guest: below EL2, in a VM (pKVM's host has VMID 0)."""
        return self.el < 2 and bool(self.register("HCR_EL2") & _VM) and self.register("VTTBR_EL2") >> 48 != 0

    def in_host(self) -> bool:
        """Whether the selected CPU executes the host: TGE in VHE, else below EL2 and not in a VM."""
        if self.register("HCR_EL2") & _TGE:
            return True
        return self.el < 2 and not self.in_guest()

    def stop_in_guest(self, vm: int = 0) -> None:
        """Stop where each round of the guest's loop passes, and select that CPU."""
        spun = next(line["spun"] for line in self.rig.said("code") if line["vm"] == vm)
        for _ in range(_ATTEMPTS):
            self.run_to(spun)
            if self.in_guest():
                return
        raise AssertionError(f"only the host has code at {spun:#x}\n{self.rig.tail()}")

    def stop_in_host(self) -> None:
        """Stop a CPU in the host's kernel, and select it."""
        self.run_until(lambda: self.in_host() and self.el > 0)

    def stop_in_host_program(self) -> None:
        """Stop in the VMM, where it handles an MMIO exit, and select that CPU."""
        self.run_to(self.rig.said("host")[0]["exit"])

    def stop_at_host_call(self) -> None:
        """Stop where a call of the host's kernel enters EL2; there is none such in VHE."""
        self.stop_in_host()
        self.run_to(self.register("VBAR_EL2") + SYNC_FROM_LOWER)

    def stop_at_exit(self, condition: str = "") -> int:
        """Stop where a guest's synchronous exception enters EL2 with GDB's ``condition`` true; return ESR_EL2."""
        if self.rig.vector is None:
            self.stop_in_guest()
            self.rig.vector = self.register("VBAR_EL2")
        self.run_to(self.rig.vector + SYNC_FROM_LOWER, condition)
        return self.register("ESR_EL2")

    def vmm_is_told(self, ipa: int, data: int, vm: int | None = None) -> bool:
        """Run until the VMM has printed the store of ``data`` to ``ipa``; False if it does not."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            self.run_for(0.05)
            if any(
                line["write"] and (line["ipa"], line["data"]) == (ipa, data) and vm in (None, line["vm"])
                for line in self.rig.said("mmio")
            ):
                return True
        return False

    def gva2gpa(self, va: int) -> int | None:
        """Return the PA that QEMU itself finds for a VA of the selected CPU's current regime, both stages."""
        answer = self.session.run(f"monitor gva2gpa {va:#x}").strip()
        if answer == "Unmapped":
            return None
        return int(answer.removeprefix("gpa: "), 16)


MMIO_ABORT = "$ESR_EL2 >> 26 == 0x24 && ($ESR_EL2 & 0x10000BC) == 0x1000004"
"""A Translation fault of a guest's Data Abort that describes its access: ISV, not S1PTW, any level."""

PERMISSION_ABORT = "$ESR_EL2 >> 26 == 0x24 && ($ESR_EL2 & 0xBC) == 0xC"
"""A Permission fault of a guest's Data Abort that is not on a stage-1 walk."""

IS_WRITE = "($ESR_EL2 & 0x40) != 0"


def _needs_52_bits(address: int) -> bool:
    return address >> 48 not in (0, 0xFFFF)


def within(register: str, start: int, size: int) -> str:
    """Return GDB's expression for a register's value lying in a range."""
    return f"(unsigned long) ${register} - {start:#x}UL < {size:#x}UL"
