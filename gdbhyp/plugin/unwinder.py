"""Backtraces through code that has only symbols: by its prologues, and with pointer signatures taken off."""

from __future__ import annotations

from bisect import bisect_right

import gdb
import gdb.unwinder

from gdbhyp.arch.prologue import FP, LR, frame_at, without_signature
from gdbhyp.hypervisors.symbols import CodeRange
from gdbhyp.plugin.stub_names import stub_names

_MOST_CODE = 1 << 16


class _FrameId:
    def __init__(self, sp: gdb.Value, pc: gdb.Value) -> None:
        self.sp = sp
        self.pc = pc


class Unwinder(gdb.unwinder.Unwinder):
    """Unwinds frames in the code of symbol files that gdbhyp made; all others are left to GDB."""

    def __init__(self) -> None:
        super().__init__("gdbhyp")
        self._code: dict[str, tuple[CodeRange, ...]] = {}

    def replace(self, name: str, code: tuple[CodeRange, ...]) -> None:
        """Take over the code of the symbol file ``name``; with no code, leave it to GDB."""
        if code and not self._code:
            gdb.unwinder.register_unwinder(None, self, replace=True)
        if code:
            self._code[name] = code
        else:
            self._code.pop(name, None)
        gdb.invalidate_cached_frames()

    def __call__(self, pending_frame: gdb.PendingFrame) -> gdb.UnwindInfo | None:
        try:
            pc = _unsigned(pending_frame.read_register("pc"))
            code = next((c for all_ in self._code.values() for c in all_ if c.start <= pc < c.end), None)
            return _unwind(pending_frame, pc, code) if code is not None else None
        except gdb.error:
            # A register or a stack that cannot be read ends the backtrace, as GDB's own unwinders end it.
            return None


def _unwind(pending: gdb.PendingFrame, pc: int, code: CodeRange) -> gdb.UnwindInfo | None:
    if _is_vector(pending, pc):
        return _exception_return(pending, pc)
    position = bisect_right(code.functions, pc) - 1
    if position < 0 or pc - code.functions[position] > _MOST_CODE:
        return None
    start = code.functions[position]
    frame = frame_at(_read(start, pc - start))
    sp, fp = pending.read_register("sp"), pending.read_register("x29")
    top = _unsigned(sp) + frame.sp if frame.fp is None else _unsigned(fp) + frame.fp
    found = _Found(pending, top, start)
    for register, below in frame.saved.items():
        found.save(f"x{register}", int.from_bytes(_read(top - below, 8), "little"))
    caller = found.saved["x30"] if LR in frame.saved else _unsigned(pending.read_register("x30"))
    caller = without_signature(caller, code.bits)
    found.save("x30", caller)
    if FP not in frame.saved:
        found.save("x29", _unsigned(fp))
    # A function that called and has not stored where it returns to is the first one: nothing called it.
    found.save("pc", caller if caller != pc else 0)
    found.save("sp", top)
    return found.info()


def _is_vector(pending: gdb.PendingFrame, pc: int) -> bool:
    """Return whether the CPU itself, of which alone system registers are known, stands in its level's vectors."""
    try:
        el = _el(pending)
        base = _unsigned(pending.read_register(_vector_base(pending, el))) & ~0x7FF
    except (gdb.error, ValueError):
        return False
    return el > 0 and base <= pc < base + 0x800


def _el(pending: gdb.PendingFrame) -> int:
    return _unsigned(pending.read_register("cpsr")) >> 2 & 3


def _vector_base(pending: gdb.PendingFrame, el: int) -> str:
    """Return what the stub calls VBAR_ELx."""
    shown = {register.name for register in pending.architecture().registers()}
    return next((name for name in stub_names(f"VBAR_EL{el}") if name in shown), "")


def _exception_return(pending: gdb.PendingFrame, pc: int) -> gdb.UnwindInfo:
    """Show what was interrupted as the caller; its stack is another regime's, when it was at another level."""
    found = _Found(pending, _unsigned(pending.read_register("sp")), pc)
    for register in ("x29", "x30", "sp"):
        found.save(register, _unsigned(pending.read_register(register)))
    found.save("pc", _unsigned(pending.read_register(f"ELR_EL{_el(pending)}")))
    return found.info()


class _Found:
    """The registers of a caller as they are found; a later value of a register takes the earlier one's place."""

    def __init__(self, pending: gdb.PendingFrame, top: int, start: int) -> None:
        self._pending = pending
        self.saved = {"cpsr": _unsigned(pending.read_register("cpsr"))}
        self._id = _FrameId(self._value("sp", top), self._value("pc", start))

    def save(self, register: str, value: int) -> None:
        self.saved[register] = value

    def info(self) -> gdb.UnwindInfo:
        """Return them as GDB takes them."""
        made = self._pending.create_unwind_info(self._id)
        for register, value in self.saved.items():
            made.add_saved_register(register, self._value(register, value))
        return made

    def _value(self, register: str, value: int) -> gdb.Value:
        kind = self._pending.read_register(register).type
        return gdb.Value(value & (1 << 64) - 1).cast(kind)


def _read(address: int, size: int) -> bytes:
    return bytes(gdb.selected_inferior().read_memory(address, size)) if size else b""


def _unsigned(value: gdb.Value) -> int:
    return int(value) & (1 << 64) - 1


_unwinder: list[Unwinder] = []


def unwinder() -> Unwinder:
    """Return the one unwinder of this GDB."""
    if not _unwinder:
        _unwinder.append(Unwinder())
    return _unwinder[0]
