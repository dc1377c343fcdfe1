"""GDB's disassembler over bytes that are not in the current address space."""

from __future__ import annotations

import importlib
from typing import Any

import gdb


def disassemble(code: bytes, address: int) -> list[str] | None:
    """Return ``code``, as if it stood at ``address``, a line an instruction; None where GDB cannot (before 13).

    GDB asks a disassembler of ours for each instruction, which hands it the bytes.
    """
    try:
        # GDB's own module of this name, which "gdb.disassembler" alone is not before it was imported.
        disassembler: Any = importlib.import_module("gdb.disassembler")
    except ImportError:
        return None

    class Source(disassembler.DisassembleInfo):  # type: ignore[misc]
        def read_memory(self, length: int, offset: int = 0) -> memoryview:
            # GDB gives addresses as signed numbers.
            at = self.address - address + offset & (1 << 64) - 1
            if not 0 <= at <= len(code) - length:
                raise gdb.MemoryError("no code there")
            return memoryview(code)[at : at + length]

    class Bytes(disassembler.Disassembler):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__("hyp-bytes")

        def __call__(self, info: Any) -> Any:
            return disassembler.builtin_disassemble(Source(info))

    architecture = gdb.selected_inferior().architecture()
    previous = disassembler.register_disassembler(Bytes(), None)
    try:
        lines = architecture.disassemble(address, address + len(code) - 4)
    except gdb.error:
        return None
    finally:
        disassembler.register_disassembler(previous, None)
    return [" ".join(str(line["asm"]).split()) for line in lines]
