"""Who reaches a physical address, on whole machines."""

from __future__ import annotations

import json
import time
from array import array

import pytest
from unit.machines import DATA, HYP, IPA, LINEAR, PAGE, TEXT, VM_MEMORY, Model, Nvhe, Protected, Vhe
from unit.pagetables import EVERYTHING

from gdbhyp.analyses.find import FindReport, find
from gdbhyp.engine.machine import Machine
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import MemoryUnavailable, UsageError
from gdbhyp.render import json as as_json
from gdbhyp.render.output import text_lines
from gdbhyp.render.style import Style


def who(report: FindReport) -> list[tuple[str, int, str]]:
    return [(m.tree, m.start, m.rights) for m in report.mappings]


def test_a_guest_page_is_the_guests_and_the_hosts() -> None:
    report = find(Nvhe().stop(), VM_MEMORY[1] + 0x3010, VM_MEMORY[1] + 0x3011)
    assert who(report) == [
        ("host stage 1 (TTBR1_EL1)", LINEAR + VM_MEMORY[1] + 0x3010, "rw-/---"),
        ("VM 1 stage 2", IPA + 0x3010, "rwx/rwx"),
    ]
    assert report.memory
    assert not report.tables
    assert report.trees == ("hypervisor stage 1", "host stage 1 (TTBR1_EL1)", "VM 0 stage 2", "VM 1 stage 2")
    assert not report.problems


def test_hypervisor_text_and_an_alias_of_it() -> None:
    model = Nvhe()
    model.hyp.map(HYP + 0x6000_0000, TEXT + PAGE, 3, 1 << 10 | 3 << 8)
    report = find(model.stop(), TEXT, TEXT + 2 * PAGE)
    assert [(m.start, m.end, m.pa, m.rights) for m in report.mappings if m.who == "hypervisor"] == [
        (HYP + TEXT, HYP + TEXT + 2 * PAGE, TEXT, "r-x"),
        (HYP + 0x6000_0000, HYP + 0x6000_1000, TEXT + PAGE, "rwx"),
    ]


def test_tables_are_named() -> None:
    model = Nvhe()
    tables = model.vms[0]
    leaf = tables.slot(IPA, 3) & ~0xFFF
    report = find(model.stop(), leaf + 8, leaf + 16)
    assert [(t.tree, t.level, t.address, t.start) for t in report.tables] == [("VM 0 stage 2", 3, leaf, IPA)]
    root = find(model.stop(), tables.root, tables.root + 1)
    assert [(t.level, t.start) for t in root.tables] == [(1, 0)]


def test_a_host_behind_stage_2_is_followed_to_the_end() -> None:
    report = find(Protected().stop(), VM_MEMORY[0], VM_MEMORY[0] + 1)
    assert [m.tree for m in report.mappings] == [
        "host stage 1 (TTBR1_EL1)",
        "host stage 2",
        "VM 0 stage 2",
    ]
    hidden = find(Protected().stop(), DATA, DATA + 1)
    assert [m.tree for m in hidden.mappings] == ["hypervisor stage 1"]


def test_a_vhe_host_is_the_host() -> None:
    report = find(Vhe().stop(), VM_MEMORY[0], VM_MEMORY[0] + 1)
    assert [(m.tree, m.who, m.rights) for m in report.mappings] == [
        ("host stage 1 (TTBR1_EL2)", "host", "rw-/---"),
        ("host stage 1 (TTBR0_EL2)", "host", "rw-/rw-"),
        ("VM 0 stage 2", "vm", "rwx/rwx"),
    ]


def test_nobody_is_an_answer() -> None:
    report = find(Nvhe().stop(), 0x7000_0000, 0x7000_1000)
    assert (report.mappings, report.memory) == ((), False)
    assert "nothing maps it" in list(text_lines(report, Style()))


def test_unknown_memory_is_not_said_to_be_none() -> None:
    model = Nvhe(ram=())
    assert find(model.stop(), TEXT, TEXT + 1).memory is None


