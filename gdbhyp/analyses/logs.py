"""Where a line of a log names a syndrome, and the registers that belong to it.

The formats are those that Linux and KVM (``HYP panic``, ``Mem abort info``, ``Internal error``), Xen, TF-A, Hafnium,
U-Boot and other firmware print; QEMU's ``-d int`` is in ``gdbhyp.analyses.logs_qemu``. Lines are bytes of unknown
origin, and may carry any prefix: time stamps, ``(XEN)``, a journal's host name, the quoting of mail.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

# What a line must contain to be looked at as long as nothing is open. The last is how TF-A lines up x0 to x30.
_WORDS = (
    *(b"ESR", b"esr", b"HSR", b"PS:", b"virtual address ", b"Internal error: ", b", code 0x"),
    *(b"Taking exception ", b"...with ", b"FAR_EL", b"far_el", b"ELR_EL", b"elr_el", b"SPSR_EL", b"spsr_el"),
    b"        = 0x",
)


class Interesting:
    """The places in a block of bytes that may name a syndrome, in ascending order.

    A search for each word by itself is several times as fast as one regular expression for all of them.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._next = [-1] * len(_WORDS)

    def after(self, position: int) -> int:
        """Return the first place at or behind ``position``, the length of the data if there is none.

        ``position`` must not be less than in the call before.
        """
        data, found = self._data, self._next
        first = len(data)
        for index, place in enumerate(found):
            if place < position:
                place = data.find(_WORDS[index], position)
                place = found[index] = len(data) if place < 0 else place
            if place < first:
                first = place
        return first


# A number that ends here: neither the first half of a longer word, nor cut by a mail's soft line break.
_VALUE = rb"(0x[0-9a-fA-F]{1,16}|[0-9a-fA-F]{8,16})(?!-?[0-9A-Za-z_]|=\r?\n?\Z)"
_TOKEN = re.compile(
    rb"(?<![A-Za-z0-9_])(?i:(ESR|HSR|HPFAR|FAR|PAR|ELR|SPSR|PS|PC|VCPU|GVA|GPA))(?:_[eE][lL]([0-3nN])2?)?"
    rb"[\"']?[ \t]{0,40}([:=]?)[ \t]{0,40}[\"']?"
    + _VALUE
    + rb"|Internal error: [^\n]{0,120}?: ([0-9a-f]{16}|[0-9a-f]{8}) \[#"
    rb"|, code (0x[0-9a-f]{8,16}) --"
    rb"|virtual address ([0-9a-f]{16})(?![0-9a-f])"
    rb"| at (0x[0-9a-f]{1,16})(?=, esr 0x)"
    rb"|(?<![A-Za-z0-9_])x([0-9]|[12][0-9]|30)[ \t]{1,40}= (0x[0-9a-f]{1,16})(?![0-9A-Za-z_])"
)
_NAME, _LEVEL, _SEPARATOR, _NUMBER, _OOPS, _CODE, _ADDRESS, _AT, _X, _X_VALUE = range(1, 11)

# Other programs' names for what Arm calls ESR, FAR, ELR and SPSR.
_SAME = {"HSR": "ESR", "GVA": "FAR", "PC": "ELR", "PS": "SPSR"}


class Token(NamedTuple):
    """A register and its value in a line.

    ``name`` is Arm's ("ESR", "FAR", "ELR", "SPSR", "HPFAR", "PAR", "X0" …), "VCPU", "IPA", or "ADDRESS", what Linux
    says that it could not access; ``written`` how the line writes it; ``level`` the digit of its _EL suffix, "n" for
    _ELn, "" without one. ``start`` and ``end`` are positions in the line.
    """

    name: str
    written: str
    level: str
    separator: str
    value: int
    start: int
    end: int


class Found(NamedTuple):
    """A syndrome in a log with what was printed beside it; ``level`` is None where nothing says whose ESR it is.

    ``line`` counts from 1; ``offset`` is the place of ``text`` in the stream, in bytes. ``guest`` is False where the
    log says that no guest was running.
    """

    line: int
    offset: int
    text: str
    source: str
    esr: int
    level: int | None
    from_el: int | None = None
    far: int | None = None
    hpfar: int | None = None
    ipa: int | None = None
    elr: int | None = None
    spsr: int | None = None
    par: int | None = None
    guest: bool | None = None
    registers: tuple[tuple[int, int], ...] = ()


def tokens(line: bytes) -> list[Token]:
    """Return the registers that ``line`` gives values of, in order."""
    return list(_tokens(line))


def _tokens(line: bytes) -> Iterator[Token]:
    for match in _TOKEN.finditer(line):
        last = match.lastindex
        if last == _NUMBER:
            separator, number = match[_SEPARATOR].decode(), match[_NUMBER]
            # "ESR 12345678" may be anything: without 0x, only a value that is set equal is one.
            if not separator and not number.startswith(b"0x"):
                continue
            written = match[_NAME].decode()
            upper = written.upper()
            name = "IPA" if upper == "GPA" else _SAME.get(upper, upper)
            level = (match[_LEVEL] or b"").decode().lower()
            yield Token(
                name, written, level, separator, int(number, 16), match.start(_NAME), match.end(_NUMBER)
            )
        elif last == _X_VALUE:
            name = f"X{match[_X].decode()}"
            yield Token(name, name, "", "=", int(match[_X_VALUE], 16), match.start(_X), match.end(_X_VALUE))
        elif last is not None:
            name, written = _LINUX[last]
            yield Token(name, written, "", "", int(match[last], 16), match.start(last), match.end(last))


_LINUX = {
    _OOPS: ("ESR", "oops"),
    _CODE: ("ESR", "code"),
    _ADDRESS: ("ADDRESS", "address"),
    _AT: ("FAR", "at"),
}

_LEVEL_OF_SOURCE: Mapping[str, int | None] = {
    "linux": 1,
    "kvm": 2,
    "kvm-hyp-panic": 2,
    "xen": 2,
    "hafnium": 2,
    "tf-a": 3,
    "firmware": None,
}


def source_of(line: bytes, token: Token, *, hyp_panic: bool) -> str:
    """Return who printed the ESR that ``token`` is; ``hyp_panic``: KVM's ``PS:`` is beside it."""
    if token.written in ("oops", "code") or (
        token.written == "ESR" and token.separator == "=" and b"ESR = " in line
    ):
        return "linux"
    if hyp_panic and token.written == "ESR":
        return "kvm-hyp-panic"
    if token.written == "HSR" or b"(XEN)" in line:
        return "xen"
    if b"kvm [" in line:
        return "kvm"
    if (
        b"exception on CPU" in line
        or b"unhandled exception" in line
        or (b" at 0x" in line and b", esr 0x" in line)
    ):
        return "linux"
    if token.written == "esr" and b"pc=" in line and b"ec=" in line:
        return "hafnium"
    if token.written == "esr" and token.level and token.separator == "=":
        return "tf-a"
    return "firmware"


def level_of(token: Token, source: str) -> int | None:
    """Return the Exception level whose ESR it is: as the name says, else as this source has it."""
    return int(token.level) if token.level in ("1", "2", "3") else _LEVEL_OF_SOURCE[source]
