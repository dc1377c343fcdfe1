"""The live target: the selected CPU of GDB's inferior as a Stop."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterable, Iterator
from typing import Literal, cast

import gdb

from gdbhyp.engine.machine import Machine, Registers, pstate_of
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import NoTarget
from gdbhyp.plugin import parameters
from gdbhyp.plugin.capture import captured
from gdbhyp.plugin.core import core_stop, is_core
from gdbhyp.plugin.host_memory import Way, choose
from gdbhyp.plugin.memo import stop_memo
from gdbhyp.plugin.parameters import register_map
from gdbhyp.plugin.remote import (
    LOST,
    PhysicalMemory,
    RamMap,
    ask,
    give_back_monitor,
    is_connected,
    let_gdb_look,
)
from gdbhyp.plugin.stub_names import integer_names, stub_names
from gdbhyp.plugin.threads import borrowed_thread
from gdbhyp.plugin.types import loaded_types
from gdbhyp.render.style import escape

_NOTHING = "nothing is being debugged: attach with 'target remote HOST:PORT' first"
_NO_EL2 = (
    "the stub shows no EL2 registers: start QEMU with '-M virt,virtualization=on' and a CPU that has EL2, "
    "for example '-cpu max'; for another stub, 'hyp-help stubs'"
)


class FrameRegisters:
    """Registers of the newest frame by architectural name, each read once."""

    def __init__(self, frame: gdb.Frame) -> None:
        self._frame = frame
        self._map = register_map()
        self._known: dict[str, int | None] = {**self._map.values}
        self._names = shown_names(frame.architecture())

    def get(self, name: str, /) -> int | None:
        if name not in self._known:
            self._known[name] = self._read(name)
        return self._known[name]

    def _read(self, name: str) -> int | None:
        command = self._map.monitor.get(name)
        if command is not None:
            return _printed(command)
        mapped = self._map.names.get(name)
        stub_name = mapped if mapped in self._names.shown else self._names[name]
        if stub_name is None:
            return None
        began = time.monotonic()
        try:
            value: int | None = self._value(stub_name)
        except gdb.error:
            value = self._value_again(stub_name)
        _check_patience(began)
        return value

    def _value(self, stub_name: str) -> int:
        let_gdb_look()
        # GDB finds a frame again by its identity. Where Ctrl-C cut short how that was found out, the newest frame has
        # another one afterwards and the old one may be a caller's, whose registers are not the CPU's.
        if self._frame.level() != 0:
            self._frame = _newest_frame(lost=LOST)
        value = self._frame.read_register(stub_name)
        # A type that GDB takes for signed, as QEMU's cpsr, must not spread its sign.
        return int(value) & (1 << 8 * value.type.sizeof) - 1

    def _value_again(self, stub_name: str) -> int | None:
        """Return the register, None if the stub does not give it away.

        GDB forgets its frames when Ctrl-C hits while it works on them. That is no reason to take a register for
        missing, so it is asked for once more, of a new frame.

        :raises NoTarget: if there is none to ask any more.
        """
        self._frame = _newest_frame(lost=LOST)
        try:
            return self._value(stub_name)
        except gdb.error as error:
            if not self._frame.is_valid():
                raise NoTarget(f"GDB cannot read the CPU's registers ({error})") from error
            return None

    def every(self) -> dict[str, int]:
        """Return every register that has an integer value, by each of its names."""
        mapped = (*self._map.values, *self._map.monitor, *self._map.names)
        values = {name: self.get(name) for name in (*integer_names(self._names.shown), *mapped)}
        return {name: value for name, value in values.items() if value is not None}

    def ask_stub(self) -> None:
        """Make GDB ask the stub for registers of this CPU.

        It does so for those that it does not know yet; if it knows all of these, they were read at this stop.
        """
        for stub_name in sorted(self._names.shown)[:_PROBES]:
            with contextlib.suppress(gdb.error):
                self._frame.read_register(stub_name)


def _printed(command: str) -> int | None:
    """Return the register that a command of the stub's monitor prints, None if it prints none."""
    from gdbhyp.commands.register_map import printed_value

    try:
        return printed_value(captured(f"monitor {command}"))
    except gdb.error as error:
        if not is_connected():
            raise NoTarget(LOST) from error
        return None


