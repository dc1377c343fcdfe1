"""The real-target rig: a Debian kernel as KVM host with our VMM, booted under QEMU, and what the VMM says."""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from support import qemu, tools

_SCRIPTS = tools.ROOT / "qemu-scripts" / "rig"
_PATIENCE = 120.0
_TAIL = 4000
_FATAL = ("RIG FAILED", "Kernel panic", "RIG DONE")
_LINE = re.compile(r"^VMM (\w+) (.*?)\r?\n", re.MULTILINE)


@dataclass(frozen=True)
class Target:
    """A kernel and the mode it is asked for; ``says`` is how the kernel confirms that mode."""

    kernel: str
    mode: str
    hypervisor: str
    says: str

    def __str__(self) -> str:
        return f"{self.kernel}-{self.hypervisor}"


NVHE = Target("6.1", "nvhe", "kvm-nvhe", "Hyp mode initialized successfully")
VHE = Target("6.1", "vhe", "kvm-vhe", "VHE mode initialized successfully")
PKVM = Target("6.1", "protected", "pkvm", "Protected nVHE mode initialized successfully")
NVHE_6_12 = Target("6.12", "nvhe", "kvm-nvhe", "Hyp nVHE mode initialized successfully")
VHE_6_12 = Target("6.12", "vhe", "kvm-vhe", "VHE mode initialized successfully")
HVHE_6_12 = Target("6.12", "protected", "kvm-hvhe", "Protected hVHE mode initialized successfully")
XEN = Target("6.1", "xen", "xen", "Xen version 4.17")
TARGETS = (NVHE, VHE, PKVM, NVHE_6_12, VHE_6_12, HVHE_6_12)


@dataclass
class Rig:
    """A booted rig."""

    target: Target
    machine: qemu.Machine
    serial: Path
    vector: int | None = None
    """The EL2 vector base that guests exit to, once a test has found it."""

    def text(self) -> str:
        """Return all that the serial console said so far."""
        return self.serial.read_text(errors="replace") if self.serial.exists() else ""

    def said(self, kind: str) -> list[dict[str, int]]:
        """Return the VMM's lines of one kind (``"slot"``, ``"mmio"``, …; see vmm.c), complete ones only."""
        return [
            {name: int(value, 0) for name, value in (word.split("=") for word in match[2].split())}
            for match in _LINE.finditer(self.text())
            if match[1] == kind
        ]

    def tail(self) -> str:
        """Return what a failure's message needs: QEMU's stderr and the end of the serial console."""
        return f"QEMU's stderr:\n{self.machine.said()}\nserial console:\n{self.text()[-_TAIL:]}"


def fetch(wanted: str) -> dict[str, Path]:
    """Return what ``get-kernel`` provides for ``"6.1"``, ``"6.12"`` or ``"xen"``, by name."""
    run = subprocess.run([str(_SCRIPTS / "get-kernel"), wanted], capture_output=True, text=True, check=False)
    if run.returncode:
        tools.missing(f"what get-kernel {wanted} fetches ({run.stderr.strip()})")
    return {name: Path(path) for name, path in (line.split("=", 1) for line in run.stdout.splitlines())}


def build_initramfs(folder: Path) -> Path:
    """Build the initramfs with the VMM and return its path."""
    tools.need("aarch64-linux-gnu-gcc")
    tools.need("cpio")
    fetch("busybox")
    initramfs = folder / "initramfs.gz"
    run = subprocess.run(
        [str(_SCRIPTS / "build-initramfs"), str(initramfs)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return initramfs


@contextlib.contextmanager
def boot(
    folder: Path,
    target: Target,
    initramfs: Path,
    options: str,
    *,
    program: str | None = None,
    more: Sequence[str] = (),
) -> Iterator[Rig]:
    """Boot ``target`` with more words for the kernel's command line, and end it when the block is left.

    The kernel randomises its addresses, as it does for a user. ``program`` is another QEMU than usual, ``more`` are
    options for it.
    """
    arguments = [
        *("-cpu", "max,pauth-impdef=on", "-m", "512", "-kernel", _kernel(target), "-initrd", str(initramfs)),
        *("-append", f"console=ttyAMA0 kvm-arm.mode={target.mode} {options}"),
    ]
    with _run(folder, target, [*arguments, *more], program) as rig:
        yield rig


@contextlib.contextmanager
def boot_xen(
    folder: Path, initramfs: Path, *, program: str | None = None, more: Sequence[str] = ()
) -> Iterator[Rig]:
    """Boot Xen with the 6.1 kernel as its first domain, which has no /dev/kvm and so runs no VMM."""
    loader = "guest-loader,addr="
    arguments = [
        *("-cpu", "cortex-a57", "-m", "1024", "-kernel", str(fetch("xen")["XEN"])),
        *("-append", "dom0_mem=512M console=dtuart dtuart=/pl011@9000000"),
        *("-device", f"{loader}0x49000000,kernel={_kernel(XEN)},bootargs=console=hvc0"),
        *("-device", f"{loader}0x4d000000,initrd={initramfs}"),
    ]
    with _run(folder, XEN, [*arguments, *more], program) as rig:
        yield rig


def _kernel(target: Target) -> str:
    return str(fetch(target.kernel)["KERNEL_" + target.kernel.replace(".", "_")])


@contextlib.contextmanager
def _run(folder: Path, target: Target, arguments: list[str], program: str | None = None) -> Iterator[Rig]:
    serial = folder / "serial"
    board = ["-M", "virt,virtualization=on,gic-version=3", "-smp", "2", "-serial", f"file:{serial}"]
    with qemu.machine(folder, [*board, *arguments], paused=False, program=program) as machine:
        rig = Rig(target, machine, serial)
        _wait_until_ready(rig)
        yield rig


def _wait_until_ready(rig: Rig) -> None:
    deadline = time.monotonic() + _PATIENCE
    while "RIG READY" not in (text := rig.text()):
        failed = rig.machine.process.poll() is not None or any(word in text for word in _FATAL)
        if failed or time.monotonic() > deadline:
            raise RuntimeError(f"the rig {rig.target} did not come up.\n{rig.tail()}")
        time.sleep(0.05)
