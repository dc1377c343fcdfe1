"""A stopped CPU: what a question is asked of, live or from a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gdbhyp.engine.layouts import Types
from gdbhyp.engine.machine import Machine
from gdbhyp.errors import RegisterUnavailable


def _no_symbol(address: int, /) -> str | None:
    return None


@dataclass(frozen=True)
class Stop:
    """One CPU at one moment.

    ``machine.registers`` also answers to "PC", "SP", "CPSR" and "X0" to "X30". ``symbol(address)`` names an address
    of the current regime as ``name+offset``, or returns None. ``origin`` says where the values come from ("live", or
    a file). ``cpu`` counts from 0; ``count_cpus()`` says how many there are, which may take a question to the target.
    ``others()`` are the machine's other CPUs, and ``ram()`` the physical ranges (start, end) that hold memory, end
    exclusive and ascending, empty where that is not known. ``every_register()`` are all that the target shows of this
    CPU, by the architecture's names and the target's, and ``versions()`` names the programs that the target is made of.
    ``memory_way()`` says in words how physical memory is read, nothing where there is only one way. ``vmcoreinfo`` is
    what a Linux dump says about its kernel, KEY=VALUE. ``types(build_id)`` are the types of the program with this build
    ID (hexadecimal) that a debugger has loaded with debug information, None without one. ``assumed`` is the hypervisor
    that the person says it is. ``memo`` keeps what was computed about the machine for as long as it stands still; what
    is put there must not hold on to the target.
    """

    machine: Machine
    origin: str = "live"
    cpu: int = 0
    count_cpus: Callable[[], int] = lambda: 1
    symbol: Callable[[int], str | None] = _no_symbol
    others: Callable[[], Sequence[Stop]] = lambda: ()
    ram: Callable[[], Sequence[tuple[int, int]]] = lambda: ()
    memory_way: Callable[[], str] = lambda: ""
    memo: MutableMapping[object, Any] = field(default_factory=dict, compare=False, repr=False)
    every_register: Callable[[], Mapping[str, int]] = dict
    versions: Callable[[], Mapping[str, str]] = dict
    vmcoreinfo: Mapping[str, str] | None = None
    types: Callable[[str], Types | None] = lambda build_id: None
    assumed: str | None = None

    def cpus(self) -> tuple[Stop, ...]:
        """Return every CPU of the machine, this one included, in ascending order."""
        return tuple(sorted((self, *self.others()), key=lambda stop: stop.cpu))

    def register(self, name: str) -> int:
        """Return a register that the question cannot do without.

        :raises RegisterUnavailable: if the target does not show it.
        """
        value = self.machine.registers.get(name)
        if value is None:
            raise RegisterUnavailable(name)
        return value

    def optional(self, name: str) -> int | None:
        """Return a register, or None if the target does not show it."""
        return self.machine.registers.get(name)

    @property
    def el(self) -> int:
        """The current exception level, PSTATE.EL (CPSR[3:2]); AArch32 modes are mapped to theirs."""
        cpsr = self.register("CPSR")
        if cpsr >> 4 & 1:
            return {0b0000: 0, 0b1010: 2, 0b0110: 3}.get(cpsr & 0xF, 1)
        return cpsr >> 2 & 3

    @property
    def aarch32(self) -> bool:
        """Whether the CPU executes in AArch32 state, PSTATE.nRW (CPSR[4])."""
        return bool(self.register("CPSR") >> 4 & 1)
