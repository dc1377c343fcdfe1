"""The names of system registers and instructions agree with the disassemblers of binutils and of GDB.

Each disassembles every encoding of MRS, MSR and SYS. The table's own source is LLVM; where another tool calls an
encoding otherwise, or knows one that the table does not, data/sysreg_differences.txt says why.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.tools import need, newest_gdb

from gdbhyp.arch import sysregs

Encoding = tuple[int, int, int, int, int]
Answers = dict[tuple[Encoding, bool], str]
"""A name by encoding and whether it is read."""

CASES: list[tuple[Encoding, bool]] = [
    ((op0, number >> 11, number >> 7 & 15, number >> 3 & 15, number & 7), read)
    for op0, read in ((1, False), (2, True), (2, False), (3, True), (3, False))
    for number in range(1 << 14)
]


def opcode(encoding: Encoding, read: bool) -> int:
    op0, op1, crn, crm, op2 = encoding
    return 0xD500_0000 | read << 21 | op0 << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5


def assemble(directory: Path) -> Path:
    """Return an ELF file that has all cases from address 0x100000."""
    binary, image = directory / "all.bin", directory / "all.elf"
    binary.write_bytes(b"".join(opcode(*case).to_bytes(4, "little") for case in CASES))
    source = directory / "all.s"
    source.write_text(f'.globl _start\n_start: .incbin "{binary}"\n', encoding="utf-8")
    subprocess.run(
        [need("aarch64-linux-gnu-as"), "-o", str(directory / "all.o"), str(source)], check=True, timeout=60
    )
    link = [need("aarch64-linux-gnu-ld"), "-s", "-Ttext=0x100000", "-o", str(image), str(directory / "all.o")]
    subprocess.run(link, check=True, timeout=60)
    return image


def name_in(instruction: str) -> str | None:
    """Return the name that an instruction was printed with, None for the generic form."""
    words = " ".join(instruction.split())
    for pattern in (r"mrs x0, (\S+)$", r"msr (\S+), x0$"):
        match = re.match(pattern, words)
        if match:
            return None if re.match(r"s\d_\d_c\d+_c\d+_\d$", match[1]) else match[1].upper()
    if words.startswith(("sys ", "mrs ", "msr ", "hint ", ".inst", "udf")) or "undefined" in words:
        return None
    return re.sub(r",? x0$", "", words.replace(" x0, ", " ")).upper()


def answers(lines: list[str]) -> Answers:
    assert len(lines) == len(CASES)
    named = {case: name_in(line) for case, line in zip(CASES, lines, strict=True)}
    return {case: name for case, name in named.items() if name}


def objdump(image: Path) -> Answers:
    command = [need("aarch64-linux-gnu-objdump"), "-d", "--no-show-raw-insn", str(image)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    return answers(re.findall(r"^ +[0-9a-f]+:\t([^/\n]*)", output, re.MULTILINE))


def gdb(image: Path) -> Answers:
    command = [newest_gdb(), "-nx", "-batch", "-ex", f"x/{len(CASES)}i 0x100000", str(image)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    return answers(re.findall(r"^[^\t\n]*:\t([^/\n]*)", output, re.MULTILINE))


def differences() -> dict[tuple[str, str, str], str]:
    """Return the listed reasons by tool, our name and its name ("-" for none)."""
    text = (Path(__file__).parent / "data" / "sysreg_differences.txt").read_text(encoding="utf-8")
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            tool, ours, theirs, reason = (part.strip() for part in line.split("|"))
            assert reason
            found[(tool, ours, theirs)] = reason
    return found


@pytest.mark.parametrize(("tool", "ask"), [("objdump", objdump), ("gdb", gdb)])
def test_agreement(tool: str, ask: Callable[[Path], Answers], tmp_path: Path) -> None:
    theirs = ask(assemble(tmp_path))
    listed = differences()
    both, differing = set(), set()
    unlisted = set()
    for (encoding, read), name in theirs.items():
        ours = (sysregs.name_of(*encoding, read=read) or "-").upper()
        if ours != "-":
            both.add(encoding)
        if ours != name:
            differing.add(encoding)
            if (tool, ours, name) not in listed:
                unlisted.add(f"{tool} | {ours} | {name} | {sysregs.generic_name(*encoding)}")
    assert not unlisted, "\n".join(sorted(unlisted))
    agreeing = len(both - differing)
    assert agreeing / len(both) >= 0.995, f"{tool}: {agreeing} of {len(both)} encodings agree"
    assert len(both) > 1000
    print(f"{tool}: {agreeing} of {len(both)} encodings agree")
