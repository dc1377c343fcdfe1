"""The hypervisor's names in GDB, from the memory of kernels without their debug packages."""

from __future__ import annotations

import os
import random
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from support import tools
from support.gdb_session import CommandError

from kvm.debugger import Debugger, within
from kvm.rig import NVHE, VHE, VHE_6_12

_VHE = (VHE, VHE_6_12)
_ENTER = "__guest_enter"
_RUN = "__kvm_vcpu_run"


def _prefixed(debugger: Debugger, name: str) -> str:
    return name if debugger.rig.target in _VHE else f"__kvm_nvhe_{name}"


def _frames(debugger: Debugger) -> list[str]:
    return re.findall(r"^#\d+ .*? in ([\w.]+|\?\?) \(", debugger.session.run("backtrace"), re.MULTILINE)


def test_names_where_el2_runs(hyp: Debugger) -> None:
    """At EL2's vector, the PC, the disassembly and the status have names; taken away, they have none."""
    hyp.stop_at_exit()
    found = hyp.session.json("hyp-symbols")
    assert found["hypervisor"] == hyp.rig.target.hypervisor
    vector = _prefixed(hyp, "__kvm_hyp_vector")
    assert hyp.session.run("info symbol $pc").startswith(f"{vector} + 1024 in section")
    assert f"<{vector}+1024>" in hyp.session.run("x/i $pc")
    assert hyp.session.json("hyp-status")["symbol"] == f"{vector}+1024"
    # What the guest did goes before: the vector's caller is where the exception comes from.
    assert f"{hyp.register('ELR_EL2'):#018x}" in hyp.session.run("backtrace 2")
    folder = Path(found["file"]).parent
    assert folder.stat().st_mode & 0o77 == 0
    hyp.session.run("hyp-symbols --remove")
    assert "No symbol matches" in hyp.session.run("info symbol $pc")
    assert not list(folder.iterdir())


def test_break_and_backtrace(hyp: Debugger) -> None:
    """A breakpoint by name on the way to a guest hits, and the way there is the backtrace, signed pointers or not."""
    hyp.stop_in_host()
    hyp.session.run("hyp-symbols")
    hyp.session.run(f"break {_prefixed(hyp, _ENTER)}")
    hyp.run_for(60.0)
    hyp.select(hyp.cpu)
    assert hyp.session.run("info symbol $pc").startswith(_prefixed(hyp, _ENTER))
    frames = _frames(hyp)
    if hyp.rig.target in _VHE:
        assert frames[0] == _ENTER
        assert {_RUN, "kvm_arch_vcpu_ioctl_run", "kvm_vcpu_ioctl", "invoke_syscall", "el0_svc"} <= set(frames)
    else:
        prefix = "__kvm_nvhe_"
        assert frames[:4] == [f"{prefix}{name}" for name in (_ENTER, _RUN, f"handle_{_RUN}", "handle_trap")]
    assert "??" not in frames[:4]


def test_host_is_named_too(hyp: Debugger) -> None:
    """Wherever the host's kernel stands, each of its frames up to the system call or the idle loop has a name."""
    hyp.session.run("hyp-symbols")
    hyp.run_until(lambda: hyp.in_host() and hyp.register("pc") >> 63 == 1)
    assert not hyp.session.run("info symbol $pc").startswith("No symbol")
    frames = _frames(hyp)
    assert len(frames) > 3
    assert "??" not in frames[:-1]


def test_hypervisor_alone(hyp: Debugger) -> None:
    """Only what EL2 maps, each page of which two tables lead to."""
    if hyp.rig.target in _VHE:
        pytest.skip("in VHE the hypervisor is the kernel")
    hyp.stop_at_host_call()
    found = hyp.session.json("hyp-symbols --no-kernel")
    assert all(section["name"].startswith(".hyp.") for section in found["sections"])
    assert not found["problems"]
    for section in (s for s in found["sections"] if s["symbols"]):
        el2 = hyp.session.json(f"hyp-walk --regime EL2 {section['start']}")
        kernel = hyp.session.json(f"hyp-walk --regime EL1 --stage1 {section['image']}")
        assert "percpu" in section["name"] or el2["output"] == kernel["output"]
    assert hyp.session.json("hyp-status")["last_exception"]["call"].startswith("__")


