"""``gdbhyp info``, and the kernel's own tables from VMCOREINFO where a dump has no system registers."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from unit.cores import core, note, prstatus
from unit.kdumps import kdump

from gdbhyp.cli.main import main
from gdbhyp.errors import BadInput
from gdbhyp.hypervisors.linux.roots import from_vmcoreinfo

BASE = 0x4000_0000
# The image's virtual addresses are its physical ones plus this.
VOFFSET = 0xFFFF_7FFF_C800_0000
ROOT = BASE + 0x1000
INFO = {
    "OSRELEASE": "6.1.0-50-cloud-arm64",
    "PAGESIZE": "4096",
    "SYMBOL(swapper_pg_dir)": f"{ROOT + VOFFSET:x}",
    "NUMBER(VA_BITS)": "48",
    "NUMBER(kimage_voffset)": hex(VOFFSET),
    "NUMBER(TCR_EL1_T1SZ)": hex(16 << 16),
}


def vmcoreinfo(info: dict[str, str]) -> bytes:
    return note(b"VMCOREINFO", 0, "".join(f"{key}={value}\n" for key, value in info.items()).encode())


def kernel_memory() -> bytes:
    """A 4 KiB granule, 48 bits: the image's first GiB as a block of level 1, two tables below the root."""
    memory = bytearray(0x3000)
    struct.pack_into("<Q", memory, 0x1000 + 8 * (0xFFFF_8000_0000_0000 >> 39 & 511), BASE + 0x2000 | 3)
    struct.pack_into("<Q", memory, 0x2000, BASE | 0x701)
    return bytes(memory)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[Any], str]:
    capsys.readouterr()
    status = main([*words, "--json"])
    captured = capsys.readouterr()
    return status, [json.loads(line) for line in captured.out.splitlines()], captured.err


def test_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cpus = prstatus(1, 0xFFFF_8000_0801_0000, 3, 0x3C9) + prstatus(1, 0x40_0000, 3, 0x3C0)
    name = core(tmp_path / "vmcore", [(BASE, kernel_memory(), 0x8000)], cpus + vmcoreinfo(INFO))
    status, rows, errors = run(capsys, "info", name)
    assert (status, errors) == (0, "")
    said = rows[0]
    assert (said["form"], said["memory"], said["release"]) == ("ELF core", 0x3000, "6.1.0-50-cloud-arm64")
    assert said["ranges"] == [{"start": hex(BASE), "end": hex(BASE + 0x3000)}]
    assert [(cpu["pc"], cpu["el"], cpu["registers"]) for cpu in said["cpus"]] == [
        ("0xffff800008010000", 2, 34),
        ("0x400000", 0, 34),
    ]
    assert not said["system_registers"]
    assert said["kernel_roots"]["ttbr1"] == hex(ROOT)


@pytest.mark.parametrize("form", ["core", "kdump"])
def test_walk_without_system_registers(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The kernel's own address, with no more than the dump: stage 1 by VMCOREINFO, and it is said."""
    notes = prstatus(1, 0xFFFF_8000_0000_1234, 3, 0x3C5) + vmcoreinfo(INFO)
    if form == "core":
        name = core(tmp_path / "vmcore", {BASE: kernel_memory()}, notes)
    else:
        name = kdump(tmp_path / "vmcore", {BASE: kernel_memory()}, notes=notes)
    status, rows, errors = run(capsys, "walk", name, "$pc")
    assert status == 0
    assert (rows[0]["output"], rows[0]["stages"]) == ("0x40001234", "1")
    assert "VMCOREINFO" in errors
    assert "swapper_pg_dir" in errors
    status, rows, errors = run(capsys, "map", name)
    assert (status, [(row["start"], row["pa"]) for row in rows]) == (0, [("0xffff800000000000", hex(BASE))])
    assert "VMCOREINFO" in errors
    assert run(capsys, "status", name)[0] == 1


def test_given_roots_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = core(tmp_path / "vmcore", {BASE: kernel_memory()}, vmcoreinfo(INFO))
    words = ("--stage1", "--ttbr1", hex(BASE), "--tcr", hex(16 << 16 | 2 << 30 | 5 << 32))
    status, rows, errors = run(capsys, "walk", name, "0xffff800000000000", *words)
    assert (status, rows[0]["output"]) == (0, None)
    assert "VMCOREINFO" not in errors


@pytest.mark.parametrize(
    ("changed", "t1sz", "granule", "ds"),
    [
        ({}, 16, 0b10, 0),
        ({"PAGESIZE": "65536", "NUMBER(TCR_EL1_T1SZ)": hex(12 << 16)}, 12, 0b11, 0),
        ({"NUMBER(TCR_EL1_T1SZ)": hex(12 << 16)}, 12, 0b10, 1),
        ({"PAGESIZE": "16384", "NUMBER(TCR_EL1_T1SZ)": hex(17 << 16)}, 17, 0b01, 0),
        ({"NUMBER(TCR_EL1_T1SZ)": "25"}, 25, 0b10, 0),
    ],
)
def test_controls(changed: dict[str, str], t1sz: int, granule: int, ds: int) -> None:
    found = from_vmcoreinfo(INFO | changed)
    assert found is not None
    assert (found.tcr >> 16 & 63, found.tcr >> 30 & 3, found.tcr >> 59 & 1) == (t1sz, granule, ds)
    assert found.tcr >> 7 & 1, "the lower range is not the kernel's, and has no root"


@pytest.mark.parametrize(("t1sz", "offset"), [(16, 0x1E00), (12, 0)])
def test_a_52_bit_kernel_on_48_bits(t1sz: int, offset: int) -> None:
    """With 64 KiB pages the table has 1024 entries, of which 48 bits need the last 64."""
    changed = {"PAGESIZE": "65536", "NUMBER(VA_BITS)": "52", "NUMBER(TCR_EL1_T1SZ)": hex(t1sz << 16)}
    found = from_vmcoreinfo(INFO | changed)
    assert found is not None
    assert found.ttbr1 == ROOT + offset


def test_older_kernels_say_va_bits() -> None:
    found = from_vmcoreinfo({k: v for k, v in INFO.items() if "T1SZ" not in k} | {"NUMBER(VA_BITS)": "39"})
    assert found is not None
    assert found.tcr >> 16 & 63 == 25


@pytest.mark.parametrize("missing", ["SYMBOL(swapper_pg_dir)", "NUMBER(kimage_voffset)", "PAGESIZE"])
def test_too_little(missing: str) -> None:
    assert from_vmcoreinfo({k: v for k, v in INFO.items() if k != missing}) is None


@pytest.mark.parametrize(
    "changed",
    [{"PAGESIZE": "4095"}, {"PAGESIZE": "x"}, {"NUMBER(TCR_EL1_T1SZ)": "3"}, {"NUMBER(kimage_voffset)": ""}],
)
def test_damaged(changed: dict[str, str]) -> None:
    with pytest.raises(BadInput, match="VMCOREINFO is damaged"):
        from_vmcoreinfo(INFO | changed)
