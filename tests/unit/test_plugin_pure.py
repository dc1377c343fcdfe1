"""The parts of the plugin that need no debugger, with a stand-in for the ``gdb`` module."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import pytest
from support.fake_gdb import FakeError

from gdbhyp.commands.declaration import Argument, Command
from gdbhyp.errors import MemoryUnavailable, NoTarget
from gdbhyp.plugin.stub_names import stub_names


@pytest.fixture
def remote(fake_gdb: ModuleType) -> Any:
    return importlib.import_module("gdbhyp.plugin.remote")


@pytest.fixture
def complete(fake_gdb: ModuleType) -> Any:
    return importlib.import_module("gdbhyp.plugin.completion").complete


# QEMU 7.2 and 10.0, -M virt: the views of the CPU, of DMA and of I/O ports, shortened.
MTREE = """FlatView #0
 AS "I/O", root: io
 Root memory region: io
  0000000000000000-000000000000ffff (prio 0, i/o): io

FlatView #1
 AS "gicv3-its-sysmem", root: system
 AS "memory", root: system
 AS "cpu-memory-0", root: system
 AS "cpu-memory-1", root: system
 AS "gpex-root", root: bus master container
 Root memory region: system
  0000000000000000-0000000003ffffff (prio 0, romd): virt.flash0
  0000000004000000-0000000007ffffff (prio 0, romd): virt.flash1
  0000000008000000-000000000800ffff (prio 0, i/o): gicv3_dist
  0000000009000000-0000000009000fff (prio 0, i/o): pl011
  0000000009020000-0000000009020007 (prio 0, i/o): fwcfg.data
  000000000a000000-000000000a0001ff (prio 0, i/o): virtio-mmio
  0000000040000000-000000004fffffff (prio 0, ram): mach-virt.ram
  0000000060000000-0000000060000fff (prio -1, rom): some.rom
  0000004010000000-000000401fffffff (prio 0, i/o): pcie-ecam

FlatView #2
 AS "cpu-secure-memory-0", root: secure-memory
 Root memory region: secure-memory
  000000000e000000-000000000effffff (prio 0, ram): virt.secure-ram