class _StubNames(dict[str, "str | None"]):
    """What the stub calls a register, by the architecture's name; None where it does not show it."""

    def __init__(self, shown: Iterable[str]) -> None:
        super().__init__()
        self.shown = frozenset(shown)

    def __missing__(self, name: str) -> str | None:
        found = self[name] = next((known for known in stub_names(name) if known in self.shown), None)
        return found


_names_of: dict[str, _StubNames] = {}


def shown_names(architecture: gdb.Architecture) -> _StubNames:
    """Return the names of all registers that the stub described.

    Asking GDB for all of them costs a millisecond; the answer changes only with the connection.
    """
    key = _connection_key()
    if key not in _names_of:
        _names_of.clear()
        _names_of[key] = _StubNames(r.name for r in architecture.registers())
    return _names_of[key]


def _connection_key() -> str:
    connection = gdb.selected_inferior().connection
    return f"{connection.num} {connection.details}" if connection is not None else ""


_ram_of: dict[str, RamMap] = {}


_RAM = object()


def _ram_map() -> RamMap:
    """Return the memory ranges of the machine; empty if the stub has no monitor.

    They are asked for again when the machine has run, for memory modules come and go. While GDB evaluates a condition,
    which it may do a hundred times a second, those that were known last have to do.
    """
    key = _connection_key()
    known = _ram_of.get(key)
    thread = gdb.selected_thread()
    if known is not None and thread is not None and thread.is_running():
        return known
    memo = stop_memo()
    seen: RamMap | None = memo.get(_RAM)
    if seen is not None and seen is known:
        return seen
    fresh = RamMap(_monitor("info mtree -f"))
    _ram_of.clear()
    _ram_of[key] = memo[_RAM] = fresh
    return fresh


_LATE = (
    "the stub answered too late, and its answers no longer belong to the questions: attach again with 'target remote', "
    "after 'set remotetimeout 30' if the machine is slow"
)
_ASK_DESCRIPTION = "qXfer:features:read:target.xml:0,{:x}"
_lengths = itertools.cycle(range(1, 61))


def _check_in_step() -> None:
    """Refuse to answer when GDB gave up waiting for an answer that came later, and takes each for the next question's.

    Each time another number of bytes of the target's description is asked for, by which the answer is known: "m" and
    so many of them, or "l" and all of a shorter one. A stub that has no description answers with nothing.

    :raises NoTarget: then.
    """
    length = next(_lengths)
    answer = ask(_ASK_DESCRIPTION.format(length))
    if (
        answer
        and not answer.startswith(b"l<")
        and not (answer.startswith(b"m") and len(answer) == length + 1)
    ):
        raise NoTarget(_LATE)


_LEAST_PATIENCE = 1.0  # GDB waits for whole seconds


def _check_patience(began: float) -> None:
    """Check that the stub is in step if what began then took so long that GDB may have given up waiting for it."""
    waited = time.monotonic() - began
    if waited < _LEAST_PATIENCE:
        return
    patience = cast("int | None", gdb.parameter("remotetimeout"))
    if patience is not None and waited >= patience:
        if not isinstance(gdb.selected_inferior().connection, gdb.RemoteTargetConnection):
            raise NoTarget(LOST)
        _check_in_step()


def _monitor(command: str) -> str:
    """Return what QEMU's monitor answers; nothing if the stub has no monitor."""
    try:
        return captured(f"monitor {command}")
    except gdb.error as error:
        if not is_connected():
            raise NoTarget(LOST) from error
        return ""


_way_of: dict[tuple[object, ...], Way] = {}


