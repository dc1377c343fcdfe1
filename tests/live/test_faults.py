"""What goes wrong with machines and stubs ends in bounded time in one clear sentence, or in a right answer."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from live.conftest import GDBINIT, Attach, demo_arguments
from live.test_faulty_stub import BOUND, LINES, answer, attach_again, check
from live.test_robustness import INTERRUPT, LONG_MAP, NO_EL2, RUNNING, VTCR, large, refusal, wait_until
from support import qemu
from support.demo import run_to
from support.gdb_session import CommandError, GdbSession
from support.stub_proxy import Plan, Proxy, proxy
from support.undisturbed import LONG, each_part_once

__all__ = ["large"]  # a fixture

# A block of the GiB at 0x4000_0000: what each of the entries leads to.
BLOCK = 0x4000_0000 | 1 << 10 | 3 << 8 | 3 << 6 | 0xF << 2 | 1

# The registers by which a guest, or here the test, lets go of a memory module (QEMU, docs/specs/acpi_mem_hotplug).
SLOT, FLAGS, EJECT = 0x907_0000, 0x907_0014, 8


@contextmanager
def module(folder: Path) -> Iterator[tuple[qemu.Machine, socket.socket]]:
    """A machine whose CPU spins, with a memory module that can be taken out, and a line into its buses."""
    flash = folder / "flash"
    flash.write_bytes(struct.pack("<I", 0x1400_0000))  # b .
    arguments = [
        *("-M", "virt,virtualization=on", "-cpu", "max", "-m", "256M,slots=1,maxmem=1G", "-bios", str(flash)),
        *("-object", "memory-backend-ram,id=ram,size=128M", "-device", "pc-dimm,id=module,memdev=ram"),
        *("-qtest", f"unix:{folder / 'qtest'},server=on,wait=off", "-qtest-log", "/dev/null"),
    ]
    with qemu.machine(folder, arguments) as running, socket.socket(socket.AF_UNIX) as bus:
        bus.connect(str(folder / "qtest"))
        yield running, bus


def tell(bus: socket.socket, line: str) -> None:
    """Do what a line of QEMU's qtest says."""
    bus.sendall(line.encode() + b"\n")
    assert bus.recv(4096).startswith(b"OK")


def take_out(machine: qemu.Machine, bus: socket.socket) -> None:
    """Take the module out as soon as the machine runs, and stop it."""
    wait_until(lambda: "running" in machine.command("info status"))
    machine.command("device_del module")
    tell(bus, f"writel {SLOT:#x} 0")
    tell(bus, f"writeb {FLAGS:#x} {EJECT}")
    wait_until(lambda: "module" not in machine.command("info memory-devices"))
    machine.command("stop")


def test_memory_is_unplugged(gdb_program: str, tmp_path: Path) -> None:
    """A table in a module that was taken out while the machine ran: what was there is not taken for zeros."""
    with module(tmp_path) as (machine, bus), GdbSession(gdb_program, tmp_path) as session:
        base = int(machine.command("info memory-devices").split("addr: ")[1].split()[0], 16)
        tell(bus, f"write {base:#x} 0x1000 0x{(struct.pack('<Q', BLOCK) * 512).hex()}")
        session.run("set architecture aarch64")
        session.run(f"source {GDBINIT}")
        session.run(f"target remote {machine.gdb}")
        walk = f"hyp-walk --stage2 0x80000000 --vttbr {base:#x} --vtcr {VTCR:#x}"
        for way in ("stub", "auto"):
            session.run(f"set hyp memory {way}")
            assert session.json(walk)["output"] == "0x40000000"
        taking = threading.Thread(target=take_out, args=(machine, bus))
        taking.start()
        session.run("continue")
        taking.join()
        for way in ("stub", "auto"):
            session.run(f"set hyp memory {way}")
            answer = session.json(walk)
            assert answer["output"] is None
            assert answer["fault"]["kind"] == "external_abort"
        assert refusal(session, f"hyp-x/1xg {base:#x} --pa").endswith("the machine has no memory there")


@pytest.fixture
def line(machine: qemu.Machine, tmp_path: Path) -> Iterator[Proxy]:
    """The demo hypervisor's stub behind one that can be made to know less."""
    with proxy(tmp_path / "proxy.sock", machine.gdb) as between:
        yield between


