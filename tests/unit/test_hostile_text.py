"""Text that a target, a file or a file's name brings acts on no terminal, page, table or document.

A machine whose every text is hostile is asked every question of the registry, in every form; and every command of the
program is given hostile names and files. What is printed is lines of printable characters, and colours of our own.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
import os
import re
import shlex
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from unit.asked import ask, questions
from unit.linuxhost import BASE, DATA, LinuxHost
from unit.test_honest import FAULT

from gdbhyp import escaping
from gdbhyp.analyses.annotate import annotate
from gdbhyp.cli import fleet
from gdbhyp.cli.main import COMMANDS, main
from gdbhyp.commands.declaration import Argument, Command
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import BadInput
from gdbhyp.escaping import csv_text
from gdbhyp.hypervisors.linux import kernel
from gdbhyp.render import stream
from gdbhyp.render.style import Style
from gdbhyp.trace import tcg_build

COLOUR = "\x1b[31;1;7m"
HOSTILE = f"{COLOUR}=\x1b]0;t\x07\u202e\u2066\u200b\u200f\x9b1m\r\n</script>"
# What 16 bytes of a process name have room for.
NAME = "\x1b[7m\u202e\x9b1m"
_UNSAFE = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
_OWN_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def check(text: str, *, coloured: bool = False) -> None:
    """Fail where text could act on whatever shows it."""
    assert COLOUR not in text
    assert "\x1b[7m" not in text
    found = _UNSAFE.search(_OWN_COLOUR.sub("", text) if coloured else text)
    assert found is None, ascii(text[max(0, found.start() - 100) : found.end() + 40])


def _machine() -> Stop:
    host = LinuxHost()
    host.registers.update(FAULT)
    vm = host.vm(3, 0x4800_0000, 0x7000, [(0x4000_0000, 0x10_0000, 0xFFFF_A000_0000)])
    host.vm(4, 0x4810_0000, 0x7000, [])
    host.process(91, NAME, 0x7000, [("operations", vm)])
    image = BASE + DATA["vm_list"] - DATA["vm_list"]
    host.write_at(image + 0x400, struct.pack("<64s", HOSTILE.encode()[:64]))
    stop = host.stop()
    named = {"QEMU": HOSTILE, HOSTILE: "1"}
    return replace(
        stop,
        origin=HOSTILE,
        symbol=lambda address: HOSTILE,
        versions=lambda: named,
        memory_way=lambda: HOSTILE,
        vmcoreinfo={"OSRELEASE": HOSTILE, HOSTILE: HOSTILE},
    )


ASKED = [*questions()]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Stop:
    os.environ["XDG_CACHE_HOME"], before = (
        str(tmp_path_factory.mktemp("cache")),
        os.environ.get("XDG_CACHE_HOME"),
    )
    kernel._known.clear()
    kernel._parsed.clear()
    stop = _machine()
    assert NAME in ask(stop, *next(q for q in ASKED if q[0].name == "vms")).text.encode().decode(
        "unicode_escape"
    )
    if before is not None:
        os.environ["XDG_CACHE_HOME"] = before
    return stop


@pytest.mark.parametrize(("form", "coloured"), [("", False), ("", True), ("--json", False), ("--csv", False)])
@pytest.mark.parametrize(("command", "words"), ASKED, ids=lambda value: getattr(value, "name", None))
def test_every_answer(
    machine: Stop, command: Command, words: tuple[str, ...], form: str, coloured: bool
) -> None:
    answer = ask(machine, command, words, form, colour=coloured)
    check(answer.text, coloured=coloured)
    if form == "--csv" and answer.error is None:
        for row in csv.reader(io.StringIO(answer.text)):
            assert not any(cell.startswith(("=", "+", "@")) for cell in row)


def test_a_page_is_not_ended_by_text(machine: Stop, tmp_path: Path) -> None:
    ((report, _),) = [question for question in ASKED if question[0].name == "report"]
    path = tmp_path / "page.html"
    assert ask(machine, report, ("-o", str(path)), "").error is None
    page = path.read_text(encoding="utf-8")
    check(page)
    assert page.count("</script>") == page.count("<script") > 0


class Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


LOG = f"{HOSTILE}ESR_EL2 = 0x93c58045\nends \x1b[2J\r\nand a\ttab \ufeff\n".encode()


def test_a_log_does_not_act_on_a_terminal(tmp_path: Path) -> None:
    """A log is copied as it is, but not to a terminal."""
    path = tmp_path / "log"
    path.write_bytes(LOG)
    shown, copied = Terminal(), io.BytesIO()
    stream.write(annotate(str(path)), shown, form="text", style=Style())
    stream.write(annotate(str(path)), copied, form="text", style=Style())
    check(shown.getvalue().decode().replace("\t", "").replace("\r\n", "\n"))
    assert b"ends \\x1b[2J\r\nand a\ttab \\ufeff\n" in shown.getvalue()
    assert all(line in copied.getvalue() for line in LOG.splitlines(keepends=True))


# ---- the program


def _hostile_words(arguments: Sequence[Argument], text: str) -> list[str]:
    """Return a value for every option and every positional that takes one."""
    words: list[str] = []
    for argument in arguments:
        if argument.positional:
            words.append(text)
        elif argument.value and not argument.choices and argument.names[0] not in ("-o", "--elf"):
            words += [argument.names[0], text]
    return words


def _leaves(command: Command, path: tuple[str, ...] = ()) -> list[tuple[Command, tuple[str, ...]]]:
    here = (*path, command.name)
    if command.subcommands:
        return [leaf for inner in command.subcommands for leaf in _leaves(inner, here)]
    return [(command, here)]


PROGRAMS = [leaf for command in COMMANDS if command.in_cli for leaf in _leaves(command)]


@pytest.mark.parametrize(
    ("command", "path"), PROGRAMS, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_every_command_with_hostile_words(
    command: Command,
    path: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    name = HOSTILE.replace("/", "-")
    Path(name).write_bytes(HOSTILE.encode())
    for all_options in (True, False):
        arguments = [a for a in command.arguments if all_options or a.positional]
        main([*path, *_hostile_words(arguments, name)])
        shown = capsys.readouterr()
        if command.name != "annotate":
            check(shown.out)
        check(shown.err)
        assert "Traceback" not in shown.err


def test_an_unknown_word_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        [HOSTILE],
        ["help", HOSTILE],
        ["esr", HOSTILE],
        ["map", "x", "--regime", HOSTILE],
        ["map", "x", HOSTILE],
    ):
        assert main(words) in (2, 3)
        check(capsys.readouterr().err)


TRACE = {"format": "gdbhyp-trace", "version": 1, "source": HOSTILE, "dropped": 0}
EVENTS = (
    {
        "event": "exception",
        "seq": 0,
        "cpu": 0,
        "vector": "0x80400",
        "from_el": 1,
        "esr": "0x5a000000",
        "x0": "0xc600ff01",
    },
    {"event": "return", "seq": 1, "cpu": 0, "to_el": 1, "pc": "0x1000"},
    {"event": "lost", "seq": 2, "missing": 3, "reason": HOSTILE},
)


@pytest.mark.parametrize("form", ["chrome", "csv", "jsonl"])
def test_an_exported_trace(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calls = {"host_calls": {str(0xC600_FF01): HOSTILE, "0xc600ff01": HOSTILE}}
    lines = [json.dumps({**TRACE, **calls}), *map(json.dumps, EVENTS)]
    (tmp_path / "trace").write_text("\n".join(lines) + "\n")
    out = tmp_path / "out"
    status = main(["trace", "export", str(tmp_path / "trace"), "--format", form, "-o", str(out)])
    shown = capsys.readouterr()
    check(shown.out + shown.err)
    if status == 0:
        check(out.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+1", "'+1"),
        ("@a", "'@a"),
        ("-1+cmd", "'-1+cmd"),
        ("-w-", "-w-"),
        ("rw-/---", "rw-/---"),
        ("a=b", "a=b"),
        ("\t=1", "\\t=1"),
    ],
)
def test_a_cell_is_no_formula(text: str, cell: str) -> None:
    assert csv_text(text) == cell


def test_a_row_of_a_fleet_is_ascii(tmp_path: Path) -> None:
    row = fleet.ask(["status"], str(tmp_path / "none\u202e\x1b"), 60)
    assert json.dumps(row).isascii()
    assert row["status"] == BadInput.exit_status


# ---- paths and commands


@pytest.mark.parametrize(
    ("path", "option"),
    [
        ("/a/b.so", "-plugin /a/b.so"),
        ("/a b/it's.so", "-plugin '/a b/it'\"'\"'s.so'"),
        ("/a,ring=/etc/x.so", "-plugin /a,,ring=/etc/x.so"),
        ("/a;reboot\n.so", "-plugin '/a;reboot\n.so'"),
    ],
)
def test_the_plugins_option_is_quoted(path: str, option: str) -> None:
    assert tcg_build._option(path) == option
    assert shlex.split(option) == ["-plugin", path.replace(",", ",,")]


@pytest.mark.parametrize(
    ("path", "quoted"),
    [
        ("/tmp/x", '"/tmp/x"'),
        ("/tmp/a b,c", '"/tmp/a b,c"'),
        ('/tmp/"; quit', r'"/tmp/\"; quit"'),
        ("/tmp/a\\b\nquit\r", r'"/tmp/a\\b\nquit\r"'),
    ],
)
def test_a_path_is_one_word_of_the_monitor(fake_gdb: ModuleType, path: str, quoted: str) -> None:
    trace_log = importlib.import_module("gdbhyp.plugin.trace_log")
    assert trace_log.monitor_quoted(path) == quoted


def test_symbols_replace_a_link_and_do_not_follow_it(machine: Stop, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / "link").symlink_to(precious)
    ((symbols, _), *_) = [question for question in ASKED if question[0].name == "symbols"]
    assert ask(machine, symbols, ("--elf", str(tmp_path / "link"))).error is None
    assert precious.read_text() == "precious"
    assert (tmp_path / "link").read_bytes()[:4] == b"\x7fELF"


def test_gdbs_safe_path_is_left_alone() -> None:
    """Nothing of ours widens what GDB loads by itself, or switches it off."""
    package = Path(escaping.__file__).parent
    for path in package.rglob("*"):
        if path.suffix in (".py", ".txt", ".c"):
            assert not re.search(r"set\s+auto-load|add-auto-load|auto-load\s+(no|off)", path.read_text()), (
                path
            )
