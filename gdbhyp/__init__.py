"""gdbhyp makes GDB understand AArch64 hypervisors; as a library, it opens dumps, walks and maps, and decodes.

>>> import gdbhyp
>>> gdbhyp.decode(0x93c58045).ec.name
'Data Abort from a lower Exception level'

The names below are those of ``gdbhyp.api``, which is imported when the first of them is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gdbhyp.api import (
        Dump,
        GdbhypError,
        Regime,
        Stop,
        as_json,
        decode,
        decode_register,
        map_tables,
        open_dump,
        walk,
    )

__version__ = "0.1.0"

__all__ = [
    "Dump",
    "GdbhypError",
    "Regime",
    "Stop",
    "__version__",
    "as_json",
    "decode",
    "decode_register",
    "map_tables",
    "open_dump",
    "walk",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'gdbhyp' has no attribute '{name}'")
    from gdbhyp import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