"""


def test_ranges_of_memory(remote: Any) -> None:
    """Neighbours are one range; devices and other views are none."""
    ram = remote.RamMap(MTREE)
    assert ram
    assert ram.ranges == [(0, 0x7FF_FFFF), (0x4000_0000, 0x4FFF_FFFF), (0x6000_0000, 0x6000_0FFF)]


@pytest.mark.parametrize(
    ("address", "size", "first_bad"),
    [
        (0, 8, None),
        (0x3FF_FFFC, 8, None),
        (0x7FF_FFFC, 8, 0x800_0000),
        (0x900_0000, 8, 0x900_0000),
        (0x3FFF_FFFC, 8, 0x3FFF_FFFC),
        (0x4FFF_FFF8, 8, None),
        (0x4FFF_FFF8, 9, 0x5000_0000),
        (0x4FFF_FFFF, 1, None),
        (0x5000_0000, 1, 0x5000_0000),
        (0x6000_0000, 0x1000, None),
        (0x40_1000_0000, 8, 0x40_1000_0000),
        (1 << 52, 8, 1 << 52),
        (0x4000_0000, 0x1000_0001, 0x5000_0000),
    ],
)
def test_the_first_address_that_is_no_memory(
    remote: Any, address: int, size: int, first_bad: int | None
) -> None:
    assert remote.RamMap(MTREE).first_bad(address, size) == first_bad


@pytest.mark.parametrize("answer", ["", "unknown command: 'info mtree -f'\n", "FlatView #0\n nonsense\n"])
def test_a_monitor_that_says_nothing(remote: Any, answer: str) -> None:
    ram = remote.RamMap(answer)
    assert not ram
    assert ram.ranges == []


class Stub:
    """A connection to a stub with one page of memory, that notes its packets and may fail at one of them.

    What it answers to the n-th packet may be something else than the right thing, after it has done it.
    """

    details = "the stub"

    def __init__(self, mode: bytes = b"0") -> None:
        self.mode = mode
        self.binary = False
        self.sent: list[bytes] = []
        self.fail: dict[int, BaseException] = {}
        self.wrong: dict[int, bytes] = {}

    def send_packet(self, packet: bytes) -> bytes | None:
        right = self._answer(packet)
        return self.wrong.get(len(self.sent), right)

    def _answer(self, packet: bytes) -> bytes | None:
        self.sent.append(packet)
        failure = self.fail.pop(len(self.sent), None)
        if failure is not None:
            raise failure
        if packet == b"qqemu.PhyMemMode":
            return self.mode
        if packet.startswith(b"Qqemu.PhyMemMode:"):
            self.mode = packet[-1:]
            return b"OK"
        if packet[:1] == b"x" and not self.binary:
            return None
        address, _, length = packet[1:].partition(b",")
        start, size = int(address, 16) - 0x1000, int(length, 16)
        assert size <= 0x800
        assert self.mode == b"1"
        if packet[:1] == b"x":
            return b"b" + escaped(PAGE[start : start + size])
        assert packet[:1] == b"m"
        return PAGE[start : start + size].hex().encode() if 0 <= start <= 0x1000 - size else b"E14"


PAGE = bytes(n % 251 for n in range(0x1000))


def escaped(data: bytes) -> bytes:
    """Binary data as a stub sends it."""
    return b"".join(b"}" + bytes((n ^ 0x20,)) if n in b"#$*}" else bytes((n,)) for n in data)


@pytest.fixture
def stub() -> Stub:
    return Stub()


def memory(remote: Any, stub: Stub, mtree: str = "") -> Any:
    remote.gdb.stub = stub
    return remote.PhysicalMemory(stub, lambda: remote.RamMap(mtree))


def test_the_mode_is_borrowed_for_the_first_read_only(remote: Any, stub: Stub) -> None:
    with memory(remote, stub) as physical:
        assert stub.sent == []
        assert physical.read(0x1008, 8) == PAGE[8:16]
        assert physical.read(0x1010, 8) == PAGE[16:24]
        assert physical.read(0x1008, 8) == PAGE[8:16]
        assert (physical.packets, physical.bytes_read) == (4, 16)
    assert stub.sent == [
        b"qqemu.PhyMemMode",
        b"Qqemu.PhyMemMode:1",
        b"m1008,8",
        b"m1010,8",
        b"Qqemu.PhyMemMode:0",
    ]
    assert stub.mode == b"0"


def test_no_read_costs_no_packet(remote: Any, stub: Stub) -> None:
    with memory(remote, stub):
        pass
    assert stub.sent == []


def test_the_users_own_mode_is_kept(remote: Any) -> None:
    stub = Stub(b"1")
    with memory(remote, stub) as physical:
        physical.read(0x1000, 8)
    assert stub.sent == [b"qqemu.PhyMemMode", b"m1000,8"]


def test_a_table_is_read_in_two_packets(remote: Any, stub: Stub) -> None:
    """A stub without the packet for binary data is asked for it only once."""
    with memory(remote, stub) as physical:
        assert physical.read(0x1000, 0x1000) == PAGE
    assert stub.sent[2:5] == [b"x1000,800", b"m1000,800", b"m1800,800"]


def test_binary_data(remote: Any, stub: Stub) -> None:
    stub.binary = True
    with memory(remote, stub) as physical:
        assert physical.read(0x1000, 0x1000) == PAGE
    assert stub.sent[2:4] == [b"x1000,800", b"x1800,800"]


def test_a_table_that_is_asked_for_again_and_again_comes_as_a_whole(remote: Any, stub: Stub) -> None:
    with memory(
        remote, stub, 'FlatView #0\n AS "memory"\n' + f"  {0x1000:016x}-{0x1FFF:016x} (prio 0, ram): r\n"
    ) as physical:
        for entry in range(0, 64, 8):
            assert physical.read(0x1000 + entry, 8) == PAGE[entry : entry + 8]
        assert physical.read(0x1800, 8) == PAGE[0x800:0x808]
    reads = [packet for packet in stub.sent if packet[:1] == b"m"]
    assert reads == [b"m1000,8", b"m1008,8", b"m1010,8", b"m1000,800", b"m1800,8"]


def test_gdb_looks_at_no_frame_in_physical_memory(remote: Any, stub: Stub) -> None:
    """What GDB forgets its frames for is followed by a look at the code around the PC, at its virtual address."""
    with memory(remote, stub) as physical:
        physical.read(0x1000, 8)
        remote.let_gdb_look()
        assert stub.mode == b"1"
        physical.read(0x1000, 0x1000)
        remote.let_gdb_look()
        assert stub.mode == b"0"
        physical.read(0x1010, 8)
        remote.let_gdb_look()
        assert stub.mode == b"1"


def test_a_refused_read(remote: Any, stub: Stub) -> None:
    with memory(remote, stub) as physical, pytest.raises(MemoryUnavailable) as caught:
        physical.read(0x1800, 0x1000)
    assert (caught.value.space, caught.value.address, caught.value.first_bad) == ("PA", 0x1800, 0x2000)
    assert str(caught.value) == "cannot read 4096 bytes at PA 0x1800: the stub answered E14"
    assert stub.mode == b"0"


def test_no_device_is_asked_for(remote: Any, stub: Stub) -> None:
    with memory(remote, stub, MTREE) as physical, pytest.raises(MemoryUnavailable) as caught:
        physical.read(0x900_0000, 8)
    assert caught.value.reason == "the machine has no memory there"
    assert stub.sent == []


def test_a_stub_without_the_mode(remote: Any, stub: Stub) -> None:
    stub.mode = b""
    with memory(remote, stub) as physical, pytest.raises(NoTarget, match="no physical memory mode"):
        physical.read(0x1000, 8)
    assert stub.sent == [b"qqemu.PhyMemMode"]


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5])
def test_ctrl_c_in_any_packet_gives_the_mode_back(remote: Any, stub: Stub, at: int) -> None:
    """The stub may have done what the interrupted packet asked, or not: the mode is restored all the same."""
    stub.fail[at] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt), memory(remote, stub) as physical:
        physical.read(0x1000, 0x1000)
    assert stub.mode == b"0"
    assert remote._borrowers == []


def test_ctrl_c_twice_while_giving_back(remote: Any, stub: Stub) -> None:
    stub.fail = {5: KeyboardInterrupt(), 6: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt), memory(remote, stub) as physical:
        physical.read(0x1000, 0x1000)
    assert stub.mode == b"0"


def test_what_no_block_gave_back(remote: Any, stub: Stub) -> None:
    """Ctrl-C may hit before the first instruction of __exit__: the command's end gives the mode back."""
    physical = memory(remote, stub)
    physical.read(0x1000, 8)
    assert stub.mode == b"1"
    remote.give_back_all()
    assert stub.mode == b"0"
    assert stub.sent[-1] == b"Qqemu.PhyMemMode:0"
    remote.give_back_all()
    assert stub.sent.count(b"Qqemu.PhyMemMode:0") == 1


