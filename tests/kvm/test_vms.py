"""Every VM as the hypervisor's own memory tells of it, against what the kernel and the VMM say themselves."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.gdb_session import CommandError

from kvm.debugger import Debugger
from kvm.rig import NVHE, VHE_6_12

_SYMBOL = re.compile(r"RIG symbol: ([0-9a-f]{16}) (\w) ([^\s\[]+)\s*$", re.MULTILINE)


def _vms(debugger: Debugger) -> list[dict[str, Any]]:
    return debugger.session.json_lines("hyp-vms")


def _check_vms(debugger: Debugger) -> list[dict[str, Any]]:
    """Compare what does not change while the VMs run: their numbers, memory, roots and vCPUs."""
    vms = _vms(debugger)
    said = debugger.rig.said("slot")
    assert [vm["vm"] for vm in vms] == [0, 1]
    for vm in vms:
        slots = {
            (slot["slot"], slot["ipa"], slot["size"], slot["hva"], slot["flags"])
            for slot in said
            if slot["vm"] == vm["vm"]
        }
        found = {
            (
                slot["slot"],
                int(slot["ipa"], 16),
                slot["size"],
                int(slot["host_va"], 16),
                slot["log_dirty"] | slot["read_only"] << 1,
            )
            for slot in vm["memslots"]
        }
        assert found == slots
        assert [vcpu["vcpu"] for vcpu in vm["vcpus"]] == [0, 1]
        assert vm["process"]["name"] == "vmm"
        assert all(vcpu["task"]["name"] == "vmm" for vcpu in vm["vcpus"])
        assert vm["vmid"] == int(vm["vttbr"], 16) >> 48
        assert vm["certain"]
    assert len({vm["vmid"] for vm in vms}) == 2
    assert vms[0]["memslots"][0]["size"] < vms[1]["memslots"][0]["size"]
    return vms


def test_same_from_any_stop(hyp: Debugger) -> None:
    """In the host's kernel, in its program, in a guest, and at an exit to EL2, the VMs are the same."""
    fixed = []
    for stop in (hyp.stop_in_host, hyp.stop_in_host_program, hyp.stop_in_guest, hyp.stop_at_exit):
        stop()
        vms = _check_vms(hyp)
        fixed.append([(vm["vm"], vm["vmid"], vm["vttbr"], vm["vtcr"], vm["object"]) for vm in vms])
    assert all(other == fixed[0] for other in fixed)


def test_running(hyp: Debugger) -> None:
    """Of the VM that runs, VTTBR_EL2, VTCR_EL2 and the PC are the CPU's own; the others' vCPUs are not live."""
    for number in (0, 1):
        hyp.stop_in_guest(number)
        vm = _vms(hyp)[number]
        assert int(vm["vttbr"], 16) == hyp.register("VTTBR_EL2")
        assert int(vm["vtcr"], 16) == hyp.register("VTCR_EL2")
        live = [vcpu for vcpu in vm["vcpus"] if vcpu["cpu"] == hyp.cpu and vcpu["pc_from"] == "live"]
        assert [int(vcpu["pc"], 16) for vcpu in live] == [hyp.register("pc")]
        assert live[0]["state"] == "in the guest"
        assert hyp.register("VMPIDR_EL2") & 0xFF == live[0]["vcpu"]


def test_at_exit(hyp: Debugger) -> None:
    """Where a guest has just left to EL2, its vCPU's PC is that of ELR_EL2."""
    hyp.stop_at_exit()
    vm = next(vm for vm in _vms(hyp) if int(vm["vttbr"], 16) == hyp.register("VTTBR_EL2"))
    left = [vcpu for vcpu in vm["vcpus"] if vcpu["cpu"] == hyp.cpu and vcpu["pc_from"] == "ELR_EL2"]
    assert [int(vcpu["pc"], 16) for vcpu in left] == [hyp.register("ELR_EL2")]


def test_saved_pc(hyp: Debugger) -> None:
    """While the VMM handles an exit, the vCPU's PC is what KVM tells the VMM."""
    for _ in range(4):
        hyp.stop_in_host_program()
        vcpu, pc = hyp.register("x0"), hyp.register("x1")
        number = int(hyp.session.python(f"int(gdb.parse_and_eval('*(int *)({vcpu} + 8)'))"))
        vm = int(hyp.session.python(f"int(gdb.parse_and_eval('**(int **){vcpu}'))"))
        found = _vms(hyp)[vm]["vcpus"][number]
        assert (int(found["pc"], 16), found["pc_from"]) == (pc, "saved")


def test_pc_at_random_moments(hyp: Debugger) -> None:
    """Wherever the machine stops, each vCPU's PC is in the page of its guest's code."""
    code = {line["vm"]: line["spun"] & ~0xFFF for line in hyp.rig.said("code")}
    moments = random.Random(6)
    for _ in range(25):
        hyp.run_for(moments.uniform(0.001, 0.03))
        for vm in _vms(hyp):
            for vcpu in vm["vcpus"]:
                assert int(vcpu["pc"], 16) & ~0xFFF == code[vm["vm"]], (
                    f"{vcpu} with PC {hyp.register('pc'):#x}"
                )


def test_map_of_a_vm(hyp: Debugger) -> None:
    """From the host, the stage 2 of each VM is found by its number, and leads to the pages that the VMM says."""
    hyp.stop_in_host()
    for number in (0, 1):
        rows = hyp.session.json_lines(f"hyp-map --vm {number}")
        ranges = [(int(row["start"], 16), int(row["end"], 16), int(row["pa"], 16)) for row in rows]
        pages = [page for page in hyp.rig.said("page") if page["vm"] == number]
        mapped = 0
        for page in pages:
            for start, end, pa in ranges:
                if start <= page["ipa"] < end:
                    assert page["ipa"] - start + pa == page["pa"]
                    mapped += 1
        assert mapped


