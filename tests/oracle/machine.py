"""A bare QEMU machine that answers batches of AT instructions.

The machine is ``-M none`` with one CPU at EL3 and ``RAM_SIZE`` bytes of RAM at physical address 0, which is a file
that QEMU and this process share; every other physical address is unpopulated. ``payload.s`` runs in it. The map:

    0x0000_1000  the payload
    0x0000_8000  the control block
    0x0001_0000  the cases, CASE_SIZE bytes each
    0x0100_0000  the results, RESULT_SIZE bytes each
    0x0200_0000  the pool, in which the tables of the cases are

A walk that strays below the pool reads what the run itself writes, so no one can repeat it.
"""

from __future__ import annotations

import mmap
import re
import shutil
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RAM_SIZE = 0x0400_0000
LOAD_ADDRESS = 0x1000
CONTROL = 0x8000
CASES = 0x1_0000
RESULTS = 0x0100_0000
POOL = 0x0200_0000
CASE_SIZE = 0x100
RESULT_SIZE = 16
MAX_CASES = (RESULTS - CASES) // CASE_SIZE

OPERATIONS = (
    *("S1E1R", "S1E1W", "S1E0R", "S1E0W", "S1E1RP", "S1E1WP"),
    *("S12E1R", "S12E1W", "S12E0R", "S12E0W", "S1E2R", "S1E2W"),
)
ALWAYS = (
    *(
        "SCR_EL3",
        "HCR_EL2",
        "VTCR_EL2",
        "VTTBR_EL2",
        "SCTLR_EL1",
        "TCR_EL1",
        "TTBR0_EL1",
        "TTBR1_EL1",
        "MAIR_EL1",
    ),
    *("SCTLR_EL2", "TCR_EL2", "TTBR0_EL2", "MAIR_EL2"),
)
OPTIONAL = (
    *(
        "TTBR1_EL2",
        "HCRX_EL2",
        "TCR2_EL1",
        "TCR2_EL2",
        "PIR_EL1",
        "PIRE0_EL1",
        "PIR_EL2",
        "PIRE0_EL2",
        "S2PIR_EL2",
    ),
    *("POR_EL0", "POR_EL1", "POR_EL2", "MAIR2_EL1", "MAIR2_EL2"),
)
SECURE_STAGE2 = ("VSTCR_EL2", "VSTTBR_EL2")
ID_REGISTERS = (
    *("MIDR_EL1", "ID_AA64PFR0_EL1", "ID_AA64PFR1_EL1", "ID_AA64PFR2_EL1"),
    *("ID_AA64ISAR0_EL1", "ID_AA64ISAR1_EL1", "ID_AA64ISAR2_EL1"),
    *("ID_AA64MMFR0_EL1", "ID_AA64MMFR1_EL1", "ID_AA64MMFR2_EL1", "ID_AA64MMFR3_EL1", "ID_AA64MMFR4_EL1"),
    *("ID_AA64ZFR0_EL1", "ID_AA64DFR0_EL1"),
)

_PROGRAMMED = (*ALWAYS, *OPTIONAL, *SECURE_STAGE2)
_CASE = struct.Struct(f"<{3 + len(_PROGRAMMED)}Q")
_CONTROL = struct.Struct(f"<8Q{len(ID_REGISTERS)}Q")
_RUNNING, _DONE = 0, 1

Case = dict[str, Any]
"""A line of ``gdbhyp at``: ``{"op": "S12E1R", "va": "0x…", "regs": {"HCR_EL2": "0x…"}, "pstate": {"PAN": 0}}``."""


@dataclass(frozen=True)
class Answer:
    """What QEMU did with a case: wrote ``par``, took an exception with syndrome ``esr``, or ``died`` saying why."""

    par: int = 0
    esr: int = 0
    died: str = ""


class OracleError(Exception):
    """The machine did not do its work: the tools are missing, or the payload met what it must not meet."""


def missing_tools(qemu: str) -> list[str]:
    """Return what is needed to run the oracle and not installed."""
    return [
        tool
        for tool in (qemu, *(f"aarch64-linux-gnu-{t}" for t in ("as", "ld", "objcopy")))
        if not shutil.which(tool)
    ]


def build_payload(directory: Path) -> bytes:
    """Assemble ``payload.s`` in ``directory`` and return its bytes, to be placed at LOAD_ADDRESS."""
    source = Path(__file__).with_name("payload.s")
    obj, elf, binary = (directory / f"payload.{suffix}" for suffix in ("o", "elf", "bin"))
    for command in (
        ["as", "-o", obj, source],
        ["ld", f"-Ttext={LOAD_ADDRESS:#x}", "-e", "_start", "-o", elf, obj],
        ["objcopy", "-O", "binary", elf, binary],
    ):
        subprocess.run(["aarch64-linux-gnu-" + str(command[0]), *map(str, command[1:])], check=True)
    payload = binary.read_bytes()
    if LOAD_ADDRESS + len(payload) > CONTROL:
        raise OracleError("the payload has grown into the control block")
    return payload


