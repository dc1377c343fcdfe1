"""Single registers of a stopped CPU with one packet each, and none of GDB's caches and frames on the way."""

from __future__ import annotations

import struct

import gdb

from gdbhyp.errors import NoTarget
from gdbhyp.plugin.capture import captured
from gdbhyp.plugin.stub_names import stub_names


class PacketRegisters:
    """Reads registers by their architectural names with the remote protocol's ``p``.

    The stub answers for the thread that GDB selected there last, which inside a breakpoint's ``stop`` is the one that
    stopped: GDB has just asked it for its PC.
    """

    def __init__(self) -> None:
        connection = gdb.selected_inferior().connection
        if not isinstance(connection, gdb.RemoteTargetConnection):
            raise NoTarget("tracing needs a remote target, such as QEMU's gdbstub")
        self.connection = connection
        self._packets = _packets()
        self.sent = 0

    def get(self, name: str) -> int | None:
        """Return a register, None if the stub does not show it or does not answer."""
        packet = self._packets.get(name)
        if packet is None:
            packet = self._packets[name] = self._find(name)
        if not packet:
            return None
        self.sent += 1
        answer = self.connection.send_packet(packet)
        if not answer or len(answer) % 2 or answer[:1] == b"E":
            return None
        try:
            return int.from_bytes(bytes.fromhex(answer.decode("ascii")), "little")
        except ValueError:
            return None

    def general(self) -> dict[str, int]:
        """Return X0 to X30 with one packet; GDB's org.gnu.gdb.aarch64.core begins with them, in this order."""
        self.sent += 1
        answer = self.connection.send_packet(b"g") or b""
        try:
            values = struct.unpack("<31Q", bytes.fromhex(answer[: 31 * 16].decode("ascii")))
        except (ValueError, struct.error):
            return {}
        return {f"X{number}": value for number, value in enumerate(values)}

    def _find(self, name: str) -> bytes:
        return next((self._packets[n] for n in stub_names(name) if n in self._packets), b"")


def _packets() -> dict[str, bytes]:
    """Return the packet that reads a register, by the stub's name; GDB tells the protocol's numbers.

    A line holds a name, GDB's number, its relative number, offset and size, a type of several words, and then the
    number of the protocol, behind which the place in the packet of all registers may follow.
    """
    packets = {}
    for line in captured("maint print remote-registers").splitlines():
        words = line.split()
        if len(words) < 7 or not words[1].isdigit():
            continue
        numbers = [word for word in words[6:] if word.isdigit()]
        if numbers:
            packets[words[0]] = b"p%x" % int(numbers[0])
    return packets
