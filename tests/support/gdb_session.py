"""A real GDB under test, spoken to in JSON: a command in, what it printed or how it failed out."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_DRIVER = Path(__file__).with_name("gdb_driver.py")


class CommandError(Exception):
    """GDB refused a command; the text is what a person would read."""


def _with_packages() -> dict[str, str]:
    """The environment, with the packages of this Python named for the plugin as ``gdbhyp gdb`` names them."""
    return {**os.environ, "GDBHYP_SITE": sysconfig.get_path("purelib")}


class GdbSession:
    """A GDB process that runs the commands it is sent, without a terminal.

    An exception that is not meant for the person ("Error occurred in Python", "Python Exception") is a bug and fails
    the test at once, wherever it shows.
    """

    def __init__(
        self,
        program: str,
        folder: Path,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        to_gdb_read, self._to_gdb = os.pipe()
        self._from_gdb, from_gdb_write = os.pipe()
        self._log = folder / "gdb.log"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [program, "-nx", "-q", "-batch", *arguments, "-x", str(_DRIVER)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(to_gdb_read, from_gdb_write),
                env={
                    **(_with_packages() if environment is None else environment),
                    "GDB_DRIVER_FDS": f"{to_gdb_read},{from_gdb_write}",
                    "TMPDIR": str(folder),  # what a killed GDB leaves goes with the test's folder
                },
            )
        os.close(to_gdb_read)
        os.close(from_gdb_write)
        self._answers = os.fdopen(self._from_gdb, "r", encoding="utf-8")

    @property
    def pid(self) -> int:
        return self._process.pid

    def run(self, command: str) -> str:
        """Run a GDB command and return what it printed.

        :raises CommandError: with GDB's message.
        """
        answer = self._ask({"command": command})
        for text in (answer["output"], answer.get("error") or ""):
            unclean = "Error occurred in Python" in text or "Python Exception" in text or "Traceback" in text
            assert not unclean, f"'{command}' failed uncleanly: {text}"
        if "error" in answer:
            raise CommandError(answer["error"])
        return str(answer["output"])

    def json(self, command: str) -> Any:
        """Run ``command --json`` and return its one object."""
        return json.loads(self.run(f"{command} --json"))

    def json_lines(self, command: str) -> list[Any]:
        """Run ``command --json`` and return an object a line."""
        return [json.loads(line) for line in self.run(f"{command} --json").splitlines()]

    def python(self, expression: str) -> Any:
        """Evaluate a Python expression inside GDB, in its ``__main__``; the value must have a JSON form."""
        answer = self._ask({"python": expression})
        if "error" in answer:
            raise CommandError(answer["error"])
        return answer["value"]

    def register(self, name: str) -> int:
        """Return a register by the stub's name."""
        return int(self.python(f"int(gdb.parse_and_eval('${name}')) & (1 << 64) - 1"))

    def close(self) -> None:
        """End GDB."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._answers.close()
        os.close(self._to_gdb)

    def _ask(self, request: dict[str, str]) -> dict[str, Any]:
        os.write(self._to_gdb, json.dumps(request).encode() + b"\n")
        line = self._answers.readline()
        if not line:
            raise RuntimeError(f"GDB ended: {self._log.read_text(errors='replace')}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> GdbSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
