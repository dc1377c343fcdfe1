"""Linux's own kvm events, as trace-cmd and perf print them, read as a trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gdbhyp.cli.main import main
from gdbhyp.errors import BadInput
from gdbhyp.trace import files
from gdbhyp.trace.events import CLASS_ONLY, Event, Lost, Returned, Taken
from gdbhyp.trace.linux_text import KvmTextParser, looks_like_kvm_text

DATA = Path(__file__).with_name("data")
TRACE_CMD, PERF = DATA / "kvm-trace-cmd.txt", DATA / "kvm-perf-script.txt"


def events(text: bytes, size: int = 1 << 20) -> list[Event]:
    parser = KvmTextParser()
    chunks = [text[at : at + size] for at in range(0, len(text), size)]
    return [event for chunk in chunks for event in parser.feed(chunk)] + parser.finish()


def exits(text: bytes) -> list[Taken]:
    return [event for event in events(text) if isinstance(event, Taken)]


def line(
    event: str, text: str, cpu: int = 2, time: str = "5120.100000", comm: str = "CPU 0/KVM-1742 "
) -> bytes:
    return f"  {comm} [{cpu:03}]  {time}: {event}: {text}\n".encode()


EXIT = "TRAP: HSR_EC: 0x0024 (DABT_LOW), PC: 0xffff8000100103d4"


def test_what_follows_completes_an_exit() -> None:
    fault, hvc, irq, sysreg, wfx = exits(TRACE_CMD.read_bytes())
    assert (fault.esr, fault.far, fault.hpfar) == (0x93C08046, 0xFFFF800012345018, 0x90000)
    assert (hvc.esr, hvc.x0, hvc.elr) == (0x5A000000, 0x84000000, 0xFFFF800010010100)
    assert (irq.cpu, irq.kind, irq.ec, irq.syndrome) == (1, 1, None, None)
    # Only the class is known, and so the rest is not made up.
    assert (sysreg.ec, sysreg.syndrome, sysreg.esr) == (0x18, None, CLASS_ONLY | 0x18 << 26)
    assert (wfx.ec, wfx.time) == (1, 5120_100_100_000)
    assert {event.world for event in (fault, hvc, irq, sysreg, wfx)} == {"guest"}


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
@pytest.mark.parametrize("path", [TRACE_CMD, PERF], ids=["trace-cmd", "perf"])
def test_chunks_make_no_difference(path: Path, size: int) -> None:
    text = path.read_bytes()
    assert events(text, size) == events(text)


@pytest.mark.parametrize(
    "text",
    [
        line("kvm_exit", EXIT),
        line("kvm:kvm_exit", EXIT),
        line("kvm_exit", EXIT, comm="qemu-system-aar-1742  (   1740)"),
        line("kvm_exit", EXIT).replace(b"]  ", b"] d..1. "),
        line("kvm_exit", EXIT).replace(b"]  ", b"] .....  "),
        line("kvm:kvm_exit", EXIT, comm="CPU 0/KVM  1742/1750"),
        line("kvm_exit", EXIT, comm="weird [7] name-1742"),
        line("kvm_exit", EXIT.replace("HSR_EC", "ESR_EC")),
    ],
)
def test_spellings(text: bytes) -> None:
    (event,) = exits(text)
    assert looks_like_kvm_text(text)
    assert (event.cpu, event.ec, event.elr, event.time) == (2, 0x24, 0xFFFF8000100103D4, 5120_100_000_000)


@pytest.mark.parametrize(
    ("between", "completed"),
    [
        (b"", True),
        (line("kvm_mmio", "mmio write len 4 gpa 0x9000000 val 0x1"), True),
        (line("kvm_exit", EXIT, cpu=3), True),
        (line("kvm_entry", "PC: 0xffff8000100103d4"), False),
        (b"CPU:2 [LOST 3 EVENTS]\n", False),
    ],
)
def test_completion_ends_with_the_next_entry(between: bytes, completed: bool) -> None:
    fault = line("kvm_guest_fault", "ipa 0x1000, hsr 0x92000007, hxfar 0x10, pc 0x20")
    first = exits(line("kvm_exit", EXIT) + between + fault)[0]
    assert (first.syndrome is not None) is completed


def test_fault_of_another_class_is_not_this_exits() -> None:
    text = line("kvm_exit", EXIT.replace("0x0024", "0x0016")) + line(
        "kvm_guest_fault", "ipa 0x1000, hsr 0x92000007, hxfar 0x10, pc 0x20"
    )
    assert exits(text)[0].syndrome is None


def test_losses_are_gaps() -> None:
    lost = [event for event in events(TRACE_CMD.read_bytes()) if isinstance(event, Lost)]
    assert [(event.cpu, event.missing) for event in lost] == [(2, 7)]


def test_entries_are_the_guests() -> None:
    returns = [event for event in events(PERF.read_bytes()) if isinstance(event, Returned)]
    assert [(event.world, event.pc) for event in returns] == [
        ("guest", 0xFFFF800010010000),
        ("guest", 0xFFFF8000100103D8),
    ]


def stat(path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    assert main(["trace", "stat", str(path), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_statistics(capsys: pytest.CaptureFixture[str]) -> None:
    """The same statistics as of an emulated machine; each exit is a switch to the host, each entry one to the guest."""
    report = stat(TRACE_CMD, capsys)
    assert {(row["world"], row["ec"], row["count"]) for row in report["exits"]} == {
        ("guest", ec, 1) for ec in (0x24, 0x16, 0x18, 0x01, None)
    }
    assert (report["exceptions"], report["world_switches"], report["dropped"]) == (5, 10, 7)
    assert not report["worlds_deduced"]
    assert [(row["name"], row["count"]) for row in report["calls"]] == [("PSCI_VERSION", 1)]
    assert [row["ipa"] for row in report["ipas"]] == ["0x9000000"]
    assert report["registers"] == []
    assert any("kvm_mmio 1" in note for note in report["notes"])


def test_saved_trace_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "trace.jsonl"
    assert main(["trace", "export", str(TRACE_CMD), "--format", "jsonl", "-o", str(saved)]) == 0
    capsys.readouterr()
    ours, theirs = stat(saved, capsys), stat(TRACE_CMD, capsys)
    for key in ("exits", "calls", "ipas", "pcs", "worlds", "dropped", "world_switches"):
        assert ours[key] == theirs[key], key


def test_trace_of_linux_itself() -> None:
    """What Linux 6.1 wrote of the rig's guests: each round makes two HVCs, one SMC, and three register accesses."""
    text = (DATA / "kvm-ftrace-6.1.txt").read_bytes()
    found = exits(text)
    assert len(found) == text.count(b"kvm_exit:")
    rounds = [event.elr for event in found if event.x0 == 0xC600BEEF and event.esr == 0x5A001234]
    assert rounds
    known = [event for event in found if event.ec in (0x20, 0x24, 0x16)]
    assert all(event.syndrome is not None for event in known)
    mmio = [event for event in known if event.hpfar == 0x90000]
    assert all(event.far is not None and event.far & 0xFFF < 0x600 for event in mmio)


def test_other_architecture(tmp_path: Path) -> None:
    path = tmp_path / "x86.txt"
    path.write_bytes(line("kvm_exit", "reason EPT_VIOLATION rip 0xffffffff81000000 info 181 0"))
    with pytest.raises(BadInput, match="another architecture"):
        list(files.open_trace(str(path)).batches)


def test_noise_is_no_event() -> None:
    assert events(b"cpus=8\n# tracer: nop\n\xff\xfe\0garbage kvm_exit:\n" + line("sched_switch", "x")) == []
