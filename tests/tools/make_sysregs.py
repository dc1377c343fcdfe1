"""Writes gdbhyp/arch/data/sysregs.json from the answers of LLVM's assembler tools (Apache-2.0 WITH LLVM-
exception).

Every encoding of MRS, MSR, SYS and SYSL is disassembled with every feature on; the answer that is not
the generic form is the name. Run it with an ``llvm-mc`` of LLVM 22 or newer:

    python tests/tools/make_sysregs.py [LLVM_MC]
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

Encoding = tuple[int, int, int, int, int]

# Allocated and not yet known to LLVM 22: FEAT_SCRX in the AARCHMRS release 2026-03 (ID_AA64MMFR4_EL1.SCRX).
NEWER: dict[Encoding, tuple[str, str]] = {(3, 6, 1, 2, 2): ("SCR2_EL3", "SCR2_EL3")}
OUTPUT = Path(__file__).parents[2] / "gdbhyp" / "arch" / "data" / "sysregs.json"


def encodings(op0s: Iterable[int]) -> Iterator[Encoding]:
    """Yield every encoding of these op0 values."""
    for op0 in op0s:
        for number in range(1 << 14):
            yield op0, number >> 11, number >> 7 & 15, number >> 3 & 15, number & 7


def opcode(encoding: Encoding, *, read: bool, register: int) -> int:
    """Return the A64 instruction MRS, MSR, SYS or SYSL of an encoding."""
    op0, op1, crn, crm, op2 = encoding
    return 0xD500_0000 | read << 21 | op0 << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5 | register


def disassemble(llvm_mc: str, opcodes: list[int]) -> list[str]:
    """Return an instruction a line for ``opcodes``, in order, with single spaces."""
    text = "\n".join(" ".join(f"0x{byte:02x}" for byte in code.to_bytes(4, "little")) for code in opcodes)
    command = [llvm_mc, "--disassemble", "--triple=aarch64", "--mattr=+all"]
    output = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    lines = [" ".join(line.split("//")[0].split()) for line in output.splitlines() if line.startswith("\t")]
    lines = [line for line in lines if not line.startswith(".")]
    if len(lines) != len(opcodes):
        raise SystemExit(f"{llvm_mc} answered {len(lines)} of {len(opcodes)} instructions")
    return lines


def register_names(llvm_mc: str) -> dict[Encoding, tuple[str, str]]:
    """Return the names of op0 = 2 and 3 as (read, written), "" where a direction has none."""
    wanted = list(encodings((2, 3)))
    reads = disassemble(llvm_mc, [opcode(each, read=True, register=0) for each in wanted])
    writes = disassemble(llvm_mc, [opcode(each, read=False, register=0) for each in wanted])
    names = {}
    for encoding, read, write in zip(wanted, reads, writes, strict=True):
        reading = read.removeprefix("mrs x0, ")
        writing = write.removeprefix("msr ").removesuffix(", x0")
        generic = re.compile(r"S\d_\d_C\d+_C\d+_\d$", re.IGNORECASE)
        pair = ("" if generic.match(reading) else reading, "" if generic.match(writing) else writing)
        if pair[0].startswith("ICC_") and pair[1].startswith("ICV_"):
            pair = (pair[0], pair[0])  # the virtual view of the same encoding, not another register
        if any(pair):
            names[encoding] = pair
    return names


def instruction_names(llvm_mc: str) -> tuple[dict[Encoding, tuple[str, str]], list[str]]:
    """Return the names of op0 = 1 as (SYSL, SYS), and those SYS that are written without a register."""
    wanted = list(encodings((1,)))
    names: dict[Encoding, tuple[str, str]] = {}
    bare = []
    reads = disassemble(llvm_mc, [opcode(each, read=True, register=0) for each in wanted])
    writes = disassemble(llvm_mc, [opcode(each, read=False, register=0) for each in wanted])
    without = disassemble(llvm_mc, [opcode(each, read=False, register=31) for each in wanted])
    for encoding, read, write, alone in zip(wanted, reads, writes, without, strict=True):
        reading = "" if read.startswith("sysl ") else read.replace(" x0,", "").removesuffix(" x0").upper()
        writing = write if not write.startswith("sys ") else alone if not alone.startswith("sys ") else ""
        name = re.sub(r",? x0$", "", writing).upper()
        if reading or name:
            names[encoding] = (reading, name)
        if name and alone.upper() == name:
            bare.append(name)
    return names, bare


def main() -> None:
    llvm_mc = sys.argv[1] if len(sys.argv) > 1 else "llvm-mc-22"
    version = subprocess.run([llvm_mc, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"LLVM version (\S+)", version)
    registers = register_names(llvm_mc)
    instructions, bare = instruction_names(llvm_mc)
    document = {
        "source": f"LLVM {found[1] if found else ''}, llvm-mc --mattr=+all (Apache-2.0 WITH LLVM-exception)",
        "form": "op0_op1_CRn_CRm_op2: NAME, or READ|WRITE where they differ (nothing: no such access)",
        "without_register": sorted(bare),
        "names": {
            "_".join(map(str, key)): read if read == write else f"{read}|{write}"
            for key, (read, write) in sorted((NEWER | registers | instructions).items())
        },
    }
    OUTPUT.write_text(json.dumps(document, indent=0) + "\n", encoding="utf-8")
    print(f"{len(registers)} registers, {len(instructions)} instructions")


if __name__ == "__main__":
    main()
