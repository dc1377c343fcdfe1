"""Physical memory by every way there is to it: the same answers, and the way is said."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import qemu
from support.demo import run_to
from support.gdb_session import GdbSession

GDBINIT = Path(__file__).resolve().parents[2] / "gdbhyp" / "gdbinit.py"
BACKENDS = {
    "anonymous": [],
    "file": ["-object", "memory-backend-file,id=ram,size=256M,share=on,mem-path={folder}/ram"],
    "memfd": ["-object", "memory-backend-memfd,id=ram,size=256M,share=on"],
}
QUESTIONS = (
    "hyp-map",
    "hyp-map --stage2",
    "hyp-map --regime EL1 --both",
    "hyp-walk --regime EL1 $ELR_EL2",
    "hyp-ipa",
)


@pytest.fixture(params=sorted(BACKENDS))
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def machine(backend: str, demo: Path, tmp_path: Path) -> Iterator[qemu.Machine]:
    """The demo hypervisor with its memory in this or that."""
    board = "virt,virtualization=on,gic-version=3" + (",memory-backend=ram" if BACKENDS[backend] else "")
    arguments = [
        *("-M", board, "-cpu", "max", "-m", "256M", "-serial", "null", "-kernel", str(demo / "demo.elf")),
        *(word.format(folder=tmp_path) for word in BACKENDS[backend]),
    ]
    with qemu.machine(tmp_path, arguments) as running:
        yield running


@pytest.fixture
def stopped(
    gdb_program: str, machine: qemu.Machine, demo: Path, truth: Any, tmp_path: Path
) -> Iterator[GdbSession]:
    """A GDB with the plugin, where a guest's store was trapped."""
    with GdbSession(gdb_program, tmp_path) as session:
        session.run(f"file {demo / 'demo.elf'}")
        session.run(f"source {GDBINIT}")
        session.run(f"target remote {machine.gdb}")
        run_to(session, next(s for s in truth["vms"][0]["sites"] if s["symbol"] == "guest_perm_store"))
        yield session


def way(session: GdbSession) -> str:
    answer = session.run("hyp-status -v --json")
    return str(json.loads(answer[answer.index("{") :])["memory"])


def readable(pid: int) -> bool:
    """Whether the kernel lets this user read the memory of a process that is no child."""
    try:
        with Path(f"/proc/{pid}/mem").open("rb"):
            return True
    except PermissionError:
        return False


def test_every_way_answers_the_same(stopped: GdbSession, machine: qemu.Machine, backend: str) -> None:
    stopped.run("set hyp memory stub")
    expected = [stopped.run(question) for question in QUESTIONS]
    assert way(stopped) == "by the stub: it is set so"
    for wanted in ("auto", "ram-file", "qemu-pread"):
        stopped.run(f"set hyp memory {wanted}")
        said = way(stopped)
        if backend != "anonymous" and wanted != "qemu-pread":
            assert f"process {machine.process.pid}" in said
            assert said.startswith("from ")
        elif wanted == "ram-file":
            assert said.startswith("by the stub: its memory is in no shared file")
        elif readable(machine.process.pid):
            assert said.startswith("out of the memory of ")
        else:
            assert "the kernel does not let GDB read the memory of" in said
        for _ in range(2):
            assert [stopped.run(question) for question in QUESTIONS] == expected
        if not said.startswith("by the stub"):
            assert int(way(stopped).rpartition(" at ")[2].split()[0]) >= 3, "compared with the stub"


def test_what_was_set_and_cannot_be_had_is_said_once(stopped: GdbSession, backend: str) -> None:
    stopped.run("set hyp memory ram-file")
    first, second = stopped.run("hyp-ipa"), stopped.run("hyp-ipa")
    sentence = "physical memory is read by the stub: its memory is in no shared file"
    assert (sentence in first) == (backend == "anonymous")
    assert sentence not in second


@pytest.mark.parametrize("backend", ["file"], indirect=True)
def test_memory_is_read_as_it_is_now(stopped: GdbSession) -> None:
    """What the machine has done since the last question is seen."""
    ipa = json.loads(stopped.run("hyp-map --stage2 --json").splitlines()[0])["start"]
    leaf = stopped.json(f"hyp-walk --stage2 {ipa}")["steps"][-1]
    before = stopped.run("hyp-map --stage2")
    stopped.run("maintenance packet Qqemu.PhyMemMode:1")
    stopped.run(f"set {{unsigned long}} ({leaf['table']} + 8 * {leaf['index']}) = 0")
    stopped.run("maintenance packet Qqemu.PhyMemMode:0")
    after = stopped.run("hyp-map --stage2")
    assert before != after
    stopped.run("set hyp memory stub")
    assert stopped.run("hyp-map --stage2") == after


@pytest.mark.parametrize("backend", ["file"], indirect=True)
def test_a_connection_by_tcp(gdb_program: str, machine: qemu.Machine, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    machine.command("gdbserver none")
    answer = machine.command(f"gdbserver tcp:127.0.0.1:{port}")
    assert "Waiting for gdb connection" in answer
    with GdbSession(gdb_program, tmp_path) as session:
        session.run(f"source {GDBINIT}")
        session.run(f"target remote 127.0.0.1:{port}")
        assert f"process {machine.process.pid}" in way(session)


@pytest.mark.parametrize("backend", ["file"], indirect=True)
def test_somebody_between_gdb_and_qemu(gdb_program: str, machine: qemu.Machine, tmp_path: Path) -> None:
    """The process at the other end is not QEMU: the stub is asked, and that is said."""
    middle = tmp_path / "middle.sock"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(middle))
    listening.listen(1)

    def forward(source: socket.socket, sink: socket.socket) -> None:
        while data := source.recv(65536):
            sink.sendall(data)

    def serve() -> None:
        debugger, _ = listening.accept()
        stub = socket.socket(socket.AF_UNIX)
        stub.connect(str(machine.gdb))
        threading.Thread(target=forward, args=(stub, debugger), daemon=True).start()
        forward(debugger, stub)

    threading.Thread(target=serve, daemon=True).start()
    with GdbSession(gdb_program, tmp_path) as session:
        session.run(f"source {GDBINIT}")
        session.run(f"target remote {middle}")
        assert "does not hold the machine's memory where QEMU says it is" in way(session)
        assert session.json("hyp-status")["el"] == 2