def test_what_is_missing_is_said() -> None:
    model = Nvhe()
    model.vms[0].put(model.vms[0].slot(IPA + (4 << 30), 1), 0x7777_0000 | 3)
    report = find(model.stop(), VM_MEMORY[0], VM_MEMORY[0] + 1)
    assert [m.tree for m in report.mappings][-1] == "VM 0 stage 2"
    assert any("VM 0 stage 2: 0x180000000 to 0x1c0000000 is not known" in p for p in report.problems)


def test_a_range_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError):
        find(Nvhe().stop(), 1 << 56, (1 << 56) + 1)


def test_json_has_addresses_as_text() -> None:
    (line,) = as_json.lines(find(Nvhe().stop(), TEXT, TEXT + 1))
    answer = json.loads(line)
    assert answer["start"] == "0x40000000"
    assert answer["mappings"][0]["pa"] == "0x40000000"
    assert answer["mappings"][0]["who"] == "hypervisor"


def test_the_index_is_made_once_a_stop() -> None:
    model = Nvhe()
    stop = model.stop()
    find(stop, TEXT, TEXT + 1)
    reads = model.memory.reads
    find(stop, DATA, DATA + 1)
    assert model.memory.reads == reads
    assert find(stop, TEXT, TEXT + 1) == find(model.stop(), TEXT, TEXT + 1)


class Scattered:
    """The tables of a VM of 256 MiB in 4 KiB pages, of which no two neighbours are neighbours in memory."""

    ROOT, FIRST = 0x1000_0000, 0x1001_0000
    PAGES = 1 << 16

    def __init__(self) -> None:
        leaf = 1 << 10 | 0b11 << 6 | 0b1111 << 2 | 3
        outputs = ((page * 0x9E371 & self.PAGES - 1) << 12 for page in range(self.PAGES))
        self.leaves = array("Q", (0x1_0000_0000 + output | leaf for output in outputs)).tobytes()
        second = self.FIRST + len(self.leaves)
        self.upper = array("Q", (self.FIRST + table * PAGE | 3 for table in range(128)))
        self.root = array("Q", [second | 3])
        self.parts = {
            self.FIRST: self.leaves,
            second: self.upper.tobytes().ljust(PAGE, b"\0"),
            self.ROOT: self.root.tobytes().ljust(2 * PAGE, b"\0"),
        }

    def read(self, address: int, size: int, /) -> bytes:
        for start, data in self.parts.items():
            if start <= address and address + size <= start + len(data):
                return data[address - start : address - start + size]
        raise MemoryUnavailable("PA", address, size, "nothing is there")


def test_a_question_is_quick_once_the_index_is_made() -> None:
    """Bounds are far above what is needed, for slow machines; the benchmark measures."""
    registers = EVERYTHING | {"VTCR_EL2": 0x8002_3558, "VTTBR_EL2": Scattered.ROOT | 1 << 48, "HCR_EL2": 1}
    registers |= {"TTBR0_EL2": 0, "TCR_EL2": 16, "SCTLR_EL2": 0, "MAIR_EL2": 0, "CPSR": 5, "PC": 0}
    stop = Stop(Machine(registers, Scattered()))
    find(stop, 0x1_0000_0000, 0x1_0000_0001)
    start = time.process_time()
    for page in range(100):
        address = 0x1_0000_0000 + page * 0x7F_F000 % (1 << 28)
        assert sum(m.tree == "VM 0 stage 2" for m in find(stop, address, address + PAGE).mappings) == 1
    assert (time.process_time() - start) / 100 < 0.05


def test_nothing_is_known_without_registers() -> None:
    model = Model(registers={"PC": 0}, cpus=[{}])
    report = find(model.stop(), TEXT, TEXT + 1)
    assert not report.mappings
    assert any("HCR_EL2" in problem for problem in report.problems)
