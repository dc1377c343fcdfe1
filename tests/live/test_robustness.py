"""What cannot be answered is one sentence, and whatever happens, the target and GDB are as before."""

from __future__ import annotations

import json
import os
import platform
import random
import re
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from live.conftest import GDBINIT, Attach, demo_arguments
from support import qemu, tools
from support.demo import run_to
from support.gdb_session import CommandError, GdbSession
from support.undisturbed import each_part_once

INTERRUPT = tools.ROOT / "tests" / "support" / "gdb_interrupt.py"

# What asks the target, and cannot do without one.
LINES = {
    "status": ("hyp-status", "hyp-status -v"),
    "esr": ("hyp-esr",),
    "reg": ("hyp-reg", "hyp-reg HCR_EL2"),
    "ipa": ("hyp-ipa", "hyp-ipa $FAR_EL2"),
    "walk": ("hyp-walk $pc", "hyp-walk --stage2 0x80000000", "hyp-walk --regime EL1 $ELR_EL2"),
    "at": ("hyp-at S12E1R $FAR_EL2",),
    "map": ("hyp-map", "hyp-map --stage2", "hyp-map --both --json"),
    "find": ("hyp-find 0x40200000",),
    "x": ("hyp-x $pc",),
}
ASKING = [line for name in LINES for line in LINES[name]]
EVERY = [*ASKING, *each_part_once(Path("/nonexistent"))]

NOTHING = "nothing is being debugged: attach with 'target remote HOST:PORT' first"
RUNNING = "the CPU is running: stop it first, with Ctrl-C or 'interrupt'"
NO_EL2 = (
    "the stub shows no EL2 registers: start QEMU with '-M virt,virtualization=on' and a CPU that has EL2, "
    "for example '-cpu max'; for another stub, 'hyp-help stubs'"
)
LOST = "the connection to the target is lost: attach again with 'target remote'"
STALE = (
    "GDB's registers are not the CPU's: it ran or was reset behind GDB's back; type "
    "'maintenance flush register-cache' to read them again"
)

# A stage 2 of 4 KiB pages whose neighbours differ, so that each is a row: too much to map in a test's patience.
ROOT_TABLE = 0x4F00_0000
MAPPED = 0x4000_0000
VTCR = 1 << 31 | 2 << 16 | 3 << 12 | 1 << 10 | 1 << 8 | 1 << 6 | 25
LONG_MAP = f"hyp-map --stage2 --vttbr {ROOT_TABLE:#x} --vtcr {VTCR:#x}"


def long_table() -> bytes:
    """Return the tables for ROOT_TABLE: levels 1, 2 and 3 of the GiB at MAPPED, which is found again 31 times above."""
    level2, level3 = ROOT_TABLE + 0x1000, ROOT_TABLE + 0x2000
    level1 = [0] + [level2 | 3] * 32 + [0] * 479
    tables = [level3 + 0x1000 * n | 3 for n in range(512)]
    pages = [
        MAPPED + 0x1000 * n | 1 << 10 | 3 << 8 | (n & 1) << 7 | 1 << 6 | 0xF << 2 | 3 for n in range(1 << 18)
    ]
    return struct.pack(f"<{514 * 512}Q", *level1, *tables, *pages)


def sites(truth: Any) -> list[Any]:
    """Return the places where the guest of the first VM traps."""
    found: list[Any] = truth["vms"][0]["sites"]
    return found


def refusal(session: GdbSession, line: str) -> str:
    """Run a command that must be refused, and return the sentence."""
    with pytest.raises(CommandError) as caught:
        session.run(line)
    return str(caught.value)


def mode(session: GdbSession) -> str:
    """Return the stub's PhyMemMode as it tells it itself."""
    return session.run("maintenance packet qqemu.PhyMemMode").split("received: ")[1].strip('"\n')


@pytest.fixture
def bare(gdb_program: str, tmp_path: Path) -> Iterator[GdbSession]:
    """A GDB with the plugin and nothing to debug."""
    with GdbSession(gdb_program, tmp_path) as session:
        session.run(f"source {GDBINIT}")
        yield session


