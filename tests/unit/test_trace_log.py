"""QEMU's ``-d int`` log: what its lines become, however they are cut and mixed."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gdbhyp.trace.events import Event, Lost, Returned, Taken
from gdbhyp.trace.qemu_log import QemuLogParser

# As QEMU 7.2 wrote it, and QEMU 10.0 with its SPSR line: a host's call, the return into a guest, its MMIO, an IRQ.
LOG = b"""\
Taking exception 11 [Hypervisor Call] on CPU 0
...from EL1 to EL2
...with ESR 0x16/0x5a000000
...with ELR 0xffff8000080007e8
...to EL2 PC 0x6e0000200400 PSTATE 0x3c9
Exception return from AArch64 EL2 to AArch64 EL1 PC 0xffffffc012000068
Taking exception 4 [Data Abort] on CPU 0
...from EL1 to EL2
...with ESR 0x24/0x93840005
...with FAR 0x555500000018
...with SPSR 0x3c5
...with ELR 0xffffffc01200006c
...to EL2 PC 0x6e0000200400 PSTATE 0x23c9
Exception return from AArch64 EL2 to AArch64 EL1 PC 0xffff8000080007e8
Taking exception 5 [IRQ] on CPU 0
...from EL1 to EL2
...with ESR 0x24/0x93840005
...with ELR 0xffffffc012000070
...to EL2 PC 0x6e0000200480 PSTATE 0x3c9
"""
EVENTS: list[Event] = [
    Taken(0, 0, 0x6E0000200400, 1, esr=0x5A000000, elr=0xFFFF8000080007E8),
    Returned(1, None, 1, 0xFFFFFFC012000068),
    Taken(2, 0, 0x6E0000200400, 1, esr=0x93840005, far=0x555500000018, elr=0xFFFFFFC01200006C, spsr=0x3C5),
    Returned(3, None, 1, 0xFFFF8000080007E8),
    Taken(4, 0, 0x6E0000200480, 1, esr=0x93840005, elr=0xFFFFFFC012000070),
]


def parse(log: bytes) -> list[Event]:
    parser = QemuLogParser()
    return [*parser.feed(log), *parser.finish()]


def test_whole() -> None:
    assert parse(LOG) == EVENTS


def test_windows_line_ends() -> None:
    assert parse(LOG.replace(b"\n", b"\r\n")) == EVENTS


@given(st.lists(st.integers(0, len(LOG)), max_size=12))
def test_any_cut(cuts: list[int]) -> None:
    parser = QemuLogParser()
    edges = [0, *sorted(cuts), len(LOG)]
    events = [e for begin, end in pairwise(edges) for e in parser.feed(LOG[begin:end])]
    assert [*events, *parser.finish()] == EVENTS
    assert parser.counts.lines == LOG.count(b"\n")


def test_stale_syndrome_of_an_interrupt() -> None:
    interrupt = EVENTS[4]
    assert isinstance(interrupt, Taken)
    assert interrupt.esr == 0x93840005
    assert interrupt.syndrome is None
    assert interrupt.ec is None


def test_other_exception_levels_are_left_out() -> None:
    parser = QemuLogParser()
    log = (
        b"Taking exception 2 [SVC] on CPU 0\n...from EL0 to EL1\n...with ESR 0x15/0x56000000\n"
        b"...with ELR 0x400\n...to EL1 PC 0xffff800080010400 PSTATE 0x3c5\n"
        b"Exception return from AArch64 EL1 to AArch64 EL0 PC 0x400\n"
    )
    assert [*parser.feed(log), *parser.finish()] == []
    assert parser.counts.others == 2


def test_firmware_call_is_no_exception() -> None:
    """QEMU answers PSCI itself: the exception that it announces is never taken."""
    log = (
        b"Taking exception 13 [Secure Monitor Call] on CPU 0\n...from EL2 to EL3\n"
        b"...with ESR 0x17/0x5e000000\n...handled as PSCI call\n"
    )
    assert parse(log + LOG) == EVENTS


def test_return_between_the_lines_of_another_cpu() -> None:
    lines = LOG.splitlines(keepends=True)
    middle = b"Exception return from AArch64 EL2 to AArch64 EL1 PC 0x1234\n"
    events = parse(b"".join([*lines[:3], middle, *lines[3:]]))
    assert events[0] == Returned(0, None, 1, 0x1234)
    assert [e._replace(seq=0) for e in events[1:]] == [e._replace(seq=0) for e in EVENTS]


def test_interleaved() -> None:
    """Two CPUs write at once: the lines find their records by what each can hold."""
    log = (
        b"Taking exception 4 [Data Abort] on CPU 1\n"
        b"Taking exception 11 [Hypervisor Call] on CPU 0\n"
        b"...from EL1 to EL2\n"
        b"...from EL1 to EL2\n"
        b"...with ESR 0x16/0x5a000000\n"
        b"...with ESR 0x24/0x93840005\n"
        b"...with FAR 0x18\n"
        b"...with ELR 0x7e8\n"
        b"...to EL2 PC 0x2400 PSTATE 0x3c9\n"
        b"...with ELR 0x6c\n"
        b"...to EL2 PC 0x2400 PSTATE 0x3c9\n"
    )
    parser = QemuLogParser()
    events = [*parser.feed(log), *parser.finish()]
    by_cpu = {event.cpu: event for event in events if isinstance(event, Taken)}
    assert by_cpu[0].esr == 0x5A000000
    assert (by_cpu[1].esr, by_cpu[1].far) == (0x93840005, 0x18)
    assert parser.counts.interleaved


def test_end_within_a_record() -> None:
    cut = LOG[: LOG.index(b"...with ELR 0xffffffc012000070")]
    assert parse(cut) == [*EVENTS[:4], Lost(4, 1, "the log ends within a record")]


def test_beginning_within_a_record() -> None:
    cut = LOG[LOG.index(b"...with ESR") :]
    events = parse(cut)
    assert isinstance(events[0], Lost)
    assert [e._replace(seq=0) for e in events[1:]] == [e._replace(seq=0) for e in EVENTS[1:]]


def test_record_without_an_end() -> None:
    """A rotated or overwritten log: the same CPU takes another exception before the first is told."""
    lines = LOG.splitlines(keepends=True)
    events = parse(b"".join(lines[:3] + lines[6:13]))
    assert isinstance(events[0], Lost)
    assert events[0].cpu == 0
    assert isinstance(events[1], Taken)


def test_foreign_lines_are_counted() -> None:
    parser = QemuLogParser()
    log = b"[    0.000000] Booting Linux\n" + LOG + b"guest_errors: bad thing\n"
    assert [*parser.feed(log), *parser.finish()] == EVENTS
    assert parser.counts.foreign == 2


@given(st.binary(max_size=400))
def test_garbage_is_survived(noise: bytes) -> None:
    parse(LOG[:200] + noise + LOG)


def test_endless_line_is_bounded() -> None:
    parser = QemuLogParser()
    for _ in range(100):
        parser.feed(b"x" * 1000)
    assert parser.counts.foreign


def test_hole_is_a_gap() -> None:
    """A log that is emptied while QEMU goes on writing behind what was there has NUL bytes where lines were."""
    parser = QemuLogParser()
    one = LOG[: LOG.index(b"Exception return")]
    events = [*parser.feed(one), *parser.feed(b"\0" * 5000), *parser.feed(one), *parser.finish()]
    assert [type(event) for event in events] == [Taken, Lost, Taken]
    assert parser.counts.incomplete == 1
