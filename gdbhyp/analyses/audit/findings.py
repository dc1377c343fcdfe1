"""What a rule is, and what it says: findings with their evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gdbhyp.arch.spaces import PA, Address, Word
from gdbhyp.engine.ranges import Range, total

if TYPE_CHECKING:
    from gdbhyp.analyses.audit.world import World

Severity = Literal["critical", "high", "medium", "low", "note"]
SEVERITIES: tuple[Severity, ...] = ("critical", "high", "medium", "low", "note")
"""From what gives a guest the machine to what is only worth knowing."""

MOST_RANGES = 64
"""How many ranges a finding lists; its size counts all."""


@dataclass(frozen=True)
class Evidence:
    """One thing that was read: a descriptor at its physical address, or a register of a CPU.

    For a descriptor, ``tree`` names the tables it is in, ``input`` (of ``input_space``) is an address that it
    translates, and ``pa`` where that leads. For a register, ``register`` names it and ``value`` is what CPU ``cpu``
    has in it.
    """

    text: str
    tree: str | None = None
    input: Address | None = None
    input_space: str | None = None
    pa: PA | None = None
    descriptor_address: Address | None = None
    descriptor_space: str | None = None
    descriptor: Word | None = None
    register: str | None = None
    value: Word | None = None
    cpu: int | None = None


@dataclass(frozen=True)
class Extent:
    """Physical addresses ``start`` to ``end``, exclusive."""

    start: PA
    end: PA


@dataclass(frozen=True)
class Finding:
    """One thing that a rule found: ``message`` says what was compared and what is the case.

    ``ranges`` are the first physical ranges it is about, ``range_count`` and ``size`` (bytes) count all; all are 0 for
    a finding about a register. ``vms`` are the VMs that take part. ``explanation`` says what would make it right, ""
    where nothing is known that would.
    """

    rule: str
    severity: Severity
    message: str
    ranges: tuple[Extent, ...]
    range_count: int
    size: int
    vms: tuple[int, ...]
    explanation: str
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True)
class Rule:
    """A rule: ``check`` yields findings, and ``needs`` says why it cannot be judged here, "" where it can.

    ``severity`` is that of the worst it finds.
    """

    name: str
    severity: Severity
    title: str
    reason: str
    reference: str
    check: Callable[[World], Iterator[Finding]]
    needs: Callable[[World], str] = lambda world: ""


def about_memory(
    rule: str,
    severity: Severity,
    message: str,
    ranges: Sequence[Range],
    evidence: Sequence[Evidence],
    *,
    vms: Sequence[int] = (),
    explanation: str = "",
) -> Finding:
    """Return a finding about physical ranges."""
    shown = tuple(Extent(PA(start), PA(end)) for start, end in ranges[:MOST_RANGES])
    return Finding(
        rule,
        severity,
        message,
        shown,
        len(ranges),
        total(ranges),
        tuple(vms),
        explanation,
        tuple(evidence),
    )


def about_registers(
    rule: str,
    severity: Severity,
    message: str,
    evidence: Sequence[Evidence],
    *,
    vms: Sequence[int] = (),
    explanation: str = "",
) -> Finding:
    """Return a finding about registers."""
    return Finding(rule, severity, message, (), 0, 0, tuple(vms), explanation, tuple(evidence))
