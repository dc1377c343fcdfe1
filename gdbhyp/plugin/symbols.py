"""GDB's symbol files: those that gdbhyp makes, and the person's own."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import gdb

from gdbhyp.errors import GdbhypError
from gdbhyp.hypervisors.symbols import CodeRange
from gdbhyp.plugin.remote import give_back_all
from gdbhyp.plugin.unwinder import unwinder


class GdbSymbolFiles:
    """Symbol files that GDB reads from a folder of this process, which is removed when GDB ends."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._given: dict[str, Path] = {}
        self._count = 0

    def give(self, name: str, contents: bytes, code: Sequence[CodeRange]) -> str:
        """Write a file and let GDB read it in place of the earlier one.

        Each file has a name of its own, for GDB remembers files by name.
        """
        self._forget(name)
        self._count += 1
        path = self._private_folder() / (name if self._count == 1 else f"{name}-{self._count}")
        path.write_bytes(contents)
        self._given[name] = path
        _quietly(f"add-symbol-file {_quoted(path)}")
        unwinder().replace(name, tuple(code))
        return str(path)

    def take_back(self) -> tuple[str, ...]:
        """Make GDB forget all files of ours."""
        names = tuple(self._given)
        for name in names:
            self._forget(name)
        return names

    def program(self, build_id: str) -> str | None:
        """Return a file that the person has loaded."""
        ours = {str(path) for path in self._given.values()}
        for file in gdb.objfiles():
            if file.filename and file.filename not in ours and file.build_id == build_id:
                return file.filename
        return None

    def move(self, path: str, offset: int, *, main: bool) -> None:
        """Read the person's file again with its addresses moved; GDB has no way to move what it has read."""
        command = "symbol-file" if main else "add-symbol-file"
        _quietly(f"{command} -o {offset:#x} {_quoted(Path(path))}")

    def _forget(self, name: str) -> None:
        path = self._given.get(name)
        if path is None:
            return
        unwinder().replace(name, ())
        if any(file.filename == str(path) for file in gdb.objfiles()):
            _quietly(f"remove-symbol-file {_quoted(path)}")
        path.unlink(missing_ok=True)
        # Not before: after Ctrl-C it is taken back the next time.
        del self._given[name]

    def _private_folder(self) -> Path:
        if self._folder is None or not self._folder.exists():
            self._folder = Path(tempfile.mkdtemp(prefix="gdbhyp-"))
            atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
        return self._folder


def _quoted(path: Path) -> str:
    text = str(path)
    if '"' in text or "\\" in text:
        raise GdbhypError(f"GDB cannot be told the path {text}: it has a quote or a backslash in it")
    return f'"{text}"'


def _quietly(command: str) -> None:
    """Run a command of GDB that would ask or talk, and may look at the target's virtual memory."""
    give_back_all()
    with gdb.with_parameter("confirm", False):
        gdb.execute(command, to_string=True)


_files = GdbSymbolFiles()


def symbol_files() -> GdbSymbolFiles:
    """Return the one set of files of this GDB."""
    return _files