@pytest.fixture
def at_trap(session: GdbSession, truth: Any) -> GdbSession:
    """The demo where a guest's store has faulted; QEMU keeps it there when GDB leaves without a word."""
    run_to(session, next(s for s in truth["vms"][0]["sites"] if s["symbol"] == "guest_perm_store"))
    return session


@contextmanager
def attached(gdb_program: str, line: Proxy, folder: Path) -> Iterator[GdbSession]:
    with GdbSession(gdb_program, folder) as session:
        session.run("set architecture aarch64")
        session.run("set remotetimeout 1")
        session.run(f"source {GDBINIT}")
        session.run(f"target remote {line.path}")
        yield session


def ask_all(session: GdbSession) -> dict[str, str]:
    """Type a line of each part of each command, and return the sentences of those that were refused."""
    refused = {}
    for command in each_part_once(Path("/nonexistent")):
        began = time.monotonic()
        try:
            session.run(command)
        except CommandError as error:
            refused[command] = str(error)
        assert time.monotonic() - began < BOUND, command
    assert [sentence for sentence in refused.values() if "\n" in sentence] == []
    return refused


def without_registers(request: bytes, answer: bytes) -> bytes:
    """A stub that shows what every AArch64 has, and no system register."""
    if request.startswith(b"qXfer:features:read:target.xml"):
        return answer.replace(b'<xi:include href="system-registers.xml"/>', b"")
    return answer


def without_qemu(request: bytes, answer: bytes) -> bytes:
    """A stub that is not QEMU's: no description, no physical memory, no monitor."""
    if request.startswith((b"qqemu", b"Qqemu", b"qRcmd", b"qXfer:features")):
        return b""
    return answer.replace(b"qXfer:features:read+;", b"").replace(b";qXfer:features:read+", b"")


@pytest.mark.parametrize("edit", [without_registers, without_qemu], ids=lambda edit: edit.__name__)
def test_a_stub_without_system_registers(
    at_trap: GdbSession, line: Proxy, gdb_program: str, tmp_path: Path, edit: Callable[[bytes, bytes], bytes]
) -> None:
    """What needs a target says what is missing; what needs none is answered."""
    at_trap.run("disconnect")
    line.edit = edit
    with attached(gdb_program, line, tmp_path) as session:
        assert refusal(session, "hyp-status") == NO_EL2
        refused = ask_all(session)
        assert refused["hyp-walk $pc"] == NO_EL2
        assert "HVC" in session.run("hyp-esr 0x5a000000")


def without_mode(request: bytes, answer: bytes) -> bytes:
    return b"" if request.startswith((b"qqemu.PhyMemMode", b"Qqemu.PhyMemMode")) else answer


def refused_mode(request: bytes, answer: bytes) -> bytes:
    return b"E22" if request == b"Qqemu.PhyMemMode:1" else answer


@pytest.mark.parametrize(
    ("edit", "said"),
    [(without_mode, "the stub has no physical memory mode"), (refused_mode, "refused to switch to physical")],
)
def test_physical_memory_is_refused(
    at_trap: GdbSession,
    line: Proxy,
    gdb_program: str,
    tmp_path: Path,
    edit: Callable[[bytes, bytes], bytes],
    said: str,
) -> None:
    """Tables cannot be read, which is said; registers can, and are."""
    right = at_trap.run("hyp-esr --json")
    at_trap.run("disconnect")
    line.edit = edit
    with attached(gdb_program, line, tmp_path) as session:
        refused = ask_all(session)
        for command in ("hyp-walk $pc", "hyp-map"):
            assert said in refused[command]
        check("hyp-esr", session.run("hyp-esr --json"), right)
        assert "0" in session.run("maintenance packet qqemu.PhyMemMode") or edit is without_mode


MISSING = (
    ("HCR_EL2",),
    ("VTTBR_EL2", "ESR_EL2"),
    ("VTCR_EL2", "HPFAR_EL2"),
    ("ID_AA64MMFR0_EL1", "SCTLR_EL2"),
    ("TCR_EL2", "FAR_EL2", "SPSR_EL2"),
    ("VBAR_EL2", "TTBR0_EL2", "SCTLR"),
)