@pytest.mark.parametrize("failure", [FakeError("Remote connection closed"), RuntimeError("no longer exists")])
@pytest.mark.parametrize("at", [1, 2, 3, 4, 5])
def test_a_lost_connection_is_one_sentence(remote: Any, stub: Stub, at: int, failure: RuntimeError) -> None:
    stub.fail = dict.fromkeys(range(at, 9), failure)
    with (
        pytest.raises(NoTarget, match="the connection to the target is lost"),
        memory(remote, stub) as physical,
    ):
        physical.read(0x1000, 0x1000)
    assert remote._borrowers == []


def test_memory_that_the_stub_withholds_is_not_absent(remote: Any, stub: Stub) -> None:
    """Absent memory aborts a walk; a line that is bad does not make the machine abort."""
    stub.wrong[3] = b"E22"
    mtree = MTREE.replace("0000000040000000-000000004fffffff", f"{0x1000:016x}-{0x1FFF:016x}")
    with memory(remote, stub, mtree) as physical, pytest.raises(MemoryUnavailable) as caught:
        physical.read(0x1000, 8)
    assert caught.value.unsaved


@pytest.mark.parametrize("answer", [b"", b"00", b"zz" * 8, b"\xff" * 16, b"0" * 15])
def test_an_answer_that_is_no_memory(remote: Any, stub: Stub, answer: bytes) -> None:
    stub.wrong[3] = answer
    with memory(remote, stub) as physical, pytest.raises(MemoryUnavailable):
        physical.read(0x1000, 8)
    assert stub.mode == b"0"


def test_a_refusal_to_leave_physical_memory_is_asked_again(remote: Any, stub: Stub) -> None:
    stub.wrong[4] = b"E22"
    with memory(remote, stub) as physical:
        physical.read(0x1000, 8)
    assert stub.sent[-2:] == [b"Qqemu.PhyMemMode:0"] * 2


def test_a_mode_that_a_lost_connection_left_is_restored_later(remote: Any, stub: Stub) -> None:
    stub.fail = dict.fromkeys(range(4, 9), FakeError("Remote connection closed"))
    with pytest.raises(NoTarget), memory(remote, stub) as physical:
        physical.read(0x1000, 8)
    again = Stub(b"1")
    with memory(remote, again) as physical:
        physical.read(0x1000, 8)
    assert again.mode == b"0"
    theirs = Stub(b"1")
    with memory(remote, theirs) as physical:
        physical.read(0x1000, 8)
    assert theirs.mode == b"1"


def test_an_action_is_done_to_its_end(remote: Any) -> None:
    done = []

    def action() -> None:
        done.append(1)
        if len(done) < 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        remote.interruptible(action)
    assert len(done) == 4
    remote.interruptible(lambda: done.append(2))
    assert done[-1] == 2


# Completion: GDB gives the arguments so far, and the part of the last word behind its last word break.

