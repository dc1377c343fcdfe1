"""The errors that gdbhyp raises on purpose; anything else that escapes is a bug.

Each carries one sentence that says what is wrong and, where it can be known, what to do. An architectural fault
(a translation that the processor would refuse) is not an error but a value: see ``gdbhyp.engine``.
"""

from __future__ import annotations


class GdbhypError(Exception):
    """A question that could not be answered; ``exit_status`` is what the command line ends with."""

    exit_status = 1


class UsageError(GdbhypError):
    """The command was typed wrongly."""

    exit_status = 2


class BadInput(GdbhypError):
    """A file, log or table that cannot be read for what it claims to be."""

    exit_status = 3


class NoTarget(GdbhypError):
    """There is nothing to ask: no inferior, a wrong architecture, a running CPU, a lost connection."""


class MemoryUnavailable(GdbhypError):
    """``size`` bytes at ``address`` of ``space`` ("VA", "IPA" or "PA") cannot be read.

    ``first_bad`` is the first address that is missing; nothing is returned for the part that could be read.
    ``unsaved`` says that the machine has memory there whose contents a dump or a stub withholds: what a walk would
    have found is then not known, whereas the processor takes an External abort where there is no memory.
    """

    def __init__(
        self,
        space: str,
        address: int,
        size: int,
        reason: str,
        first_bad: int | None = None,
        *,
        unsaved: bool = False,
    ) -> None:
        self.space = space
        self.address = address
        self.size = size
        self.reason = reason
        self.first_bad = address if first_bad is None else first_bad
        self.unsaved = unsaved
        super().__init__(f"cannot read {size} bytes at {space} {address:#x}: {reason}")


class RegisterUnavailable(GdbhypError):
    """The target does not show a register that the question needs."""

    def __init__(self, name: str, hint: str = "") -> None:
        self.name = name
        super().__init__(f"the target does not show {name}" + (f": {hint}" if hint else ""))


class Unsupported(GdbhypError):
    """An architectural feature that is in use and is not modelled; ``what`` names the register and bit."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(f"{what} is not modelled, so an answer would be a guess")