def _way() -> Way:
    """Return how physical memory is read, found out once for a connection, its memory, and what is set."""
    wanted = parameters.value(parameters.MEMORY)
    blocks = _ram_map().blocks
    key = (_connection_key(), wanted, *blocks)
    if key not in _way_of:
        for way in _way_of.values():
            way.close()
        _way_of.clear()
        way = _way_of[key] = choose(wanted, blocks, _monitor, _connection_key())
        if way.memory is None and wanted in parameters.LOCAL_MEMORY:
            _warn(f"physical memory is read {way.sentence}")
    return _way_of[key]


def _warn(sentence: str) -> None:
    gdb.write(escape(sentence) + "\n", gdb.STDERR)


_STALE = (
    "GDB's registers are not the CPU's: it ran or was reset behind GDB's back; type "
    "'maintenance flush register-cache' to read them again"
)
_READ_PC = "p20"  # pc is register 32 of GDB's org.gnu.gdb.aarch64.core, in hexadecimal
_PROBES = 8
_BYTE_ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")


def _check_current(registers: FrameRegisters) -> None:
    """Refuse to answer from remembered registers when the CPU stands elsewhere by now.

    :raises NoTarget: if the stub has another PC than GDB, as after ``cont`` or ``system_reset`` in QEMU's monitor.
    """
    pc = registers.get("PC")
    if pc is None or _is_at(pc):
        return
    # Stubs answer for the CPU that GDB asked about last, which need not be the selected one.
    registers.ask_stub()
    if not _is_at(pc):
        raise NoTarget(_STALE)


def _is_at(pc: int) -> bool:
    """Return whether the stub's PC is ``pc``, or cannot be asked for."""
    answer = ask(_READ_PC)
    spellings = [pc.to_bytes(8, order).hex().encode() for order in _BYTE_ORDERS]
    return answer in spellings or len(answer) != len(spellings[0]) or answer.startswith(b"x")


_RUNNING = "the CPU is running: stop it first, with Ctrl-C or 'interrupt'"


def _newest_frame(lost: str = _NOTHING, running: str = _RUNNING) -> gdb.Frame:
    thread = gdb.selected_thread()
    if not is_connected() or thread is None:
        raise NoTarget(lost)
    try:
        return gdb.newest_frame()
    except gdb.error as error:
        if not is_connected():
            raise NoTarget(LOST) from error
        # Not asked before: while GDB evaluates a breakpoint's condition, a CPU that stands still counts as running.
        if thread.is_running():
            raise NoTarget(running) from error
        raise NoTarget(f"the CPU's registers cannot be read ({error})") from error


@contextlib.contextmanager
def live_stop() -> Iterator[Stop]:
    """Lend the selected CPU as a Stop; the stub is as it was before when the block ends.

    :raises NoTarget: with no inferior, a running CPU, another architecture, or no EL2.
    """
    frame = _newest_frame()
    architecture = frame.architecture().name()
    if not architecture.startswith("aarch64"):
        raise NoTarget(f"the target is {architecture}, not AArch64")
    if is_core():
        yield core_stop(symbol_at)
        return
    connection = gdb.selected_inferior().connection
    registers = FrameRegisters(frame)
    has_el2 = registers.get("HCR_EL2") is not None
    if isinstance(connection, gdb.RemoteTargetConnection):
        _check_in_step()
    if not has_el2 or not isinstance(connection, gdb.RemoteTargetConnection):
        raise NoTarget(_NO_EL2)
    _check_current(registers)
    give_back_monitor(connection)
    with PhysicalMemory(connection, _ram_map, _way, _warn) as memory:
        yield _Cpus(memory, gdb.selected_thread(), registers).selected


@contextlib.contextmanager
def hit_stop(registers: Registers, cpu: int) -> Iterator[Stop]:
    """Lend the CPU that hits a breakpoint right now, for which GDB has no frames yet; it is asked by ``registers``.

    :raises NoTarget: if the target is no remote one.
    """
    connection = gdb.selected_inferior().connection
    if not isinstance(connection, gdb.RemoteTargetConnection):
        raise NoTarget(_NO_EL2)
    with PhysicalMemory(connection, _ram_map) as memory:
        yield Stop(Machine(registers, memory, pstate_of(registers.get("CPSR") or 0)), cpu=cpu)


