"""Structures by the debug information of a vmlinux that GDB has loaded, in place of the kernel's own types."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from support import dwarf
from support.gdb_session import CommandError

from gdbhyp.hypervisors.linux.btf import Btf
from kvm.debugger import Debugger

_STRUCTS = (
    *("kvm", "kvm_vcpu", "kvm_memslots", "kvm_memory_slot", "hlist_node", "xa_node", "vgic_irq"),
    *("task_struct", "pid", "files_struct", "fdtable", "file", "file_operations", "mmu_notifier_ops"),
)

_INSIDE = """
import base64
from gdbhyp.hypervisors.linux import kernel
from gdbhyp.plugin.memo import stop_memo

def image():
    found = kernel._known[0][0]
    return found.build_id, base64.b64encode(bytes(found.types)).decode()

def forget_types():
    # As a kernel without CONFIG_DEBUG_INFO_BTF has none.
    found, first, table = kernel._known[0]
    kernel._known[:] = [(kernel.replace(found, types=b""), first, table)]
    kernel._parsed.clear()
    stop_memo().clear()
"""


def _answers(hyp: Debugger) -> list[Any]:
    vcpus = [hyp.session.json(f"hyp-vcpu {vm}.{vcpu}") for vm in (0, 1) for vcpu in (0, 1)]
    return [*hyp.session.json_lines("hyp-vms"), *vcpus]


def test_vmlinux(hyp: Debugger, tmp_path: Path) -> None:
    """Of a kernel that carries no types, VMs and vCPUs are the same by its vmlinux; without it, that is asked for."""
    hyp.stop_in_host()
    expected = _answers(hyp)
    hyp.session.run(f"python exec({_INSIDE!r})")
    build_id, types = hyp.session.python("image()")
    vmlinux = tmp_path / "vmlinux"
    dwarf.write(Btf(base64.b64decode(types)), _STRUCTS, ("vcpu_sysreg",), build_id, vmlinux)
    hyp.session.run(f"file {vmlinux}")
    assert _answers(hyp) == expected
    assert f"by the debug information of {vmlinux}" in hyp.session.run("hyp-vms -v")
    hyp.session.python("forget_types()")
    assert _answers(hyp) == expected
    hyp.session.run("file")
    with pytest.raises(CommandError, match=rf"load its vmlinux, .* \(build ID {build_id}\)"):
        hyp.session.run("hyp-vcpu 0.0")


def test_vmlinux_of_another_kernel(hyp: Debugger, tmp_path: Path) -> None:
    """Another build ID is another kernel: its structures are not believed."""
    hyp.stop_in_host()
    hyp.session.json_lines("hyp-vms")
    hyp.session.run(f"python exec({_INSIDE!r})")
    build_id, types = hyp.session.python("image()")
    other = f"{int(build_id[0], 16) ^ 1:x}{build_id[1:]}"
    vmlinux = tmp_path / "vmlinux"
    dwarf.write(Btf(base64.b64decode(types)), _STRUCTS, ("vcpu_sysreg",), other, vmlinux)
    hyp.session.run(f"file {vmlinux}")
    assert "by the kernel's own types (BTF)" in hyp.session.run("hyp-vms -v")
