"""Traces of a real machine: the text of ``trace-cmd report``, ``perf script`` and Linux's own ``trace`` file.

KVM's tracepoints kvm_exit and kvm_entry say when a guest left and went on, and where; of the syndrome kvm_exit has only
the class. What KVM says of an exit afterwards completes it: kvm_guest_fault has the whole syndrome and the addresses,
kvm_hvc_arm64 the call. There is no VMID.

Source of the formats: the TP_printk of Linux's arch/arm64/kvm/trace_arm.h and trace_handle_exit.h, 4.9 to 6.12.
"""

from __future__ import annotations

import re
from collections import Counter

from gdbhyp.trace.events import CLASS_ONLY, EC_HVC64, IRQ, SERROR, SYNC, Event, Lost, Returned, Taken

# COMM-PID [CPU] FLAGS SECONDS.FRACTION: EVENT: TEXT; perf separates COMM and PID by spaces and says kvm:EVENT.
_LINE = re.compile(
    r"^.*?[-\s](?P<pid>\d+)(?:/\d+)?\s+(?:\([^)]*\)\s+)?\[(?P<cpu>\d+)\]\s+(?:\S+\s+)??"
    r"(?P<seconds>\d+)\.(?P<fraction>\d+):\s+(?:\d+\s+)?(?:kvm:)?(?P<event>kvm_\w+):\s*(?P<text>.*)$"
)
_BEGINS = re.compile(rb"^.*?\[\d+\].*?\d+\.\d+:\s+(?:\d+\s+)?(?:kvm:)?kvm_(?:exit|entry):", re.MULTILINE)
_EXIT = re.compile(
    r"(?:(?P<ret>\w+):\s+)?(?:H?E?SR_EC|ESR_ELx_EC):\s*0x(?P<ec>[0-9a-f]+).*?PC:\s*0x(?P<pc>[0-9a-f]+)"
)
_ENTRY = re.compile(r"PC:\s*0x(?P<pc>[0-9a-f]+)")
_FAULT = re.compile(
    r"ipa\s+(?:0x)?(?P<ipa>[0-9a-f]+), hsr\s+(?:0x)?(?P<esr>[0-9a-f]+), hxfar\s+(?:0x)?(?P<far>[0-9a-f]+)"
)
_HVC = re.compile(r"r0:\s*0x(?P<x0>[0-9a-f]+), imm:\s*0x(?P<imm>[0-9a-f]+)")
_LOST = re.compile(r"CPU:(?P<cpu>\d+)\s+\[LOST (?P<count>\d+) EVENTS\]|\bLOST (?P<events>\d+)\b")

_KINDS = {"TRAP": SYNC, "IRQ": IRQ, "SERROR": SERROR, "EL1_SERROR": SERROR}
_VECTOR = 0x400
_IL = 1 << 25


def looks_like_kvm_text(beginning: bytes) -> bool:
    """Return whether ``beginning`` has a line of kvm_exit or kvm_entry as these programs print it."""
    return bool(_BEGINS.search(beginning))