def _walk_mapped(hyp: Debugger, command: str) -> Any:
    """Walk where stage 2 maps the guest's tables: the VMM's doorbell unmaps them, until the guest's next walk."""
    for _ in range(20):
        walk = hyp.session.json(command)
        fault = walk["fault"]
        if fault is None:
            return walk
        assert (fault["kind"], fault["stage"], fault["s1ptw"]) == ("translation", 2, True)
        hyp.stop_in_host()
    raise AssertionError(f"stage 2 never maps the guest's tables\n{hyp.rig.tail()}")


def test_walk_in_a_vm(hyp: Debugger) -> None:
    """From the host, a guest's VA is walked through both of its stages, with the registers of its vCPU."""
    hyp.stop_in_host()
    for number in (0, 1):
        code = next(
            line
            for line in hyp.rig.said("map")
            if line["vm"] == number and line["ipa"] == 0x40000000 and line["block"]
        )
        page = next(
            line for line in hyp.rig.said("page") if line["vm"] == number and line["ipa"] == 0x40000000
        )
        for vcpu in (0, 1):
            walk = _walk_mapped(hyp, f"hyp-walk {code['va']:#x} --vm {number}.{vcpu}")
            assert (int(walk["ipa"], 16), int(walk["output"], 16)) == (page["ipa"], page["pa"])


def test_symbols(hyp: Debugger) -> None:
    """The symbols read from memory are those of /proc/kallsyms."""
    hyp.stop_in_host()
    said = _SYMBOL.findall(hyp.rig.text())
    assert len(said) > 30
    hyp.session.run(f"python exec({_SYMBOLS!r})")
    found = hyp.session.python(f"symbols({[name for _, _, name in said]!r})")
    for address, kind, name in said:
        assert [name, int(address, 16), kind] in found


_SYMBOLS = """
from gdbhyp.plugin.target import live_stop
from gdbhyp.hypervisors.linux.kernel import find_kernel
def symbols(names):
    with live_stop() as stop:
        return [list(symbol) for symbol in find_kernel(stop).symbols() if symbol.name in names]
"""


_COST = "(lambda start: (gdb.execute('hyp-vms --json', to_string=True), time.process_time() - start))"


def test_cost(hyp: Debugger, tmp_path: Path) -> None:
    """A kernel that was never seen takes less than three seconds of GDB's time, from a guest; later questions 0.3."""
    hyp.stop_in_guest()
    hyp.session.run(f"python import os, time; os.environ['XDG_CACHE_HOME'] = {str(tmp_path)!r}")
    hyp.session.run("python import gdbhyp.hypervisors.linux.kernel as k; k._known.clear(); k._parsed.clear()")
    answer, first = hyp.session.python(f"{_COST}(time.process_time())")
    vms = [json.loads(line)["vm"] for line in answer.splitlines() if line.startswith("{")]
    assert vms == [0, 1], answer
    assert list(tmp_path.rglob("*.image")), "it is kept for the next GDB"
    hyp.run_for(0.05)
    _, later = hyp.session.python(f"{_COST}(time.process_time())")
    assert (first < 3, later < 0.3) == (True, True), (first, later)


def test_host_behind_stage2(hyp: Debugger) -> None:
    """pKVM's own stage 2 is shown while the host runs, and maps the host's code to itself; others have none."""
    hyp.stop_in_host()
    if hyp.rig.target.mode != "protected":
        with pytest.raises(CommandError, match="behind no stage 2"):
            hyp.session.run("hyp-walk 0x40000000 --stage2 --vm host")
        return
    page = hyp.rig.said("page")[0]["pa"]
    walk = hyp.session.json(f"hyp-walk {page:#x} --stage2 --vm host")
    assert int(walk["output"], 16) == page
    assert walk["vmid"] == 0


def _offline(file: Path, folder: Path) -> list[dict[str, Any]]:
    """Ask ``gdbhyp vms`` of a file, with nothing in the cache."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "empty")}
    run = subprocess.run(
        [sys.executable, "-m", "gdbhyp.cli.main", "vms", str(file), "--json"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def test_snapshot_of_tables(hyp: Debugger, tmp_path: Path) -> None:
    """A snapshot of what translation needs has what names the VMs, also where this kernel was never seen."""
    hyp.stop_in_host()
    live = _vms(hyp)
    hyp.session.run(f"hyp-snapshot {tmp_path / 'machine'} --tables-only")
    assert _offline(tmp_path / "machine", tmp_path) == live


def test_dump_without_registers(hyp: Debugger, tmp_path: Path) -> None:
    """QEMU's own dump has no register of EL1 or EL2: the kernel is searched for, and its VMs are found."""
    hyp.stop_in_host()
    if hyp.rig.target not in (NVHE, VHE_6_12):
        return  # One with a long table of symbols and one with a short one: a dump takes half a GiB.
    live = _vms(hyp)
    hyp.session.run(f"monitor dump-guest-memory {tmp_path / 'dump'}")
    found = _offline(tmp_path / "dump", tmp_path)
    (tmp_path / "dump").unlink()
    same = ("vm", "vmid", "vtcr", "root", "memslots", "object", "process")
    assert [[vm[key] for key in same] for vm in found] == [[vm[key] for key in same] for vm in live]