@contextmanager
def two_cpus(demo: Path, folder: Path) -> Iterator[qemu.Machine]:
    with qemu.machine(folder, demo_arguments(demo, cpus=2)) as running:
        yield running


def test_nothing_to_debug(bare: GdbSession, demo: Path) -> None:
    for line in ASKING:
        assert refusal(bare, line) == NOTHING, line
    bare.run(f"file {demo / 'demo.elf'}")
    assert refusal(bare, "hyp-status") == NOTHING
    assert "HVC" in bare.run("hyp-esr 0x5a000000")


def test_another_architecture(bare: GdbSession) -> None:
    if platform.machine() != "x86_64":
        tools.missing("a program for another architecture")
    bare.run("file /bin/true")
    try:
        bare.run("starti")
    except CommandError as error:
        tools.missing(f"ptrace ({error})")
    for line in ASKING:
        assert refusal(bare, line) == "the target is i386:x86-64, not AArch64", line


def test_no_el2(attach: Attach, demo: Path, tmp_path: Path) -> None:
    arguments = demo_arguments(demo)
    arguments[1] = "virt"
    with qemu.machine(tmp_path, arguments) as running:
        session = attach(running)
        for line in ASKING:
            if "$ELR_EL2" not in line and "$FAR_EL2" not in line:
                assert refusal(session, line) == NO_EL2, line
        assert mode(session) == "0"


def test_a_running_cpu(session: GdbSession) -> None:
    session.run("continue &")
    for line in ASKING:
        assert refusal(session, line) == RUNNING, line


def test_qemu_dies_between_commands(session: GdbSession, machine: qemu.Machine) -> None:
    machine.process.kill()
    machine.process.wait()
    assert refusal(session, "hyp-status") == LOST
    for line in ASKING:
        assert refusal(session, line) == NOTHING, line


def test_qemu_dies_when_registers_are_known(session: GdbSession, machine: qemu.Machine) -> None:
    session.run("hyp-status")
    machine.process.kill()
    machine.process.wait()
    assert refusal(session, "hyp-status") == LOST
    assert refusal(session, "hyp-status") == NOTHING


