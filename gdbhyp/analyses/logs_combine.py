"""The lines of one crash put together: a syndrome with the registers that other lines print for it.

What comes before a syndrome is remembered for a few lines, what comes after it is waited for as long as lines bring
it. Registers are joined only where their format says that they belong together: a wrong address is worse than none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from gdbhyp.analyses.logs import Found, Token, level_of, source_of, tokens
from gdbhyp.analyses.logs_qemu import QemuRecords


class Step(NamedTuple):
    """What a line brought: syndromes that were complete before it, and those that are with it.

    ``part``: the line belongs to a syndrome, or may; ``discarded``: what so far might have, does not.
    """

    before: tuple[Found, ...] = ()
    after: tuple[Found, ...] = ()
    part: bool = False
    discarded: bool = False


class _Remembered(NamedTuple):
    value: int
    line: int


# How many lines later a register still belongs to the ESR that follows it.
_NEAR = 3
_ADDRESS_REACH = 8
_TFA_REACH = 40
# How many lines behind "ESR = " Linux says the same once more in "Internal error".
_OOPS_REACH = 40

# The registers that follow an ESR, by source, and the one that comes last. "firmware" is anyone whose names have _ELx.
_FOLLOWING = {
    "kvm-hyp-panic": frozenset(("ELR", "SPSR", "FAR", "HPFAR", "PAR", "VCPU")),
    "xen": frozenset(("HPFAR", "FAR")),
    "tf-a": frozenset(("FAR",)),
    "firmware": frozenset(("FAR", "HPFAR", "ELR", "SPSR")),
}
_LAST = {"kvm-hyp-panic": "VCPU", "xen": "FAR", "tf-a": "FAR"}
_FIELD = {"FAR": "far", "HPFAR": "hpfar", "IPA": "ipa", "ELR": "elr", "SPSR": "spsr", "PAR": "par"}


def _repeats(found: Found, last: Found) -> bool:
    return found.esr == last.esr and found.line - last.line <= _OOPS_REACH


class Combiner:
    """Takes the lines of a log that are worth a look, in order, and returns syndromes when they are complete.

    While it is ``busy``, it wants every line.
    """

    def __init__(self) -> None:
        self._qemu = QemuRecords()
        self._open: Found | None = None
        self._open_level = ""
        self._remembered: dict[tuple[str, str], _Remembered] = {}
        self._addresses: list[_Remembered] = []
        self._last_linux: Found | None = None

    @property
    def busy(self) -> bool:
        """Whether what comes next may belong to a syndrome that was seen."""
        return self._open is not None or self._qemu.busy

    def line(self, text: bytes, number: int, offset: int) -> Step:
        """Take a line, the ``number``-th, which begins at ``offset`` in the stream."""
        if self._qemu.busy or b"Taking exception " in text or b"...with " in text:
            step = self._qemu.line(text, number, offset)
            if step is not None:
                return Step(self.finish_open(), step.found, True, step.discarded)
        found = tokens(text)
        if not found:
            return Step(self.finish_open())
        if self._absorbs(found):
            return Step(after=self._absorb(found), part=True)
        before = self.finish_open()
        if any(token.name == "ESR" for token in found):
            return Step(before, self._syndromes(text, found, number, offset), True)
        return Step(before, part=self._remember(found, number))

    def pause(self) -> tuple[Found, ...]:
        """Return what is open, for nothing has come for a while."""
        return (*self.finish_open(), *self._qemu.pause())

    def finish(self) -> tuple[Found, ...]:
        """Return what is open: nothing that belongs to it will come."""
        return (*self.finish_open(), *self._qemu.finish())

    def finish_open(self) -> tuple[Found, ...]:
        """Return the syndrome that waits for more lines, if any."""
        found, self._open = self._open, None
        return () if found is None else (found,)

    def _absorbs(self, line: Sequence[Token]) -> bool:
        """Return whether a line continues the open syndrome: registers that follow it and that are not known."""
        found = self._open
        if found is None:
            return False
        names = _FOLLOWING[found.source]
        return all(
            token.name in names
            and token.level == self._open_level
            and (token.name == "VCPU" or getattr(found, _FIELD[token.name]) is None)
            for token in line
        )

    def _absorb(self, line: Sequence[Token]) -> tuple[Found, ...]:
        assert self._open is not None
        values: dict[str, Any] = {_FIELD[token.name]: token.value for token in line if token.name in _FIELD}
        if any(token.name == "VCPU" and token.value == 0 for token in line):
            values["guest"] = False
        self._open = self._open._replace(**values)
        last = _LAST.get(self._open.source)
        return self.finish_open() if any(token.name == last for token in line) else ()

    def _remember(self, line: Sequence[Token], number: int) -> bool:
        """Remember what may belong to a syndrome further down; return whether there is any."""
        kept = False
        for token in line:
            entry = _Remembered(token.value, number)
            if token.name == "ADDRESS":
                self._addresses = [*self._addresses[-3:], entry]
            elif token.level or token.name[0] == "X" or token.written in ("PS", "PC"):
                self._remembered[token.name, token.level] = entry
            else:
                continue
            kept = True
        return kept

    def _syndromes(self, text: bytes, line: list[Token], number: int, offset: int) -> tuple[Found, ...]:
        syndromes = [token for token in line if token.name == "ESR"]
        found = [self._found(text, token, line, number, offset) for token in syndromes]
        self._remembered.clear()
        self._addresses.clear()
        if len(found) > 1 or not self._continues(found[0], syndromes[0]):
            return tuple(found)
        self._open, self._open_level = found[0], syndromes[0].level
        return ()

    @staticmethod
    def _continues(found: Found, token: Token) -> bool:
        if found.source not in _FOLLOWING or (found.source == "firmware" and not token.level):
            return False
        last = _LAST.get(found.source)
        return last is None or last == "VCPU" or getattr(found, _FIELD[last]) is None

    def _found(self, text: bytes, token: Token, line: list[Token], number: int, offset: int) -> Found:
        panic = (
            any(other.written == "PS" for other in line) or self._near("SPSR", "", number, _NEAR) is not None
        )
        source = source_of(text, token, hyp_panic=panic)
        found = Found(
            number,
            offset + token.start,
            text[token.start : token.end].decode(),
            source,
            token.value,
            level_of(token, source),
            **self._beside(token, line, number, source),
        )
        if source == "linux":
            return self._linux(found)
        if source == "tf-a" and found.level == 3:
            return found._replace(registers=self._registers(number))
        return found

    def _beside(self, token: Token, line: list[Token], number: int, source: str) -> dict[str, Any]:
        """Return the registers of the same line and of those just above that belong to an ESR."""
        values: dict[str, Any] = {}
        reach = _TFA_REACH if source == "tf-a" else _NEAR
        if self._remembered and (token.level or source == "kvm-hyp-panic"):
            for name, field in _FIELD.items():
                value = self._near(name, token.level, number, reach)
                if value is not None:
                    values[field] = value
        if len(line) == 1:
            return values
        # Two ESRs in a line with one FAR: whose it is, only an _ELx suffix can say.
        if token.level or sum(other.name == "ESR" for other in line) == 1:
            for other in line:
                if other.name in _FIELD and other.level in (token.level, ""):
                    values[_FIELD[other.name]] = other.value
        return values

    def _linux(self, found: Found) -> Found:
        """Add the address of "Unable to handle", and remember the syndrome, which "Internal error" repeats."""
        near = {entry.value for entry in self._addresses if found.line - entry.line <= _ADDRESS_REACH}
        last = self._last_linux
        if found.far is None and len(near) == 1:
            found = found._replace(far=near.pop())
        elif found.far is None and last is not None and _repeats(found, last):
            found = found._replace(far=last.far)
        self._last_linux = found
        return found

    def _near(self, name: str, level: str, number: int, reach: int) -> int | None:
        entry = self._remembered.get((name, level))
        return entry.value if entry is not None and number - entry.line <= reach else None

    def _registers(self, number: int) -> tuple[tuple[int, int], ...]:
        known = ((n, self._near(f"X{n}", "", number, 2 * _TFA_REACH)) for n in range(31))
        return tuple((n, value) for n, value in known if value is not None)
