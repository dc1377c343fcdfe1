"""Findings that somebody knows and has a reason for: the file of ``--ignore``.

A line is a rule, optionally physical addresses that the whole finding lies in, optionally a part of its message in
quotes, and behind ``#`` the reason, which has to be there::

    vm-shared-memory 0x45000000-0x45001000  # the doorbell page of VMs 1 and 2, see the design
    trap-hole "MDCR_EL2.TPM "               # our guests own the performance monitors
    hyp-text-writable                       # Xen's direct map
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from gdbhyp.analyses.audit.findings import Finding
from gdbhyp.errors import BadInput

_LINE = re.compile(
    r"(?P<rule>[a-z0-9-]+)"
    r"(?:\s+(?P<start>0x[0-9a-f]+)-(?P<end>0x[0-9a-f]+))?"
    r"(?:\s+\"(?P<part>[^\"]+)\")?"
    r"\s*#\s*(?P<reason>\S.*)",
    re.IGNORECASE,
)
_LARGEST = 1 << 20


@dataclass(frozen=True)
class Known:
    """One line: findings of ``rule`` that lie in ``start`` to ``end`` (exclusive), everywhere if these are None, and
    have ``part`` in their message.
    """

    line: int
    text: str
    rule: str
    start: int | None
    end: int | None
    part: str
    reason: str

    def matches(self, finding: Finding) -> bool:
        """Return whether the line is about a finding."""
        if finding.rule != self.rule or self.part not in finding.message:
            return False
        if self.start is None or self.end is None:
            return True
        listed = len(finding.ranges) == finding.range_count and finding.ranges
        return bool(listed) and all(self.start <= r.start and r.end <= self.end for r in finding.ranges)


@dataclass(frozen=True)
class Ignored:
    """A finding that is known, and the reason."""

    finding: Finding
    reason: str


def read_ignore_file(path: str) -> list[Known]:
    """Return the lines of an ignore file.

    :raises BadInput: if it cannot be read, or a line is none; a line without a reason is none.
    """
    try:
        with Path(path).open("rb") as file:
            text = file.read(_LARGEST).decode("utf-8", "replace")
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.strip()
        if not words or words.startswith("#"):
            continue
        match = _LINE.fullmatch(words)
        if match is None:
            raise BadInput(
                f"line {number} of {path} is not 'RULE [0xSTART-0xEND] [\"PART\"]  # REASON': {words}"
            )
        start, end = (None if match[name] is None else int(match[name], 16) for name in ("start", "end"))
        found.append(Known(number, words, match["rule"], start, end, match["part"] or "", match["reason"]))
    return found
