"""Symbols where they run: of KVM's hypervisor code and the kernel around it, of Xen, and the files of them."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection
from unit.kvmworld import DATA, HYP, KERNEL, PAGE, PER_CPU, PHYSICAL, RODATA, STRANGE, TEXT, KvmWorld
from unit.pagetables import AF
from unit.xenimage import START, XenWorld

from gdbhyp.analyses.symbols import Symbols, choose, contents, find_symbols
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import GdbhypError
from gdbhyp.hypervisors.linux.hyp import Region, regions
from gdbhyp.hypervisors.linux.symbols import Names, hyp_symbols, kernel_symbols
from gdbhyp.hypervisors.symbols import Listed, Section, SymbolSet, placed
from gdbhyp.hypervisors.xen.image import find_image, xen_symbols
from gdbhyp.targets.program import read_program

ENTER = (TEXT + 1) * PAGE + 0x20


def at(found: SymbolSet) -> dict[str, int]:
    return {symbol.name: symbol.address for symbol in found.symbols}


def test_regions() -> None:
    world = KvmWorld()
    stop = world.stop()
    found, problems = regions(stop, world.kernel(stop))
    assert [(r.start, r.size, r.kernel, r.executable, r.alias) for r in found] == [
        (PHYSICAL + TEXT * PAGE, PAGE, KERNEL + TEXT * PAGE, True, "idmap"),
        (HYP + TEXT * PAGE, 2 * PAGE, KERNEL + TEXT * PAGE, True, ""),
        (HYP + RODATA * PAGE, PAGE, KERNEL + RODATA * PAGE, False, ""),
        (HYP + DATA * PAGE, PAGE, KERNEL + DATA * PAGE, False, ""),
    ]
    assert not problems
    assert _in_kernel(found, HYP + ENTER) == KERNEL + ENTER
    assert _in_kernel(found, HYP + STRANGE * PAGE) is None, "the kernel's table leads elsewhere"


def _in_kernel(found: tuple[Region, ...], address: int) -> int | None:
    """Return the kernel's own address of what EL2 has at an address, None outside the image."""
    inside = [region for region in found if region.start <= address < region.end]
    return inside[0].kernel + address - inside[0].start if inside else None


def test_hypervisor() -> None:
    world = KvmWorld()
    stop = world.stop()
    kernel = world.kernel(stop)
    names = at(hyp_symbols(stop, kernel, Names(kernel)))
    assert names == {
        "__kvm_nvhe_handle_trap_idmap": PHYSICAL + TEXT * PAGE + 0x10,
        "__kvm_nvhe_handle___kvm_vcpu_run_idmap": PHYSICAL + TEXT * PAGE + 0x40,
        "__kvm_nvhe_handle___kvm_adjust_pc_idmap": PHYSICAL + TEXT * PAGE + 0x60,
        "__kvm_nvhe_handle_trap": HYP + TEXT * PAGE + 0x10,
        "__kvm_nvhe_handle___kvm_vcpu_run": HYP + TEXT * PAGE + 0x40,
        "__kvm_nvhe_handle___kvm_adjust_pc": HYP + TEXT * PAGE + 0x60,
        "__kvm_nvhe___guest_enter": HYP + ENTER,
        "__kvm_nvhe_alias_of_it": HYP + ENTER,
        "__kvm_nvhe_constant": HYP + RODATA * PAGE + 0x20,
        "__kvm_nvhe_variable": HYP + DATA * PAGE + 8,
    }, "jiffies is in the page, but the hypervisor has no use for it"


def test_per_cpu_data() -> None:
    """TPIDR_EL2 is how far a CPU's own data is from the image's; where nothing is mapped there, it is said."""
    world = KvmWorld()
    world.map_hyp(HYP + PER_CPU * PAGE + 0x50000, 1, AF)
    stop = world.stop(TPIDR_EL2=0x50000)
    kernel = world.kernel(stop)
    assert (
        at(hyp_symbols(stop, kernel, Names(kernel)))["__kvm_nvhe_own_cpu0"] == HYP + PER_CPU * PAGE + 0x50040
    )
    elsewhere = world.stop(cpu=1, TPIDR_EL2=0x70000)
    found = hyp_symbols(elsewhere, kernel, Names(kernel))
    assert not any("_cpu" in symbol.name for symbol in found.symbols)
    assert "per-CPU data of CPU 1" in found.problems[0]


