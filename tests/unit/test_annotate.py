"""Logs with their syndromes decoded: which lines are syndromes, which registers belong to them, what is said."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from gdbhyp.analyses.annotate import Annotation, Annotator
from gdbhyp.cli.main import main

DATA = Path(__file__).with_name("data")


def decoded(log: str) -> list[Annotation]:
    annotator = Annotator()
    pieces = [*annotator.feed(log.encode()), *annotator.finish()]
    return [piece.report() for piece in pieces if not isinstance(piece, bytes)]


def said(log: str) -> list[str]:
    """Return the summaries of all syndromes of a log, each followed by its notes."""
    return [line for each in decoded(log) for line in (each.syndrome.summary, *each.notes)]


def source(log: str) -> tuple[str, int]:
    (found,) = decoded(log)
    return found.source, found.syndrome.el


REAL = {
    # KVM in protected mode, its EL2 made to jump to 0x1000 by a debugger.
    "hyp-panic.log": [
        "    => ESR_EL2 0x86000005: EL2 instruction fetch from VA 0x1000 (stage-1 translation fault, level 1)",
        "    =>   HPFAR_EL2 0x41a000: not architecturally valid for this exception (stale)",
    ],
    "linux-oops.log": [
        "    => ESR_EL1 0x86000006: EL1 instruction fetch from VA 0x1000 (stage-1 translation fault, level 2)",
        "    => ESR_EL1 0x86000006: EL1 instruction fetch from VA 0x1000 (stage-1 translation fault, level 2)",
    ],
    "xen-panic.log": [
        "    => ESR_EL2 0x86000006: EL2 instruction fetch from VA 0x1000 (stage-1 translation fault, level 2)",
        "    =>   HPFAR_EL2 0x80000: not architecturally valid for this exception (stale)",
    ],
    # QEMU 7.2 and 10: a call that is answered as PSCI, interrupts, aborts and a trapped register.
    "qemu-int.log": [
        "    => ESR_EL3 0x5e000000: EL1 smc #0",
        "    => ESR_EL2 0x93840005: EL1 read of 4 bytes into w4 from VA 0x555500000018 "
        "(stage-2 translation fault, level 1)",
        "    => ESR_EL2 0x93c58045: EL1 write of 8 bytes from x5 to VA 0x555500000000 "
        "(stage-2 translation fault, level 1)",
        "    => ESR_EL1 0x92000047: EL0 write to VA 0x5cf9d0 (stage-1 translation fault, level 3)",
        "    => ESR_EL1 0x92000047: EL0 write to VA 0x5d8b28 (stage-1 translation fault, level 3)",
        "    => ESR_EL2 0x62300069: EL1 mrs x3, ID_AA64PFR0_EL1 trapped",
    ],
}


@pytest.mark.parametrize("name", REAL)
def test_logs_of_real_machines(name: str, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["annotate", str(DATA / name)]) == 0
    lines = capsysbinary.readouterr().out.decode().splitlines(keepends=True)
    assert [line.rstrip("\n") for line in lines if line.startswith("    => ")] == REAL[name]
    assert "".join(line for line in lines if not line.startswith("    => ")) == (DATA / name).read_text()


HYP_BUG = """\
PS:600003c9 PC:0000f418011a3750 ESR:00000000f2000800
FAR:ffff000439200000 HPFAR:0000000004792000 PAR:0000000000000000
VCPU:0000000000000000
"""
HYP_BUG_SAID = [
    "EL2 brk #0x800 (Linux BUG or WARN) at 0xf418011a3750",
    "FAR_EL2 0xffff000439200000 and HPFAR_EL2 0x4792000: not architecturally valid for this exception (stale)",
]


@pytest.mark.parametrize(
    "prefix",
    ["", "[   34.991813] ", "<4>[   34.991813][  T304] ", "Nov 22 18:00:01 host kernel: ", "> > ", "| "],
)
def test_prefixes(prefix: str) -> None:
    assert said("".join(prefix + line for line in HYP_BUG.splitlines(keepends=True))) == HYP_BUG_SAID


def test_lines_wrapped_by_mail() -> None:
    assert said("> " + HYP_BUG.replace(" ESR", "\n> ESR").replace(" HPFAR", "\n> HPFAR")) == HYP_BUG_SAID


def test_carriage_returns() -> None:
    assert said(HYP_BUG.replace("\n", "\r\n")) == HYP_BUG_SAID


def test_a_panic_that_is_cut_off() -> None:
    assert said(HYP_BUG.splitlines()[0]) == HYP_BUG_SAID[:1]


def test_a_panic_followed_by_something_else() -> None:
    assert said(HYP_BUG.splitlines()[0] + "\nCPU: 0 PID: 304\nFAR:0000000000001234\n") == HYP_BUG_SAID[:1]


def test_vhe_panic_and_the_poison_of_kvm() -> None:
    # PS has nine digits where PSTATE.PM is set; the ESR has as many as it needs; the processor drops RES0 bits of PAR.
    log = """\