class KvmTextParser:
    """Parses chunks of text as they come; ``feed`` returns the events that are complete.

    An exit may be completed by what follows on its CPU, so it is held back, with all after it, until its CPU goes on.
    ``skipped`` counts the events that are neither exits nor entries, ``foreign`` exits of another architecture.
    """

    def __init__(self) -> None:
        self.skipped: Counter[str] = Counter()
        self.foreign = 0
        self.exits = 0
        self._rest = b""
        self._events: list[Event] = []
        self._open: dict[int, int] = {}
        self._seq = 0

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that are complete with ``chunk``."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._line(line.decode("utf-8", "replace"))
        complete = min(self._open.values(), default=len(self._events))
        ready, self._events = self._events[:complete], self._events[complete:]
        self._open = {cpu: index - complete for cpu, index in self._open.items()}
        return ready

    def finish(self) -> list[Event]:
        """Return what is left: a last line without an end, and exits that nothing completes any more."""
        self._line(self._rest.decode("utf-8", "replace"))
        self._rest = b""
        self._open.clear()
        return self.feed(b"")

    def _line(self, line: str) -> None:
        match = _LINE.match(line)
        if match is None:
            lost = _LOST.search(line)
            if lost is not None:
                self._lost(lost)
            return
        cpu, event, text = int(match["cpu"]), match["event"], match["text"]
        time = int(match["seconds"]) * 1_000_000_000 + int(match["fraction"][:9].ljust(9, "0"))
        if event == "kvm_exit":
            self._exit(cpu, time, text)
        elif event == "kvm_entry":
            self._entry(cpu, time, text)
        elif not (event in ("kvm_guest_fault", "kvm_hvc_arm64") and self._complete(cpu, event, text)):
            self.skipped[event] += 1

    def _exit(self, cpu: int, time: int, text: str) -> None:
        match = _EXIT.search(text)
        kind = _KINDS.get(match["ret"] or "TRAP") if match is not None else None
        if match is None or kind is None:
            self.foreign += 1
            return
        self.exits += 1
        esr = CLASS_ONLY | (int(match["ec"], 16) & 0x3F) << 26 if kind == SYNC else None
        self._open[cpu] = len(self._events)
        self._add(
            Taken(
                seq=self._seq,
                cpu=cpu,
                vector=_VECTOR + (kind << 7),
                from_el=1,
                time=time,
                esr=esr,
                elr=int(match["pc"], 16),
                world="guest",
            )
        )

    def _entry(self, cpu: int, time: int, text: str) -> None:
        self._open.pop(cpu, None)
        match = _ENTRY.search(text)
        if match is not None:
            self._add(Returned(self._seq, cpu, 1, int(match["pc"], 16), time, world="guest"))

    def _complete(self, cpu: int, event: str, text: str) -> bool:
        """Complete the exit that is open on this CPU; return whether this is about it."""
        index = self._open.get(cpu)
        exited = None if index is None else self._events[index]
        match = (_FAULT if event == "kvm_guest_fault" else _HVC).search(text)
        if index is None or match is None or not isinstance(exited, Taken) or exited.esr is None:
            return False
        if event == "kvm_hvc_arm64":
            esr = EC_HVC64 << 26 | _IL | int(match["imm"], 16) & 0xFFFF
            whole = exited._replace(esr=esr, x0=int(match["x0"], 16))
        else:
            # HPFAR_EL2.FIPA [47:4] holds IPA[55:12].
            esr, hpfar = int(match["esr"], 16), int(match["ipa"], 16) >> 8 & 0xFFFF_FFFF_FFF0
            whole = exited._replace(esr=esr, far=int(match["far"], 16), hpfar=hpfar)
        if esr >> 26 & 0x3F != exited.esr >> 26 & 0x3F:
            return False
        self._events[index] = whole
        return True

    def _lost(self, match: re.Match[str]) -> None:
        cpu = None if match["cpu"] is None else int(match["cpu"])
        count = int(match["count"] or match["events"])
        self._open.pop(cpu, None) if cpu is not None else self._open.clear()
        self._add(Lost(self._seq, count, "the machine had no room for them", cpu))

    def _add(self, event: Event) -> None:
        self._events.append(event)
        self._seq += 1


def notes_of(parser: KvmTextParser) -> list[str]:
    """Return what has to be said of a text that was parsed, in sentences."""
    notes = [
        "these tracepoints name no VMID, and of a syndrome only the class where no kvm_guest_fault or kvm_hvc_arm64 "
        "follows the exit"
    ]
    if parser.skipped:
        kinds = ", ".join(f"{name} {count}" for name, count in parser.skipped.most_common(5))
        notes.append(f"{parser.skipped.total()} other events were skipped: {kinds}")
    if parser.foreign:
        notes.append(f"{parser.foreign} exits are not of KVM on arm64 and were skipped")
    return notes
