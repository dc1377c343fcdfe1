"""What commands have computed about the stopped machine, until it runs or its memory is written."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import gdb


class _Memo(MutableMapping[object, Any]):
    """A dictionary that empties itself when the machine, or what GDB knows of its programs, may have changed.

    GDB is asked to tell only while there is something to forget.
    """

    def __init__(self) -> None:
        self._items: dict[object, Any] = {}
        self._watching = False

    def __getitem__(self, key: object) -> Any:
        return self._items[key]

    def __setitem__(self, key: object, value: Any) -> None:
        if not self._watching:
            for registry in _changes():
                registry.connect(self._forget)
            self._watching = True
        self._items[key] = value

    def __delitem__(self, key: object) -> None:
        del self._items[key]

    def __iter__(self) -> Iterator[object]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def _forget(self, event: object) -> None:
        self._items.clear()
        self._watching = False
        for registry in _changes():
            registry.disconnect(self._forget)


def _changes() -> tuple[Any, ...]:
    """The events behind which an answer is not the same: the machine ran, is gone, was written to, or has symbols."""
    events = gdb.events
    machine = events.cont, events.exited, events.connection_removed, events.memory_changed
    return (*machine, events.new_objfile, events.clear_objfiles)


_memo = _Memo()


def stop_memo() -> MutableMapping[object, Any]:
    """Return what is known of this stop."""
    return _memo