def pack_case(case: Case) -> bytes:
    """Return a case as the payload reads it; registers that the case does not name are 0."""
    regs = case["regs"]
    values = [int(regs.get(name, "0"), 16) for name in _PROGRAMMED]
    head = (OPERATIONS.index(case["op"]), int(case["va"], 16), case["pstate"].get("PAN", 0))
    return _CASE.pack(*head, *values).ljust(CASE_SIZE, b"\0")


class Machine:
    """One QEMU binary and CPU model. Nothing runs between calls; a call runs QEMU as often as it must."""

    def __init__(self, qemu: str, model: str, directory: Path, timeout: float = 300) -> None:
        self.qemu = qemu
        self.model = model
        self.directory = directory
        self.timeout = timeout
        self.payload = build_payload(directory)
        self.version = qemu_version(qemu)
        self.starts = 0
        _, identity, _ = self._run(bytearray(RAM_SIZE), 0, 0)
        self.id_registers = dict(zip(ID_REGISTERS, identity[8:], strict=True))
        self.optional = frozenset(name for n, name in enumerate(OPTIONAL) if identity[7] >> n & 1)

    def ask(self, memory: bytearray, cases: Sequence[Case]) -> list[Answer]:
        """Run ``cases`` over ``memory``, RAM_SIZE bytes, and return an answer for each.

        The payload and the cases are written into ``memory`` first, so that it is what the walks will read. What
        QEMU writes is not visible in it. A case that kills QEMU is skipped and marked.
        """
        if len(cases) > MAX_CASES:
            raise ValueError(f"{len(cases)} cases do not fit, {MAX_CASES} do")
        memory[LOAD_ADDRESS : LOAD_ADDRESS + len(self.payload)] = self.payload
        packed = b"".join(map(pack_case, cases))
        memory[CASES : CASES + len(packed)] = packed
        answers: list[Answer] = []
        while len(answers) < len(cases):
            first = len(answers)
            results, control, complaint = self._run(memory, first, len(cases))
            reached = control[1]
            answers += [
                Answer(par, esr)
                for par, esr in struct.iter_unpack("<2Q", results[: (reached - first) * RESULT_SIZE])
            ]
            if control[4] == _RUNNING:
                answers.append(Answer(died=complaint))
        return answers

    def _run(self, memory: bytearray, first: int, count: int) -> tuple[bytes, tuple[int, ...], str]:
        """Run cases ``first`` to ``count``; return their results, the control block, and QEMU's last words."""
        memory[LOAD_ADDRESS : LOAD_ADDRESS + len(self.payload)] = self.payload
        _CONTROL.pack_into(memory, CONTROL, count, first, CASES, RESULTS, *[0] * (4 + len(ID_REGISTERS)))
        ram = self.directory / "ram"
        ram.write_bytes(memory)
        command = [
            *(self.qemu, "-M", "none,memory-backend=ram", "-cpu", self.model, "-m", f"{RAM_SIZE >> 20}M"),
            *("-object", f"memory-backend-file,id=ram,size={RAM_SIZE >> 20}M,mem-path={ram},share=on"),
            *("-display", "none", "-nodefaults", "-semihosting"),
            *("-device", f"loader,addr={LOAD_ADDRESS:#x},cpu-num=0"),
        ]
        self.starts += 1
        done = subprocess.run(command, capture_output=True, text=True, timeout=self.timeout, check=False)
        with ram.open("rb") as file, mmap.mmap(file.fileno(), RAM_SIZE, access=mmap.ACCESS_READ) as view:
            control = _CONTROL.unpack_from(view, CONTROL)
            results = view[RESULTS + first * RESULT_SIZE : RESULTS + count * RESULT_SIZE]
        state = control[4]
        if state not in (_RUNNING, _DONE):
            raise OracleError(
                f"case {control[1]}: unexpected exception, ESR {control[5]:#x}, ELR {control[6]:#x}"
            )
        if state == _RUNNING and (done.returncode >= 0 or count == 0):
            raise OracleError(
                f"{self.qemu} -cpu {self.model} ended with status {done.returncode}: {done.stderr}"
            )
        return results, control, done.stderr.strip() or f"status {done.returncode}"


def qemu_version(qemu: str) -> tuple[int, ...]:
    """Return the version of a QEMU binary, ``(7, 2, 22)``."""
    text = subprocess.run([qemu, "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"version (\d+(?:\.\d+)+)", text)
    if match is None:
        raise OracleError(f"{qemu} --version says no version: {text!r}")
    return tuple(map(int, match[1].split(".")))
