"""Another CPU for a moment: GDB's selected thread and frame are as before when the moment is over."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import gdb

from gdbhyp.plugin.remote import interruptible


@contextlib.contextmanager
def borrowed_thread(thread: gdb.InferiorThread) -> Iterator[None]:
    """Select ``thread``, and at the end of the block again the thread and frame that were selected before.

    A frame is selected again only if it was not the newest, for GDB reads memory to find it.
    """
    before = gdb.selected_thread()
    if before is not None and before.ptid == thread.ptid:
        yield
        return
    frame = gdb.selected_frame() if before is not None and not before.is_running() else None
    outer = frame if frame is not None and frame.level() > 0 else None

    def restore() -> None:
        if before is not None and before.is_valid():
            before.switch()
            if outer is not None and outer.is_valid():
                outer.select()

    try:
        thread.switch()
        yield
    finally:
        interruptible(restore)