PS:1624023c9 PC:0000004000ee3fc8 ESR:96000004
FAR:ffffff880115cd1c HPFAR:0000000000000000 PAR:1d00007edbadc8de
VCPU:0000004801e88000
"""
    assert said(log) == [
        "EL2 read from VA 0xffffff880115cd1c (stage-1 translation fault, level 0)",
        "PAR_EL1 0x1d00007edbadc8de: what KVM resets a vCPU's registers to, not the result of an AT instruction",
    ]
    (found,) = decoded(log)
    assert (found.spsr, found.elr, found.source) == (0x1624023C9, 0x4000EE3FC8, "kvm-hyp-panic")


@pytest.mark.parametrize(
    ("par", "poison"),
    [("1de7ec7edbadc0de", True), ("1d00007edbadc8de", True), ("1de7ec7edbadc0df", False), ("0" * 16, False)],
)
def test_poison(par: str, poison: bool) -> None:
    assert ("KVM resets" in str(said(HYP_BUG.replace("PAR:" + "0" * 16, "PAR:" + par)))) == poison


def test_hpfar_is_used_where_it_is_valid() -> None:
    log = """\
PS:000003c5 PC:ffff800008010000 ESR:93c58045
FAR:ffff800009000018 HPFAR:0000000000090000 PAR:0000000000000000
VCPU:ffff0000c0de0000
"""
    assert said(log) == [
        "guest write of 8 bytes from x5 to IPA 0x9000018 (stage-2 translation fault, level 1), VA 0xffff800009000018"
    ]
    assert said(log.replace("93c58045", "9200004f"))[1:] == [
        "HPFAR_EL2 0x90000: not architecturally valid for this exception (stale)"
    ]
    # No vCPU was running, so it was the host that EL2 took the abort of.
    assert said(log.replace("VCPU:ffff0000c0de0000", "VCPU:" + "0" * 16))[0].startswith(
        "host write of 8 bytes"
    )


def test_kcfi() -> None:
    # A function pointer of the wrong type in KVM's own code: x8 and w17 are in the immediate.
    (summary, *_) = said(HYP_BUG.replace("f2000800", "f2008228"))
    assert "kCFI" in summary
    assert "x8" in summary
    assert "w17" in summary


OOPS = """\
[  1.0] Unable to handle kernel paging request at virtual address ffffc04000004000
[  1.0] Mem abort info:
[  1.0]   ESR = 0x0000000096000045
[  1.0]   EC = 0x25: DABT (current EL), IL = 32 bits
[  1.0] Internal error: Oops: 0000000096000045 [#1] PREEMPT SMP
"""
OOPS_SAID = "EL1 write to VA 0xffffc04000004000 (stage-1 translation fault, level 1)"


def test_oops() -> None:
    assert said(OOPS) == [OOPS_SAID, OOPS_SAID]
    assert source(OOPS.splitlines()[2]) == ("linux", 1)


def test_two_oopses_at_once_have_no_address() -> None:
    first, *rest = OOPS.splitlines(keepends=True)
    other = first.replace("ffffc04000004000", "ffffc04000008000")
    assert said("".join([first, other, *rest])) == ["EL1 write (stage-1 translation fault, level 1)"] * 2


def test_an_address_far_above_is_another_one() -> None:
    first, *rest = OOPS.splitlines(keepends=True)
    assert said(first + "[  1.0] something else\n" * 20 + rest[1]) == [
        "EL1 write (stage-1 translation fault, level 1)"
    ]


@pytest.mark.parametrize(
    ("line", "esr"),
    [
        ("Internal error: Oops: 96000045 [#1] SMP", 0x96000045),
        ("Internal error: Oops - Undefined instruction: 0000000002000000 [#1] SMP", 0x02000000),
        ("Internal error: synchronous external abort: 0000000096000210 [#1] SMP", 0x96000210),
        ("SError Interrupt on CPU4, code 0x00000000be000011 -- SError", 0xBE000011),
        (
            "Bad mode in Synchronous Abort handler detected on CPU0, code 0x86000005 -- IABT (current EL)",
            0x86000005,
        ),
        ("Unhandled 64-bit el1h sync exception on CPU0, ESR 0x0000000096000004 -- DABT", 0x96000004),
        (
            "a[1]: unhandled level 2 translation fault (11) at 0x00000008, esr 0x92000006, in a[400000+1000]",
            0x92000006,
        ),
        (
            "a[1]: unhandled exception: DABT (lower EL), ESR 0x0000000092000006, level 2 fault in a",
            0x92000006,
        ),
    ],
)
def test_linux(line: str, esr: int) -> None:
    (found,) = decoded(line + "\n")
    assert (found.syndrome.esr, found.source, found.syndrome.el) == (esr, "linux", 1)


def test_address_of_a_user_fault() -> None:
    assert said("a[1]: unhandled level 2 translation fault (11) at 0x00000008, esr 0x92000006, in a\n") == [
        "EL0 read from VA 0x8 (stage-1 translation fault, level 2)"
    ]


@pytest.mark.parametrize(
    "line",
    [
        "Internal error: Oops: 805 [#1] ARM",
        "Internal error: Oops - BUG: 0 [#1] SMP ARM",
        "Firefox ESR 128.0 and ESR 12345678",
        "HSR 0x is nothing, ESR: none",
        "ESR:1d=",
        "ESR:00000000f200=",
        "ESR_EL2: 0x00000000-96000045",
        "VSESR_EL2: 0x0000000096000045",
        "ESR:960000451234567890",
        "FAR_EL2: 0x96000045",
        "the users' resr: 0x96000045",
    ],
)
def test_no_syndrome(line: str) -> None:
    assert said(line + "\n" + line) == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("(XEN)    ESR_EL2: 96000045", ("xen", 2)),
        ("(XEN) Hypervisor Trap. HSR=0x2000000 EC=0x0 IL=1 Syndrome=0x0", ("xen", 2)),
        ("kvm [247]: Unsupported FSC: EC=0x24 xFSC=0x30 ESR_EL2=0x92000030", ("kvm", 2)),
        ("ERROR: Data abort: pc=0x6e00, esr=0x96000007, ec=0x25, far=0x1000", ("hafnium", 2)),
        ("esr_el3        = 0x0000000096000045", ("tf-a", 3)),
        ('"Synchronous Abort" handler, esr 0x96000045, far 0x10', ("firmware", 1)),
        ("ESR 0x96000045          FAR 0x0000000000000010", ("firmware", 1)),
        ("E: ESR_ELn: 0x0000000096000045", ("firmware", 1)),
        ("ESR_EL12: 0x96000045", ("firmware", 1)),
        ("ESR_EL2            0x93c58045          2479194181", ("firmware", 2)),
        ('{"esr":"0x93c58045","ec":36}', ("firmware", 2)),
    ],
)
def test_others(line: str, expected: tuple[str, int]) -> None:
    assert source(line + "\n") == expected


def test_an_unknown_exception_level_is_said() -> None:
    assert said("esr: 0x96000045, far: 0x10\n") == [
        "EL1 write to VA 0x10 (stage-1 translation fault, level 1)",
        "the log does not say whose ESR this is; read as ESR_EL1",
    ]
    # Only EL2 is told the instruction of an abort, and only EL2 takes HVCs.
    assert said("esr: 0x93c58045\n")[1].endswith("read as ESR_EL2")
    assert said("esr: 0x5a000000\n")[1].endswith("read as ESR_EL2")


def test_the_address_that_xen_says() -> None:
    assert said(
        "(XEN) d0v0 HSR=0x93c08006 pc=0xffff0000085e4b70 gva=0xffff000009a83004 gpa=0x00000008000004\n"
    ) == [
        "guest read of 8 bytes into x0 from IPA 0x8000004 (stage-2 translation fault, level 2), VA 0xffff000009a83004"
    ]


TF_A = """\
Unhandled Exception in EL3.
x30            = 0x0000000004025000
x0             = 0x0000000084000003
x1             = 0x0000000000000001
scr_el3        = 0x0000000000000735
spsr_el3       = 0x00000000600003c5
elr_el3        = 0xffff000000001000
ttbr0_el3      = 0x0000000000000000
esr_el3        = 0x000000005e000000
far_el3        = 0x0000000000000000
spsr_el1       = 0x0000000000000000
esr_el1        = 0x0000000000000000
"""


def test_crash_dump_of_tf_a() -> None:
    call, *of_el1 = said(TF_A)
    assert call == "EL1 smc #0: PSCI_CPU_ON (x0 = 0x84000003)"
    assert of_el1[1].startswith("no exception leaves 0 here")


def test_fault_in_tf_a() -> None:
    log = TF_A.replace("5e000000", "96000006").replace("far_el3        = 0x0", "far_el3        = 0xf")
    assert said(log)[0] == "EL3 read from VA 0xf000000000000000 (stage-1 translation fault, level 2)"


ABORT = """\
Taking exception 4 [Data Abort] on CPU 0
...from EL1 to EL2
...with ESR 0x24/0x93c58045
...with FAR 0x9000018
...with ELR 0x40201000
...to EL2 PC 0x6e0000200400 PSTATE 0x3c9
"""
ABORT_SAID = "EL1 write of 8 bytes from x5 to VA 0x9000018 (stage-2 translation fault, level 1)"
IRQ = """\
Taking exception 5 [IRQ] on CPU 1
...from EL1 to EL2
...with ESR 0x24/0x93c58045
...with ELR 0x40201004
...to EL2 PC 0x6e0000200480 PSTATE 0x3c9
"""


def test_qemu() -> None:
    assert said(ABORT) == [ABORT_SAID]
    assert said(ABORT.replace(" on CPU 0", "")) == [ABORT_SAID]


def test_an_interrupt_has_no_syndrome() -> None:
    assert said(IRQ) == []
    assert said(IRQ + ABORT + IRQ) == [ABORT_SAID]


def test_a_process_of_the_host_or_a_guest() -> None:
    assert said(ABORT.replace("EL1", "EL0").replace("93c58045", "92000047")) == [
        "EL0 write to VA 0x9000018 (translation fault, level 3)",
        "of stage 1 if HCR_EL2.TGE was 1 (a process of a VHE host), else of stage 2: the log does not say which",
    ]


def test_interleaved_processors() -> None:
    """Lines of two CPUs in one another: nothing is joined that may not belong together."""
    one, two = ABORT.splitlines(keepends=True), ABORT.replace("CPU 0", "CPU 1").splitlines(keepends=True)
    mixed = "".join(line for pair in zip(one, two, strict=True) for line in pair)
    assert said(mixed) == ["EL1 write of 8 bytes from x5 (stage-2 translation fault, level 1)"] * 2
    assert said(mixed + ABORT) == [*said(mixed), ABORT_SAID]


def test_an_interrupt_between() -> None:
    interrupt, abort = IRQ.splitlines(keepends=True), ABORT.splitlines(keepends=True)
    assert said(abort[0] + "".join(interrupt) + "".join(abort[1:])) == []


def test_a_record_without_an_end() -> None:
    cut = "".join(ABORT.splitlines(keepends=True)[:4])
    assert said(cut) == [ABORT_SAID]
    assert said(cut + ABORT) == [ABORT_SAID, ABORT_SAID]
    assert said(cut + "a guest's own output\n" * 100 + IRQ) == [ABORT_SAID]


def test_only(capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n" + HYP_BUG + "between\n" + IRQ + OOPS + "after\n")
    assert main(["annotate", "--only", str(log)]) == 0
    lines = capsysbinary.readouterr().out.decode().splitlines()
    assert [line for line in lines if not line.startswith("    => ")] == [
        *HYP_BUG.splitlines(),
        *(line for line in OOPS.splitlines() if "address" in line or "ESR" in line or "Internal" in line),
    ]
    assert [line for line in lines if line.startswith("    => ESR")] != []


def test_json(capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    log = b"junk \xff\x00\n" + HYP_BUG.encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(log)))
    assert main(["annotate", "--json"]) == 0
    (line,) = capsysbinary.readouterr().out.splitlines()
    row = json.loads(line)
    assert main(["esr", "--json", "0xf2000800"]) == 0
    alone = json.loads(capsysbinary.readouterr().out)
    assert row["syndrome"] == {**alone, "summary": HYP_BUG_SAID[0]}
    assert (row["line"], row["text"], row["source"]) == (2, "ESR:00000000f2000800", "kvm-hyp-panic")
    assert log[row["offset"] :].startswith(row["text"].encode())
    assert (row["far"], row["hpfar"], row["spsr"]) == ("0xffff000439200000", "0x4792000", "0x600003c9")
    assert row["notes"] == HYP_BUG_SAID[1:]


@pytest.mark.parametrize("name", ["no-such-file", "."])
def test_unreadable(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["annotate", str(tmp_path / name)]) == 3
    assert capsys.readouterr().err.startswith("gdbhyp: cannot read ")