def test_registers_are_missing(at_trap: GdbSession, line: Proxy, gdb_program: str, tmp_path: Path) -> None:
    """What depends on a register that the stub does not show is null or a sentence; the rest is right."""
    right = {command: at_trap.run(f"{command} --json") for command in LINES}
    at_trap.run("disconnect")
    for missing in MISSING:
        line.edit = renaming(missing)
        with attached(gdb_program, line, tmp_path) as session:
            names = session.python("[r.name for r in gdb.selected_frame().architecture().registers()]")
            assert not {*missing} & {*names}
            for command in LINES:
                said, sentence = answer(session, command)
                assert said is not None or sentence
                assert "\n" not in sentence
                if said is not None:
                    check(command, said, right[command])


def renaming(names: tuple[str, ...]) -> Callable[[bytes, bytes], bytes]:
    """Return what gives registers names that nobody knows, of the same length, so that all others keep their place."""

    def edit(request: bytes, text: bytes) -> bytes:
        if request.startswith(b"qXfer:features:read:system-registers.xml"):
            for name in names:
                text = text.replace(f'name="{name}"'.encode(), f'name="{"X" * len(name)}"'.encode())
        return text

    return edit


class Once(Plan):
    """One fault, which the answer or request of this number suffers, counted from 1."""

    def __init__(self, kind: str, number: int) -> None:
        super().__init__((kind,), 0, 0)
        self.left = number

    def fault(self) -> str | None:
        self.left -= 1
        return self.kinds[0] if self.left == 0 else None


@pytest.mark.parametrize("kind", ["drop", "lose"])
def test_a_packet_is_dropped(
    at_trap: GdbSession, line: Proxy, gdb_program: str, tmp_path: Path, kind: str
) -> None:
    """GDB asks again, or gives up: the answer is right, or a sentence, and so is the next one."""
    command = "hyp-walk --regime EL1 $FAR_EL2"
    right = at_trap.run(f"{command} --json")
    at_trap.run("disconnect")
    with attached(gdb_program, line, tmp_path) as session:
        session.run(command)
        for number in range(1, 40) if LONG else (1, 4):
            session.run("maintenance flush register-cache")
            line.plan = Once(kind, number)
            said, sentence = answer(session, command)
            line.plan = None
            assert said == right if said is not None else sentence
            if said is None:
                with suppress(CommandError):
                    session.run("disconnect")
                attach_again(session, line)
            session.run("maintenance flush register-cache")
            assert session.run(f"{command} --json") == right
        assert line.injected


def test_a_running_machine(session: GdbSession) -> None:
    """Each command says so, or needs no CPU, or listens while it runs."""
    session.run("continue &")
    refused = ask_all(session)
    assert refused["hyp-walk $pc"] == RUNNING


def test_a_cpu_that_is_off(demo: Path, attach: Attach, tmp_path: Path) -> None:
    """The second CPU before the first has switched it on: it stands at its reset values, at EL2 with no table."""
    with qemu.machine(tmp_path, demo_arguments(demo, cpus=2)) as running:
        session = attach(running)
        for thread in (1, 2):
            session.run(f"thread {thread}")
            ask_all(session)
            status = session.json("hyp-status")
            assert (status["cpu"], status["cpus"], status["el"]) == (thread - 1, 2, 2)
            walk = session.json("hyp-walk $pc")
            assert walk["output"] == walk["input"], "the MMU is off"
            # Address 0 is among those that are asked for, and QEMU writes its output as 0, not 0x0.
            compared = session.json("hyp-selftest --samples 300")
            assert compared["differences"] == []
            assert compared["agreed"] > 250


@pytest.mark.parametrize("event", ["cont", "stop", "system_reset"])
def test_behind_gdb_during_a_command(large: qemu.Machine, attach: Attach, truth: Any, event: str) -> None:
    """Somebody else's monitor moves the machine while a long map is made: it ends, and the next answer is right."""
    session = attach(large)
    run_to(session, truth["vms"][0]["sites"][0])
    session.run("hyp-status")
    session.run(f"source {INTERRUPT}")
    typed = threading.Timer(0.3, large.command, [event])
    typed.start()
    ended, took = session.python(f"bounded({LONG_MAP!r}, 1.0)")
    typed.join()
    assert took < BOUND
    assert "\n" not in (ended or "")
    large.command("stop")
    session.run("maintenance flush register-cache")
    answers = [session.json("hyp-walk $pc") for _ in range(2)]
    assert answers[0] == answers[1]
    assert int(answers[0]["input"], 16) == session.register("pc")