@pytest.fixture
def large(demo: Path, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Iterator[qemu.Machine]:
    """The demo hypervisor beside a table that takes seconds to map."""
    tables = tmp_path / "tables.bin"
    tables.write_bytes(long_table())
    loader = ["-device", f"loader,file={tables},addr={ROOT_TABLE:#x},force-raw=on"]
    with qemu.machine(tmp_path, [*demo_arguments(demo), *loader]) as running:
        yield running


class Interrupted:
    """Runs commands in a GDB while signals arrive, and sees what is printed meanwhile."""

    def __init__(self, session: GdbSession, folder: Path) -> None:
        self.session = session
        self.log = folder / "gdb.log"
        session.run(f"source {INTERRUPT}")

    def __call__(
        self, command: str, delays: list[float], times: int = 1, pid: int | None = None
    ) -> tuple[str | None, str]:
        """Return how the command ended (None: by itself) and what it printed."""
        before = self.log.stat().st_size
        ended = self.session.python(f"interrupted({command!r}, {delays!r}, {times}, {pid})")
        with self.log.open("rb") as log:
            log.seek(before)
            printed = log.read().decode(errors="replace")
        assert "Traceback" not in printed
        assert "Error occurred in Python" not in printed
        return ended, printed


def test_qemu_dies_during_a_command(large: qemu.Machine, attach: Attach, tmp_path: Path) -> None:
    session = attach(large)
    ended, printed = Interrupted(session, tmp_path)(LONG_MAP, [1.5], pid=large.process.pid)
    assert ended == LOST
    # GDB may have held back what it printed before.
    assert "EL1&0 regime, stage 2\n" in printed
    assert refusal(session, "hyp-status") == NOTHING


def test_the_cpu_moves_behind_gdb(session: GdbSession, machine: qemu.Machine) -> None:
    """From the first instruction, where no CPU comes again, and back to it by a reset."""
    for command in ("cont", "system_reset"):
        session.run("hyp-status")
        known = session.register("pc")
        machine.command(command)
        wait_until_moved(machine, known)
        machine.command("stop")
        for line in ("hyp-status", "hyp-walk $pc", "hyp-ipa"):
            assert refusal(session, line) == STALE, (command, line)
        assert mode(session) == "0"
        session.run("maintenance flush register-cache")
        assert int(session.json("hyp-walk $pc")["input"], 16) == session.register("pc")


def wait_until_moved(machine: qemu.Machine, pc: int) -> None:
    wait_until(lambda: f"PC={pc:016x}" not in machine.command("info registers"))


def test_qemu_runs_behind_gdb(session: GdbSession, machine: qemu.Machine) -> None:
    """The stub answers a running machine's debugger by stopping it, and loses the packet that did it."""
    session.run("hyp-status")
    machine.command("cont")
    wait_until_moved(machine, session.register("pc"))
    assert refusal(session, "hyp-walk $pc") == STALE
    session.run("maintenance flush register-cache")
    session.run("hyp-walk $pc")
    assert mode(session) == "0"


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_hole_is_no_zeros(session: GdbSession, truth: Any) -> None:
    run_to(session, sites(truth)[0])
    hole = 0x6000_0000
    answer = session.json(f"hyp-walk --stage2 0x80000000 --vttbr {hole:#x}")
    assert answer["output"] is None
    assert answer["fault"]["kind"] == "external_abort"
    output = session.run(f"hyp-map --stage2 --vttbr {hole:#x}")
    assert output.count("is not known: table not readable: the machine has no memory there") >= 1
    assert "0 ranges" in output
    assert mode(session) == "0"


def test_a_device_is_not_touched(attach: Attach, demo: Path, tmp_path: Path) -> None:
    """A character waits in the UART; a read of its data register, the first word of the page, would take it away."""
    serial = tmp_path / "serial.sock"
    arguments = demo_arguments(demo)
    arguments[arguments.index("null")] = f"unix:{serial},server=on,wait=off"
    uart = 0x900_0000
    with qemu.machine(tmp_path, arguments) as running, socket.socket(socket.AF_UNIX) as typist:
        session = attach(running)
        typist.connect(str(serial))
        typist.sendall(b"x")
        wait_until(lambda: not flags(running, uart) & 1 << 4)
        session.run(f"hyp-map --stage2 --vttbr {uart:#x} --vtcr {VTCR:#x}")
        session.run(f"hyp-map --stage1 --regime EL2 --ttbr {uart:#x} --tcr 0x80800019")
        session.run(f"hyp-walk --stage2 0 --vttbr {uart:#x} --vtcr {VTCR:#x}")
        session.run(f"hyp-walk --regime EL2 0 --ttbr {uart:#x} --tcr 0x80800019")
        assert not flags(running, uart) & 1 << 4
        assert running.command(f"xp /1wx {uart:#x}").split(":")[1].strip() == "0x00000078"


def flags(running: qemu.Machine, uart: int) -> int:
    """Return the PL011's flag register, whose bit 4 says that nothing was received; to read it changes nothing."""
    return int(running.command(f"xp /1wx {uart + 0x18:#x}").split(":")[1], 16)


STATE = "[gdb.selected_thread().num, gdb.selected_frame().level(), str(gdb.selected_frame().pc())]"


def test_two_cpus(demo: Path, truth: Any, attach: Attach, tmp_path: Path) -> None:
    """The selected CPU is the one that is asked, and both it and the frame stay selected."""
    with two_cpus(demo, tmp_path) as running:
        session = attach(running)
        session.run("tbreak hyp_flush_vm")
        session.run("continue")
        session.run("set scheduler-locking on")
        session.run("stepi")
        there = {}
        for thread in (2, 1, 2):
            session.run(f"thread {thread}")
            pc = session.register("pc")
            status = session.json("hyp-status")
            assert (status["cpu"], status["cpus"]) == (thread - 1, 2)
            assert int(status["pc"], 16) == pc
            there[thread] = pc
        assert there[1] != there[2]
        output = session.run("thread apply all -q hyp-walk --json $pc")
        assert [int(json.loads(line)["input"], 16) for line in output.splitlines()] == [there[2], there[1]]
        for thread in (1, 2):
            session.run(f"thread {thread}")
            before = session.python(STATE)
            for line in [*EVERY, "hyp-walk nonsense", "hyp-map --range 5", "hyp-walk --ttbr"]:
                attempt(session, line)
                assert session.python(STATE) == before, line


def test_a_thread_that_python_selected(demo: Path, truth: Any, attach: Attach, tmp_path: Path) -> None:
    """GDB tells the stub late which CPU it means: what is asked of the stub directly must not depend on it."""
    with two_cpus(demo, tmp_path) as running:
        session = attach(running)
        session.run("tbreak hyp_flush_vm")
        session.run("continue")
        session.run("thread 2")
        session.run("thread 1")
        for _ in range(2):
            for thread in (2, 1):
                session.run(
                    f"python next(t for t in gdb.selected_inferior().threads() if t.num == {thread}).switch(); "
                    f"gdb.execute('hyp-status')"
                )


def attempt(session: GdbSession, line: str) -> None:
    """Run a command that may be refused, but not fail."""
    refused = ""
    try:
        session.run(line)
    except CommandError as error:
        refused = str(error)
    assert "\n" not in refused, line


def test_another_frame_stays_selected(session: GdbSession, truth: Any, tmp_path: Path) -> None:
    """The registers are the CPU's whatever frame is selected; an expression is evaluated in that frame."""
    run_to(session, sites(truth)[0])
    innermost = session.register("pc")
    # The demo's assembly says nothing about frames. Here the caller is said to be where x30 points.
    session.run(f"add-symbol-file {function_at_pc('callee', tmp_path)} $pc")
    session.run(f"set $x30 = {truth['symbols']['el1_trap']}")
    session.run("frame 1")
    session.run("python kept = gdb.selected_frame()")
    assert session.python("kept.level()") == 1
    assert session.register("pc") != innermost
    assert int(session.json("hyp-status")["pc"], 16) == innermost
    assert int(session.json("hyp-walk $pc")["input"], 16) == session.register("pc")
    for line in [*EVERY, "hyp-walk nonsense", "hyp-walk --stagee1 0"]:
        attempt(session, line)
        assert session.python("gdb.selected_frame() == kept"), line


def test_a_frame_that_is_another_one_now(session: GdbSession, truth: Any, tmp_path: Path) -> None:
    """GDB finds frames again by their identity: where Ctrl-C cut its unwinding short, a caller may have it now."""
    run_to(session, sites(truth)[0])
    known = {name: session.register(name) for name in ("pc", "sp", "x30")}
    session.run(f"add-symbol-file {function_at_pc('callee', tmp_path)} $pc")
    session.run(f"set $x30 = {truth['symbols']['el1_trap']}")
    session.run("python import gdbhyp.plugin.target as target")
    session.run("python registers = target.FrameRegisters(gdb.newest_frame().older())")
    assert session.python("registers.get('PC')") == known["pc"]


def function_at_pc(name: str, folder: Path) -> Path:
    """Build an object file with a function that has call frame information, to be loaded at some address."""
    source, elf = folder / "function.s", folder / "function.elf"
    body = ".cfi_startproc\n .rept 64\n nop\n .endr\n .cfi_endproc"
    source.write_text(
        f".cfi_sections .debug_frame\n.globl {name}\n.type {name}, %function\n{name}:\n{body}\n.size {name}, .-{name}\n"
    )
    subprocess.run([tools.need("aarch64-linux-gnu-as"), "-o", str(elf), str(source)], check=True)
    return elf


def test_every_stop_can_be_asked(session: GdbSession, truth: Any) -> None:
    """The host at EL1, the hypervisor at EL2, and a guest at EL1 behind both stages."""
    session.run("tbreak host_loop")
    session.run("continue")
    assert session.json("hyp-status")["world"] == "host"
    for line in EVERY:
        attempt(session, line)
    run_to(session, sites(truth)[0])
    for line in EVERY:
        attempt(session, line)
    session.run(f"tbreak *{truth['symbols']['guest_loop']}")
    session.run("continue")
    assert session.json("hyp-status")["world"] == "guest"
    for line in EVERY:
        attempt(session, line)
    walk = session.json("hyp-walk $pc")
    assert (walk["regime"], walk["fault"], walk["output_space"]) == ("EL1&0", None, "PA")
    assert mode(session) == "0"


def test_hostile_symbols(session: GdbSession, truth: Any, tmp_path: Path) -> None:
    """A symbol file may name things so that they would clear the screen, or end the line."""
    run_to(session, sites(truth)[0])
    name, hostile = b"evil_AAAAAAAA_name", "evil\x1b[2J\x07\r\n\u202ename"
    elf = function_at_pc(name.decode(), tmp_path)
    assert len(hostile.encode()) == len(name)
    elf.write_bytes(elf.read_bytes().replace(name, hostile.encode()))
    session.run("symbol-file")
    session.run(f"add-symbol-file {elf} $pc")
    for line in ("hyp-status", "hyp-status -v"):
        output = session.run(line)
        assert "evil\\x1b[2J\\x07\\r\\n\\u202ename" in output
        assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", output)
    assert hostile in session.json("hyp-status")["symbol"]


INTERRUPTS = (
    # command, how often in a row, and the seconds within which Ctrl-C comes
    (LONG_MAP, 1, 1.0),
    (f"{LONG_MAP} --json", 1, 1.0),
    (f"{LONG_MAP} --range {MAPPED:#x}+0x20000", 100, 0.4),
    (f"hyp-walk --stage2 {MAPPED:#x} --vttbr {ROOT_TABLE:#x} --vtcr {VTCR:#x}", 400, 0.4),
    ("hyp-walk $pc", 400, 0.4),
    ("hyp-status", 400, 0.4),
)


def test_ctrl_c_at_any_moment(large: qemu.Machine, attach: Attach, truth: Any, tmp_path: Path) -> None:
    """Afterwards the mode is the user's, GDB and stub talk in turn, and partial results say what is missing."""
    seed = int(os.environ.get("GDBHYP_SEED") or random.randrange(1 << 32))
    print(f"GDBHYP_SEED={seed}")
    chance = random.Random(seed)
    session = attach(large)
    run_to(session, sites(truth)[0])
    here = session.register("pc").to_bytes(8, "little").hex()
    interrupted = Interrupted(session, tmp_path)
    cut = 0
    for n in range(30):
        held = "0" if n < 24 else "1"
        session.run(f"maintenance packet Qqemu.PhyMemMode:{held}")
        command, times, most = INTERRUPTS[n % len(INTERRUPTS)]
        delays = [chance.uniform(0, most)] + [chance.uniform(0, 0.02)] * (chance.random() < 0.25)
        ended, printed = interrupted(command, delays, times)
        said = f"seed {seed}, {command} x {times}, Ctrl-C after {delays}: {ended}\n{printed[-600:]}"
        assert ended in (None, "Quit", "late"), said
        assert mode(session) == held, said
        assert f'received: "{here}"' in session.run("maintenance packet p20"), said
        if command.startswith(LONG_MAP) and times == 1:
            cut += check_partial(printed, ended, said)
    assert cut


def check_partial(printed: str, ended: str | None, said: str) -> int:
    """Check that a long map that was cut short says so."""
    last = printed.rstrip().rpartition("\n")[2]
    row = r'^(?:0x[0-9a-f]+ +|\{"start": "0x[0-9a-f]+", "end": ")(0x[0-9a-f]+)'
    rows = [int(end, 16) for end in re.findall(row, printed, re.M)]
    if ended == "Quit":
        assert not rows or last == "interrupted: the answer above is not complete", said
        return 1
    claim = re.fullmatch(r"interrupted: what is mapped from (0x[0-9a-f]+) on was not looked at", last)
    assert claim, said
    assert int(claim[1], 16) <= (rows[-1] if rows else MAPPED), said
    return 1
