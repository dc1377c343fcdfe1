"""A dump is only read: no command, in GDB or in a shell, changes the file or leaves another one beside it.

With GDBHYP_LONG=1, QEMU's dumps are asked besides a snapshot, and each option is given.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from live.conftest import GDBINIT
from support import qemu
from support.command_lines import lines, mistakes, parts
from support.demo import run_to
from support.gdb_session import CommandError, GdbSession
from support.undisturbed import LONG, some
from support.witness import INSIDE, changes, debugger

from gdbhyp.cli.main import main
from gdbhyp.commands.declaration import Command
from gdbhyp.commands.registry import COMMANDS

# By QEMU, all of memory: they take longer than a snapshot of the tables, and are read by the same code.
FORMS = {"ELF": "dump-guest-memory {}", "kdump": "dump-guest-memory -z {}"} if LONG else {}


@pytest.fixture
def dumps(session: GdbSession, machine: qemu.Machine, truth: Any, tmp_path: Path) -> Path:
    """A folder with a snapshot and QEMU's own dumps of the demo."""
    run_to(session, next(s for s in truth["vms"][0]["sites"] if s["symbol"] == "guest_perm_store"))
    folder = tmp_path / "dumps"
    folder.mkdir()
    session.run(f"hyp-snapshot {folder / 'snapshot'} --tables-only")
    for form, command in FORMS.items():
        said = machine.command(command.format(folder / form))
        assert not said.strip(), said
    return folder


def seen(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Return what each file holds, when it was changed, and what may be done with it."""
    return {
        path.name: (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns,
            path.stat().st_mode,
        )
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("form", ["snapshot", *(["ELF"] if LONG else [])])
def test_in_gdb(gdb_program: str, dumps: Path, demo: Path, tmp_path: Path, form: str) -> None:
    """GDB on a core is as before, too."""
    before = seen(dumps)
    work = tmp_path / "work"
    work.mkdir()
    with GdbSession(gdb_program, work) as session:
        for line in ("set architecture aarch64", f"source {GDBINIT}", f"core {dumps / form}", f"cd {work}"):
            session.run(line)
        session.run(f"source {INSIDE}")
        with suppress(CommandError):
            session.run("hyp-status")
        was = debugger(session) | {"selected": session.python("selected()")}
        for command in (c for c in COMMANDS if c.in_gdb):
            for asked in (*lines(command, work).values(), *mistakes(command).values()):
                for line in some(asked, 1):
                    with suppress(CommandError):
                        session.run(line)
        with suppress(CommandError):
            session.run("hyp-symbols --remove")
        assert changes(was, debugger(session) | {"selected": session.python("selected()")}) == {}
    assert seen(dumps) == before


def arguments(command: Command, dump: Path, work: Path) -> Iterator[list[str]]:
    """Yield words for a shell that ask a dump: each part with what it needs, and with each of its options."""
    values = {"number": "0x40080000", "text": "0", "register": "HCR_EL2", "class": "hvc", "vm": "0"}

    def value(argument: Any) -> str:
        if argument.names[0] in ("dump", "--dump"):
            return str(dump)
        return argument.choices[0] if argument.choices else values.get(argument.value, str(work / "written"))

    for part in parts(command):
        names = list(dict.fromkeys((command.name, part.name)))
        positionals = [value(a) for a in part.arguments if a.positional]
        needed = [o for a in part.arguments if a.names[0] == "--dump" for o in ("--dump", value(a))]
        yield [*names, *positionals, *needed]
        for argument in part.all_arguments():
            if not argument.positional and LONG:
                option = [argument.names[-1], *([value(argument)] if argument.value else [])]
                yield [*names, *positionals, *needed, *option]
        yield [*names, *positionals, *needed, "--no-such-option"]


@pytest.mark.parametrize("form", ["snapshot", *FORMS])
def test_in_a_shell(
    dumps: Path,
    tmp_path: Path,
    form: str,
    capsysbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = seen(dumps)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    answered = set()
    for command in (c for c in COMMANDS if c.in_cli):
        for words in arguments(command, dumps / form, work):
            status = main(words)
            printed = capsysbinary.readouterr()
            assert b"Traceback" not in printed.err, shlex.join(words)
            assert status in (0, 1, 2, 3), shlex.join(words)
            answered |= {command.name} if status == 0 else set()
    assert {"status", "walk", "map", "info", "snapshot", "report"} & answered
    assert seen(dumps) == before