WALK = Command(
    name="walk",
    summary="Walk.",
    run=lambda context, arguments: None,
    arguments=(
        Argument(("address",), "where", "number", rest=True),
        Argument(("--stage1",), "only stage 1"),
        Argument(("--stage2",), "only stage 2"),
        Argument(("--ttbr",), "the root", "number"),
        Argument(("--regime",), "which", "choice", choices=("EL1", "EL2", "EL3")),
        Argument(("--out",), "a file", "path"),
        Argument(("--note",), "any text", "text"),
    ),
)
REG = Command(
    "reg", "Reg.", lambda c, a: None, (Argument(("register",), "which", "register", optional=True),)
)
AT = Command(
    "at",
    "At.",
    lambda c, a: None,
    (
        Argument(("op",), "which", choices=("S1E1R", "S1E2R")),
        Argument(("address",), "where", "number", rest=True),
        Argument(("--ec",), "which", "class"),
    ),
)
TRACE = Command("trace", "Trace.", lambda c, a: None, subcommands=(WALK, REG))
NONE, FILENAME, EXPRESSION = 0, 1, 4


@pytest.mark.parametrize(
    ("command", "text", "word", "found"),
    [
        (WALK, "", None, NONE),
        (WALK, "", "", EXPRESSION),
        (WALK, "&hyp_v", "hyp_v", EXPRESSION),
        (WALK, "--st", "st", ["stage1", "stage2"]),
        (WALK, "--st", "--st", ["--stage1", "--stage2"]),
        (WALK, "--stage1 --re", "re", ["regime"]),
        (WALK, "--regime ", "", ["EL1", "EL2", "EL3"]),
        (WALK, "--regime EL", "EL", ["EL1", "EL2", "EL3"]),
        (WALK, "--regime EL2 ", "", EXPRESSION),
        (WALK, "--regime X", "X", []),
        (WALK, "--ttbr $TT", "TT", EXPRESSION),
        (WALK, "--out /tm", "tm", FILENAME),
        (WALK, "--note ", "", NONE),
        (WALK, "-", "", ["-json", "-note", "-out", "-regime", "-stage1", "-stage2", "-ttbr"]),
        (REG, "VTC", "VTC", ["VTCR_EL2"]),
        (REG, "vtc", "vtc", ["VTCR_EL2"]),
        (REG, "NOTHING_LIKE_IT", "NOTHING_LIKE_IT", []),
        (REG, "hcr_el2.tg", "tg", ["TGE"]),
        (REG, "HCR_EL2.TGE", "HCR_EL2.TGE", ["HCR_EL2.TGE"]),
        (REG, "NO_SUCH.", "", []),
        (REG, "HCR_EL2 ", "", ["--csv", "--json", "--output", "--quiet", "-o"]),
        (AT, "S1", "S1", ["S1E1R", "S1E2R"]),
        (AT, "S1E1R ", "", EXPRESSION),
        (AT, "--ec hvc S1E1R $x", "x", EXPRESSION),
        (AT, "--ec hv", "hv", ["hvc", "hvc32"]),
        (TRACE, "", "", ["reg", "walk"]),
        (TRACE, "w", "w", ["walk"]),
        (TRACE, "walk --regime ", "", ["EL1", "EL2", "EL3"]),
        (TRACE, "reg VTC", "VTC", ["VTCR_EL2"]),
    ],
)
def test_completion(complete: Any, command: Command, text: str, word: str | None, found: Any) -> None:
    candidates = complete(command, text, word)
    if isinstance(found, list) and text == "-":
        assert [c for c in candidates if c in found] == found
    else:
        assert candidates == found


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("HCR_EL2", ("HCR_EL2",)),
        ("SCTLR_EL1", ("SCTLR_EL1", "SCTLR")),
        ("CPSR", ("CPSR", "cpsr")),
        ("X0", ("x0",)),
        ("X30", ("x30",)),
        ("PC", ("PC", "pc")),
        ("ID_AA64MMFR3_EL1", ("ID_AA64MMFR3_EL1", "ID_AA64MMFR3_EL1_RESERVED")),
    ],
)
def test_names_of_registers(name: str, names: tuple[str, ...]) -> None:
    assert stub_names(name) == names


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("* CPU #0: thread_id=1\n", "* CPU #0: thread_id=1\n"),
        ('@"* CPU #0: thread_id=1\\r\\n"\n', "* CPU #0: thread_id=1\r\n"),
        (
            '~"sending: qqemu.PhyMemMode\\n"\n~"received: \\"0\\"\\n"\n',
            'sending: qqemu.PhyMemMode\nreceived: "0"\n',
        ),
        ('~"a\\\\b\\303\\244"\n', "a\\b\xc3\xa4"),
        ("", ""),
        ('~"one"\nand more\n', '~"one"\nand more\n'),
    ],
)
def test_what_a_command_said_in_mi(fake_gdb: ModuleType, said: str, text: str) -> None:
    assert importlib.import_module("gdbhyp.plugin.capture").plain(said) == text
