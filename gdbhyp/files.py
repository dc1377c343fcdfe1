"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from typing import IO

from gdbhyp.errors import BadInput


@contextlib.contextmanager
def written_whole(path: str) -> Iterator[IO[bytes]]:
    """Lend a file that becomes ``path`` when the block ends, and leaves no trace when the block fails.

    Until then it has another name beside ``path``, so that nobody reads a part, and an older file stays if the answer
    fails or is interrupted. A symbolic link is replaced and not followed. What is no regular file (a terminal, a pipe)
    is written as the answer comes.

    :raises BadInput: if it cannot be written.
    """
    try:
        with _direct(path) if _is_special(path) else _beside(path) as file:
            yield file
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror}") from None


def _is_special(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


@contextlib.contextmanager
def _direct(path: str) -> Iterator[IO[bytes]]:
    with open(path, "wb") as file:
        yield file


@contextlib.contextmanager
def _beside(path: str) -> Iterator[IO[bytes]]:
    if os.path.isdir(path):
        raise IsADirectoryError(0, "it is a directory")
    folder, name = os.path.split(os.path.abspath(path))
    descriptor, unfinished = tempfile.mkstemp(prefix=f".{name[:100]}.", suffix=".part", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, _mode(path))
            yield file
        os.replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(unfinished)
        raise


def _mode(path: str) -> int:
    """Return the permissions of the file that is there, else those that a new file has."""
    with contextlib.suppress(OSError):
        before = os.lstat(path)
        if stat.S_ISREG(before.st_mode):
            return stat.S_IMODE(before.st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
