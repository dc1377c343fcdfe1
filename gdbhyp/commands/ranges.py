"""Ranges of addresses as people write them."""

from __future__ import annotations

from gdbhyp.commands.declaration import Context
from gdbhyp.errors import UsageError


def parse_range(context: Context, text: str) -> tuple[int, int]:
    """Return the first address and the one behind the last of ``START-END``, ``START..END`` or ``START+SIZE``.

    :raises UsageError: if it is none of these, or empty.
    """
    for separator in ("..", "+", "-"):
        left, found, right = text.partition(separator)
        if found and left.strip() and right.strip():
            start, second = context.number(left), context.number(right)
            end = start + second if separator == "+" else second
            if end <= start:
                raise UsageError(f"the range {text} is empty: its end is exclusive and lies behind its start")
            return start, end
    raise UsageError(f"'{text}' is no range: write START-END (END exclusive) or START+SIZE")
