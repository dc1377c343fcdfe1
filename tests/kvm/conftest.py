"""Boots each rig once, and attaches a GDB to it."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from support import tools
from support.gdb_session import GdbSession

from kvm.debugger import Debugger
from kvm.rig import TARGETS, Rig, Target, boot, boot_xen, build_initramfs

GDBINIT = tools.ROOT / "gdbhyp" / "gdbinit.py"

# Two VMs of different sizes with two vCPUs each, so that VMIDs and MPIDRs differ; long spins, so that stops often find
# a guest; a line for each MMIO exit; and some of the kernel's symbols.
OPTIONS = "rig.vms=2 rig.vcpus=2 rig.step=8 rig.spin=1000000 rig.mmio-lines=0 symbols=997"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.kvm)
            # Machines under emulation have timing that is not ours: a failure counts at the third time, and is listed.
            item.add_marker(pytest.mark.flaky(reruns=2))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put QEMU's stderr and the end of the serial console below a failure."""
    report = yield
    if report.failed:
        rigs = [value for value in getattr(item, "funcargs", {}).values() if isinstance(value, Rig)]
        report.sections.extend(("rig", rig.tail()) for rig in rigs)
    return report


@pytest.fixture(scope="session")
def initramfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The initramfs with the VMM."""
    return build_initramfs(tmp_path_factory.mktemp("initramfs"))


@pytest.fixture(scope="session", params=TARGETS, ids=str)
def rig(
    request: pytest.FixtureRequest, initramfs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rig]:
    """Each kernel in each mode, booted once; pytest runs all tests of one before it boots the next."""
    target: Target = request.param
    with boot(tmp_path_factory.mktemp(str(target)), target, initramfs, OPTIONS) as running:
        yield running


@pytest.fixture(scope="session")
def xen(initramfs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Xen with a Linux domain."""
    with boot_xen(tmp_path_factory.mktemp("xen"), initramfs) as running:
        yield running


@pytest.fixture(autouse=True)
def _runs_while_asked(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let a booted machine run only during its tests: one that waits would take the processor from all others."""
    names = [name for name in ("rig", "xen") if name in request.fixturenames]
    rigs: list[Rig] = [request.getfixturevalue(name) for name in names]
    for rig in rigs:
        rig.machine.command("cont")
    yield
    for rig in rigs:
        with contextlib.suppress(OSError):
            rig.machine.command("stop")


@contextlib.contextmanager
def attach_to(rig: Rig, folder: Path, *, plugin: bool) -> Iterator[Debugger]:
    """A GDB at a rig, with the plugin or without; all CPUs are stopped, somewhere."""
    with GdbSession(tools.gdb_multiarch(), folder) as session:
        session.run("set architecture aarch64")
        if plugin:
            session.run(f"source {GDBINIT}")
        session.run(f"target remote {rig.machine.gdb}")
        try:
            yield Debugger(session, rig)
        finally:
            # The next test finds the rig running, with no breakpoint left in QEMU.
            session.run("delete")
            session.run("detach")


@pytest.fixture
def debugger(rig: Rig, tmp_path: Path) -> Iterator[Debugger]:
    """A GDB attached to the rig, without the plugin: all CPUs are stopped, somewhere."""
    with attach_to(rig, tmp_path, plugin=False) as attached:
        yield attached


@pytest.fixture
def hyp(rig: Rig, tmp_path: Path) -> Iterator[Debugger]:
    """The same with the plugin."""
    with attach_to(rig, tmp_path, plugin=True) as attached:
        yield attached


@pytest.fixture
def xen_hyp(xen: Rig, tmp_path: Path) -> Iterator[Debugger]:
    """A GDB with the plugin, attached to Xen."""
    with attach_to(xen, tmp_path, plugin=True) as attached:
        yield attached