def translation_registers() -> set[str]:
    """Return the registers that decide whose world a CPU is in and how it translates."""
    from gdbhyp.arch.regimes import Regime
    from gdbhyp.engine.walk import setup_registers

    regimes = (Regime.EL10, Regime.EL2, Regime.EL20)
    return {"CPSR", "PC", "SPSR_EL2", "VBAR_EL2"}.union(*map(setup_registers, regimes))


class ThreadRegisters:
    """Registers of a CPU that is not the selected one: its thread is borrowed for each question.

    Another thread makes GDB look at that CPU's code, so physical memory is given back before. That costs as much as
    reading dozens of registers, so that those by which it translates are all read at the first time.
    """

    def __init__(self, thread: gdb.InferiorThread, memory: PhysicalMemory) -> None:
        self._thread = thread
        self._memory = memory
        self._known: dict[str, int | None] = {}

    def get(self, name: str, /) -> int | None:
        if name not in self._known:
            together = set() if self._known else translation_registers()
            with self._registers() as registers:
                self._known.update((each, registers.get(each)) for each in {name, *together})
        return self._known[name]

    def every(self) -> dict[str, int]:
        """Return every register that has an integer value, by each of its names."""
        with self._registers() as registers:
            return registers.every()

    @contextlib.contextmanager
    def _registers(self) -> Iterator[FrameRegisters]:
        self._memory.give_back()
        running = f"CPU {_cpu_of(self._thread)} is running: stop it first, with 'interrupt -a'"
        with borrowed_thread(self._thread):
            yield FrameRegisters(_newest_frame(LOST, running))


class _Cpus:
    """The CPUs of the inferior as Stops that know each other; those that are not selected are made when asked for."""

    def __init__(self, memory: PhysicalMemory, thread: gdb.InferiorThread, registers: FrameRegisters) -> None:
        self._memory = memory
        self.selected = self._stop(thread, registers)
        self._stops = {thread.num: self.selected}

    def _stop(self, thread: gdb.InferiorThread, registers: FrameRegisters | ThreadRegisters) -> Stop:
        number = thread.num
        return Stop(
            Machine(registers, self._memory, pstate_of(registers.get("CPSR") or 0)),
            cpu=_cpu_of(thread),
            count_cpus=lambda: len(gdb.selected_inferior().threads()),
            symbol=symbol_at,
            others=lambda: self._all_but(number),
            ram=lambda: tuple((first, last + 1) for first, last in _ram_map().ranges),
            memory_way=lambda: self._memory.way.sentence,
            # While GDB evaluates a condition the machine has run, and no event has said so.
            memo={} if thread.is_running() else stop_memo(),
            every_register=registers.every,
            versions=_versions,
            types=loaded_types,
            assumed=_assumed(),
        )

    def _all_but(self, number: int) -> list[Stop]:
        for thread in gdb.selected_inferior().threads():
            if thread.num not in self._stops:
                self._stops[thread.num] = self._stop(thread, ThreadRegisters(thread, self._memory))
        return [stop for num, stop in self._stops.items() if num != number]


def _versions() -> dict[str, str]:
    """Return the version of GDB, and of QEMU where there is a monitor to ask."""
    found = {"GDB": gdb.VERSION}
    with contextlib.suppress(gdb.error):
        said = captured("monitor info version").split()
        found |= {"QEMU": said[0]} if said else {}
    return found


def _assumed() -> str | None:
    """Return which hypervisor the person says it is."""
    from gdbhyp.commands.parameters import HYPERVISOR
    from gdbhyp.plugin.parameters import value

    said = value(HYPERVISOR)
    return None if said == HYPERVISOR.initial else said


def _cpu_of(thread: gdb.InferiorThread) -> int:
    return thread.num - 1


def symbol_at(address: int) -> str | None:
    """Return ``name+offset`` for an address that a loaded symbol file covers."""
    let_gdb_look()
    text = captured(f"info symbol {address:#x}")
    if text.startswith("No symbol matches"):
        return None
    return text.split(" in section")[0].strip().replace(" + ", "+")
