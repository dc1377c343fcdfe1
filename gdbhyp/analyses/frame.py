"""A guest's code and callers, read through both stages of its own translation while somebody else runs."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from gdbhyp.analyses.vcpu import CallFrame, Frame, Instruction
from gdbhyp.arch.fields import Bits
from gdbhyp.arch.regimes import Regime
from gdbhyp.arch.spaces import VA, Word
from gdbhyp.engine.stop import Stop
from gdbhyp.engine.virtual import VirtualReader
from gdbhyp.errors import GdbhypError, MemoryUnavailable

Disassemble = Callable[[bytes, int], "list[str] | None"]

_BEFORE, _BEHIND = 4, 8
_MOST_CALLS = 64
_PAGE = 4096
_T0SZ, _T1SZ = Bits(5, 0), Bits(21, 16)


def frame(stop: Stop, disassemble: Disassemble) -> Frame:
    """Return the code around the PC of ``stop`` and its callers by the chain of frame records (AAPCS64, x29).

    ``disassemble(code, address)`` gives a line an instruction, or None where that cannot be had.
    """
    memory = VirtualReader(stop.machine, Regime.EL10)
    problems: list[str] = []
    if stop.aarch32:
        return Frame((), (), ("the guest is in AArch32 state, whose code and stack are not read",))
    pc = stop.register("PC")
    return Frame(
        tuple(_code(memory, pc, disassemble, problems)),
        tuple(_calls(stop, memory, pc, problems)),
        tuple(problems),
    )


def _code(
    memory: VirtualReader, pc: int, disassemble: Disassemble, problems: list[str]
) -> Iterator[Instruction]:
    start, end = pc - 4 * _BEFORE, pc + 4 * _BEHIND
    try:
        memory.read(pc, 4)
    except GdbhypError as error:
        problems.append(f"the code at PC cannot be read: {error}")
        return
    # The pages around the one with the PC may be missing.
    page = pc - pc % _PAGE
    start, end = _readable(memory, start, page, end)
    code = memory.read(start, end - start)
    lines = disassemble(code, start)
    for number, (word,) in enumerate(struct.iter_unpack("<I", code)):
        text = lines[number] if lines is not None and number < len(lines) else None
        yield Instruction(VA(start + 4 * number), Word(word), text)


def _readable(memory: VirtualReader, start: int, page: int, end: int) -> tuple[int, int]:
    if start < page and not _has(memory, start):
        start = page
    if end > page + _PAGE and not _has(memory, page + _PAGE):
        end = page + _PAGE
    return start, end


def _has(memory: VirtualReader, address: int) -> bool:
    try:
        memory.read(address, 4)
    except MemoryUnavailable:
        return False
    return True


def _calls(stop: Stop, memory: VirtualReader, pc: int, problems: list[str]) -> Iterator[CallFrame]:
    yield CallFrame(VA(pc), None)
    record = stop.register("X29")
    seen: set[int] = set()
    while record and len(seen) < _MOST_CALLS:
        if record % 8 or record in seen:
            problems.append(f"the callers end at {record:#x}, which is no frame record")
            return
        seen.add(record)
        try:
            following, link = struct.unpack("<QQ", memory.read(record, 16))
        except GdbhypError as error:
            problems.append(f"the callers end at x29 = {record:#x}: {error}")
            return
        if link:
            yield CallFrame(VA(without_signature(stop, link)), VA(record))
        record = following


def without_signature(stop: Stop, address: int) -> int:
    """Return an address of the guest without the pointer authentication code above its VA size (TCR_EL1.TnSZ)."""
    tcr = stop.optional("TCR_EL1") or 0
    upper = address >> 55 & 1
    bits = 64 - (_T1SZ(tcr) if upper else _T0SZ(tcr))
    low = address & (1 << bits) - 1
    return low | ((1 << 64) - (1 << bits) if upper else 0)
