"""The demo hypervisor under QEMU, and each supported GDB attached to it."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import qemu, tools
from support.gdb_session import GdbSession

GDBINIT = tools.ROOT / "gdbhyp" / "gdbinit.py"
BUILD = tools.ROOT / "qemu-scripts" / "demo-hypervisor" / "build"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.live)
            # Machines under emulation have timing that is not ours: a failure counts at the third time, and is listed.
            item.add_marker(pytest.mark.flaky(reruns=2))


@pytest.fixture(scope="session", params=["13.1", "18.1"])
def gdb_program(request: pytest.FixtureRequest) -> str:
    """Each GDB at the ends of the supported range: the distribution's and the extra's."""
    return tools.gdb_multiarch() if request.param == "13.1" else tools.newest_gdb()


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the demo hypervisor as built: demo.elf, guest.elf, truth.json."""
    tools.need("aarch64-linux-gnu-as")
    folder = tmp_path_factory.mktemp("demo")
    subprocess.run([str(BUILD), str(folder)], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def truth(demo: Path) -> Any:
    """What the build knows of its own: symbols, tables and faults, independently of gdbhyp."""
    return json.loads((demo / "truth.json").read_text())


def demo_arguments(demo: Path, cpus: int = 1) -> list[str]:
    """Return the QEMU options that start the demo hypervisor."""
    return [
        *("-M", "virt,virtualization=on,gic-version=3", "-cpu", "max", "-smp", str(cpus), "-m", "256M"),
        *("-serial", "null", "-kernel", str(demo / "demo.elf")),
    ]


@pytest.fixture
def machine(demo: Path, tmp_path: Path) -> Iterator[qemu.Machine]:
    """The demo hypervisor on one CPU, stopped at its first instruction."""
    with qemu.machine(tmp_path, demo_arguments(demo)) as running:
        yield running


Attach = Callable[..., GdbSession]


@pytest.fixture
def attach(gdb_program: str, demo: Path, tmp_path: Path) -> Iterator[Attach]:
    """Start a GDB with the plugin and the demo's symbols, attached to a machine."""
    sessions: list[GdbSession] = []

    def start(target: qemu.Machine, *, plugin: bool = True) -> GdbSession:
        session = GdbSession(gdb_program, tmp_path)
        sessions.append(session)
        session.run(f"file {demo / 'demo.elf'}")
        if plugin:
            session.run(f"source {GDBINIT}")
        session.run(f"target remote {target.gdb}")
        return session

    yield start
    for session in sessions:
        session.close()


Boot = Callable[..., tuple[qemu.Machine, GdbSession]]
Start = Callable[..., GdbSession]


@pytest.fixture
def boot(attach: Attach, demo: Path, tmp_path: Path) -> Iterator[Boot]:
    """Start a demo with more options for QEMU, and attach where the host is about to run a vCPU."""
    with contextlib.ExitStack() as machines:

        def booted(
            *options: str, cpus: int = 1, program: str | None = None
        ) -> tuple[qemu.Machine, GdbSession]:
            arguments = [*demo_arguments(demo, cpus), *options]
            machine = machines.enter_context(qemu.machine(tmp_path, arguments, program=program))
            session = attach(machine)
            session.run("tbreak hyp_vcpu_run")
            session.run("continue")
            return machine, session

        yield booted


@pytest.fixture
def start(boot: Boot) -> Start:
    """The same of so many CPUs, where QEMU itself does not matter."""
    return lambda cpus=1: boot(cpus=cpus)[1]


@pytest.fixture
def session(machine: qemu.Machine, attach: Attach) -> GdbSession:
    """A GDB with the plugin at the demo's first instruction."""
    return attach(machine)