def test_host_calls_by_name(hyp: Debugger) -> None:
    """Each number that KVM's host calls with is one of the table's, and the run of a vCPU is among them."""
    if hyp.rig.target in _VHE:
        pytest.skip("a VHE host has nobody to call")
    calls = set()
    for _ in range(12):
        hyp.stop_at_host_call()
        exception = hyp.session.json("hyp-esr")
        if exception["ec"]["value"] == 0x16:
            calls.add(exception["call"])
    assert all(re.fullmatch(r"__\w+ \(KVM host call \d+\)", call) for call in calls), calls


def test_guest_memory_from_el2(hyp: Debugger) -> None:
    """At the exit, a guest's code is read through its own tables as GDB read it while the guest ran."""
    hyp.stop_in_guest()
    pc = hyp.register("pc")
    words = [
        int(hyp.session.python(f"int(gdb.parse_and_eval('*(unsigned *){pc + at:#x}'))"))
        for at in range(0, 16, 4)
    ]
    expected = [f"{word:#010x}" for word in words]
    assert hyp.session.json(f"hyp-x/4xw {pc:#x}")["rows"][0]["values"] == expected
    ipa = hyp.session.json(f"hyp-walk {pc:#x}")["ipa"]
    # Of this VM: the other's code is elsewhere.
    hyp.stop_at_exit(within("ELR_EL2", pc & ~0xFFF, 0x1000))
    assert hyp.session.json(f"hyp-x/4xw {pc:#x} --el1")["rows"][0]["values"] == expected
    assert hyp.session.json(f"hyp-x/4xw {ipa} --ipa")["rows"][0]["values"] == expected
    instructions = hyp.session.run(f"hyp-x/4i {pc:#x} --el1").splitlines()
    assert [line.split(":")[0] for line in instructions] == [f"VA {pc + at:#x}" for at in range(0, 16, 4)]


@pytest.mark.slow
def test_same_as_vmlinux(hyp: Debugger) -> None:
    """Of 200 functions, the address is that of the debug package's vmlinux, at its distance of now.

    GDBHYP_VMLINUX names the vmlinux of Debian's 6.1 kernel.
    """
    path = os.environ.get("GDBHYP_VMLINUX", "")
    if not path or hyp.rig.target != NVHE:
        pytest.skip("GDBHYP_VMLINUX is not the vmlinux of this kernel")
    listed = subprocess.run(
        [tools.need("aarch64-linux-gnu-nm"), path], capture_output=True, text=True, check=True
    )
    rows = [row for line in listed.stdout.splitlines() if len(row := line.split()) == 3 and row[1] in "tT"]
    counts = Counter(name for _, _, name in rows)
    linked = {n: int(a, 16) for a, _, n in rows if n.startswith("__kvm_nvhe_") and counts[n] == 1}
    hyp.session.run("hyp-symbols --no-kernel")
    anchor = "__kvm_nvhe___kvm_hyp_host_vector"
    text = int(hyp.session.python(f"int(gdb.parse_and_eval('(long)&{anchor}'))"))
    compared = 0
    for name in random.Random(1).sample(sorted(linked), 200):
        try:
            found = int(hyp.session.python(f"int(gdb.parse_and_eval('(long)&{name}'))"))
        except CommandError:
            continue  # what EL2 does not map, such as code that the kernel uses to patch it
        assert found - text == linked[name] - linked[anchor], name
        compared += 1
    assert compared > 100


@pytest.mark.slow
def test_own_vmlinux(hyp: Debugger) -> None:
    """A vmlinux that was loaded where it was linked is moved to where KASLR put it."""
    path = os.environ.get("GDBHYP_VMLINUX", "")
    if not path or hyp.rig.target != NVHE:
        pytest.skip("GDBHYP_VMLINUX is not the vmlinux of this kernel")
    hyp.session.run(f"symbol-file {path}")
    hyp.stop_in_host()
    found = hyp.session.json("hyp-symbols")
    assert found["program"] == path
    assert "Linux version 6.1" in hyp.session.run("print linux_banner")
    assert not hyp.session.run("info symbol $pc").startswith("No symbol")