def test_kernel() -> None:
    """The page that the kernel has elsewhere is not the image's any more."""
    world = KvmWorld()
    stop = world.stop()
    kernel = world.kernel(stop)
    found = kernel_symbols(kernel, Names(kernel))
    names = at(found)
    assert (names["vfs_read"], names["jiffies"]) == (KERNEL + 0x100, KERNEL + DATA * PAGE + 0x80)
    assert "__kvm_nvhe_elsewhere" not in names
    first = found.sections[0]
    assert (first.name, first.start, first.end) == (".text", KERNEL, KERNEL + RODATA * PAGE)
    own = hyp_symbols(stop, kernel, Names(kernel))
    both = at(choose(Symbols("kvm-nvhe", own, found), with_kernel=True))
    assert both["__kvm_nvhe___guest_enter"] == HYP + ENTER, "and not where the kernel has it, too"
    assert both["vfs_read"] == KERNEL + 0x100
    assert "vfs_read" not in at(choose(Symbols("kvm-nvhe", own, found), with_kernel=False))


def test_sizes() -> None:
    """Up to the next symbol, or the section's end; of several names of one place the first has the size."""
    section = Section(".text", 0x9000, 0x9100, True, 0x1000, 48)  # type: ignore[arg-type]
    listed = [
        Listed("before", 0x0FF0, "t"),
        Listed("first", 0x1000, "T"),
        Listed("also_first", 0x1000, "T"),
        Listed("data", 0x1040, "d"),
        Listed("bad name\n", 0x1050, "t"),
        Listed("last", 0x1060, "t"),
        Listed("behind", 0x1100, "t"),
    ]
    sizes = {symbol.name: (symbol.address, symbol.size) for symbol in placed(listed, [section])}
    assert sizes == {
        "first": (0x9000, 0x40),
        "also_first": (0x9000, 0),
        "data": (0x9040, 0x10),
        "last": (0x9060, 0xA0),
    }
    short = {symbol.name: symbol.size for symbol in placed(listed, [section], sized_data=False)}
    assert (short["data"], short["last"]) == (1, 0xA0)


def test_code() -> None:
    world = KvmWorld()
    stop = world.stop()
    kernel = world.kernel(stop)
    (_, text) = hyp_symbols(stop, kernel, Names(kernel)).code()
    assert (text.start, text.end, text.bits) == (HYP + TEXT * PAGE, HYP + (TEXT + 2) * PAGE, 48)
    assert text.functions[-1] == HYP + ENTER
    assert list(text.functions) == sorted(set(text.functions))


def test_xen() -> None:
    stop = XenWorld().stop()
    found = xen_symbols(find_image(stop))
    assert at(found)["get_domain_by_id"] == START + 0x2000
    assert found.sections[0].start == START


def test_nothing_known() -> None:
    """Where the hypervisor is not recognised, its symbols are those of its file, if any."""
    stop = KvmWorld().stop(VBAR_EL2=HYP + TEXT * PAGE)
    with pytest.raises(GdbhypError, match="load its ELF file"):
        find_symbols(stop)
    named = Stop(stop.machine, symbol={HYP + TEXT * PAGE: "vectors"}.get)
    with pytest.raises(GdbhypError, match="VBAR_EL2 is <vectors>"):
        find_symbols(named)


def test_file() -> None:
    world = KvmWorld()
    stop = world.stop()
    kernel = world.kernel(stop)
    found = hyp_symbols(stop, kernel, Names(kernel))
    elf = ELFFile(io.BytesIO(contents(found)))
    table, text = elf.get_section_by_name(".symtab"), elf.get_section_by_name(".hyp.text")
    assert isinstance(table, SymbolTableSection)
    assert text is not None
    read = {
        symbol.name: (symbol["st_value"], symbol["st_size"], elf.get_section(symbol["st_shndx"]).name)
        for symbol in table.iter_symbols()
        if symbol.name
    }
    assert len(read) == len(found.symbols)
    assert read["__kvm_nvhe___guest_enter"] == (HYP + ENTER, PAGE - 0x20, ".hyp.text")
    binds = [symbol["st_info"]["bind"] for symbol in table.iter_symbols()]
    assert binds == sorted(binds, key=lambda bind: bind != "STB_LOCAL"), "local symbols go first"
    assert table["sh_info"] == binds.count("STB_LOCAL")
    assert (text["sh_addr"], text["sh_size"], text["sh_type"]) == (HYP + TEXT * PAGE, 2 * PAGE, "SHT_NOBITS")


def test_program(tmp_path: Path) -> None:
    world = KvmWorld()
    stop = world.stop()
    kernel = world.kernel(stop)
    path = tmp_path / "vmlinux"
    path.write_bytes(contents(kernel_symbols(kernel, Names(kernel))))
    assert (read_program(str(path)).text, read_program(str(path)).build_id) == (KERNEL, "")


@pytest.mark.parametrize(
    "data", [b"", b"\x7fELF", b"\x7fELF\x02\x01\x01" + bytes(60), b"no ELF file at all" * 9]
)
def test_no_program(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(data)
    with pytest.raises(GdbhypError, match="vmlinux"):
        read_program(str(path))
    with pytest.raises(GdbhypError, match="cannot read"):
        read_program(str(tmp_path / "none"))
