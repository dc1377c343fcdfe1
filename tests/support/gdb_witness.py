"""Runs inside GDB: says what GDB and the stub hold, asking the stub by packets, past all that GDB remembers."""

import os
import signal
import sys
import threading

import gdb

_REGISTERS = 600


def _stub() -> gdb.RemoteTargetConnection:
    connection = gdb.selected_inferior().connection
    if not isinstance(connection, gdb.RemoteTargetConnection):
        raise RuntimeError("no stub is connected")
    return connection


def stub_registers() -> "list[list[str]]":
    """Return what the stub answers for each of its registers, a list a CPU; GDB knows no more registers afterwards.

    The stub answers for the CPU that it was asked about last: at the end that is the selected one.
    """
    frame = gdb.selected_frame().level()
    gdb.execute("maintenance flush register-cache", to_string=True)
    selected = gdb.selected_thread()
    threads = sorted(gdb.selected_inferior().threads(), key=lambda thread: thread.num)
    found = []
    for thread in [*threads, selected]:
        process, cpu, _ = thread.ptid
        packet(f"Hgp{process:x}.{cpu:x}")
        found.append([packet(f"p{n:x}") for n in range(_REGISTERS)])
    gdb.execute("info registers pc", to_string=True)
    gdb.execute(f"frame {frame}", to_string=True)
    return found[:-1]


def packet(text: str) -> str:
    """Return the stub's answer to a packet."""
    return bytes(_stub().send_packet(text.encode())).decode("latin-1")


def packet_or_none(text: str) -> "str | None":
    """Return the stub's answer to a packet, None on a connection that broke."""
    try:
        return packet(text)
    except RuntimeError:
        return None


def selected() -> "list[object]":
    """Return the selected thread and frame."""
    frame = gdb.selected_frame()
    return [gdb.selected_thread().num, frame.level(), str(frame.pc())]


def python_state() -> "list[object]":
    """Return what a program inside GDB may have left in its Python."""
    return [
        str(gdb.prompt_hook),
        str(sys.displayhook),
        str(sys.excepthook),
        str(signal.getsignal(2)),
        sorted(thread.name for thread in threading.enumerate()),
        sorted(os.environ.items()),
        os.getcwd(),
    ]


def symbol_files() -> "list[str]":
    """Return the files that GDB has symbols from."""
    return [str(file.filename) for file in gdb.objfiles()]
