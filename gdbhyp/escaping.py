"""Text that comes from a target (symbols, memory, logs, file names) is hostile: what shows it escapes it."""

from __future__ import annotations

import re
import unicodedata

_UNSAFE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def escape(text: str) -> str:
    """Return ``text`` with control, bidirectional and unassigned characters written as escapes.

    >>> escape("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if unicodedata.category(c) not in _UNSAFE else _escaped(c) for c in text)


# Rights, "-w-", begin with a dash as well, and are no formula.
_FORMULA = re.compile(r"[=+@]|-(?![-rwx/]*\Z)")


def csv_text(text: str) -> str:
    """Return ``text`` for a cell of a table: escaped, and with an apostrophe before what is a formula elsewhere.

    >>> csv_text("=1+1")
    "'=1+1"
    """
    safe = escape(text)
    return f"'{safe}" if _FORMULA.match(safe) else safe


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
