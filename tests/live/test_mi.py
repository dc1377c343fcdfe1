"""The machine interface as a front end speaks it."""

from __future__ import annotations

import os
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from live.conftest import GDBINIT
from pygdbmi.gdbcontroller import GdbController
from support import qemu

from gdbhyp.commands.registry import COMMANDS

PATIENCE = 60


class Mi:
    """A GDB that is spoken to in MI."""

    def __init__(self, program: str) -> None:
        os.environ["GDBHYP_SITE"] = sysconfig.get_path("purelib")
        self.controller = GdbController([program, "-nx", "-q", "--interpreter=mi3"])
        self._pending: list[Any] = []

    def _until(self, wanted: Callable[[Any], bool]) -> Any:
        """Return the next record that is wanted; what comes before it is dropped."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            while self._pending:
                record = self._pending.pop(0)
                if wanted(record):
                    return record
            self._pending = self.controller.get_gdb_response(timeout_sec=1, raise_error_on_timeout=False)
        raise TimeoutError

    def ask(self, line: str) -> tuple[str, Any]:
        """Return the class of the result record ("done", "error", ...) and what it holds."""
        self.controller.write(line, read_response=False)
        record = self._until(lambda record: record["type"] == "result")
        return record["message"], record["payload"]

    def done(self, line: str) -> Any:
        kind, payload = self.ask(line)
        assert kind == "done", (line, payload)
        return payload

    def until_stopped(self) -> None:
        self._until(lambda record: record["message"] == "stopped")

    def console(self, command: str) -> str:
        """Return what a command prints in the console."""
        self.controller.write(f'-interpreter-exec console "{command}"', read_response=False)
        said: list[str] = []

        def note(record: Any) -> bool:
            if record["type"] == "console":
                said.append(str(record["payload"]))
            return bool(record["type"] == "result")

        self._until(note)
        return "".join(said)


@pytest.fixture
def mi(gdb_program: str, demo: Path, machine: qemu.Machine, truth: Any) -> Iterator[Mi]:
    """MI at the vector for a store that stage 2 does not permit."""
    mi = Mi(gdb_program)
    site = next(s for s in truth["vms"][0]["sites"] if s["symbol"] == "guest_perm_store")
    mi.done(f"-file-exec-and-symbols {demo / 'demo.elf'}")
    mi.done(f'-interpreter-exec console "source {GDBINIT}"')
    assert mi.ask(f"-target-select remote {machine.gdb}")[0] == "connected"
    condition = (
        f"$ELR_EL2 == {site['elr']} && $ESR_EL2 == {site['esr']} && $VTTBR_EL2 >> 48 == {site['vmid']}"
    )
    mi.done(f'-break-insert -t -c "{condition}" el1_sync')
    assert mi.ask("-exec-continue")[0] == "running"
    mi.until_stopped()
    yield mi
    mi.controller.exit()


def test_answers_have_their_types(mi: Mi, truth: Any) -> None:
    site = next(s for s in truth["vms"][0]["sites"] if s["symbol"] == "guest_perm_store")
    found = mi.done("-hyp-ipa")
    assert (found["ipa"], found["method"], found["hpfar_valid"]) == (site["ipa"], "stage1_walk", "false")
    assert found["stage2"]["steps"][0]["level"] == "1"
    walked = mi.done(f"-hyp-walk --stage2 {site['ipa']}")
    assert (walked["output"], walked["output_space"], walked["page_size"]) == (site["pa"], "PA", "4096")
    assert "fault" not in walked
    assert walked["permissions"]["write"] == "false"
    syndrome = mi.done("-hyp-esr")
    assert syndrome["ec"] == {"value": "36", "name": "Data Abort from a lower Exception level"}
    assert [f["name"] for f in syndrome["fields"]][-1] == "DFSC"
    assert mi.done("-hyp-status")["world"] == "hypervisor"
    assert mi.done('-hyp-walk "$pc + 8"')["input"] == mi.done("-hyp-walk $pc + 8")["input"]


def test_rows(mi: Mi, truth: Any) -> None:
    found = mi.done("-hyp-map --stage2")
    mapped = [row for row in truth["vms"][0]["map"] if row["fault"] in (None, "access_flag")]
    assert [(r["start"], r["pa"]) for r in found["rows"]] == [(r["start"], r["pa"]) for r in mapped]
    assert ["faults" in problem for problem in found["problems"]] == [True]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("-hyp-walk", "required: address"),
        ("-hyp-walk --stge1 0", "did you mean --stage1?"),
        ("-hyp-walk nonsense_symbol", "No symbol"),
        ("-hyp-trace nonsense", "is not one of its subcommands"),
    ],
)
def test_mistakes(mi: Mi, line: str, sentence: str) -> None:
    kind, payload = mi.ask(line)
    assert kind == "error"
    assert sentence in payload["msg"]
    assert "Error occurred in Python" not in payload["msg"]


def test_every_command_has_one(mi: Mi) -> None:
    for command in COMMANDS:
        if command.in_gdb:
            assert mi.done(f"-info-gdb-mi-command hyp-{command.name}")["command"] == {"exists": "true"}, (
                command.name
            )


def test_commands_in_the_console(mi: Mi) -> None:
    """A front end's console types what people type; nothing is coloured there."""
    console = mi.console("hyp-status")
    assert "EL2" in console
    assert "\x1b" not in console


def test_a_hole_is_no_zeros(mi: Mi) -> None:
    """What QEMU's monitor says comes as MI's records here: where memory is, has to be read from them all the same."""
    result, payload = mi.ask("-hyp-x --pa /1gx 0x7fff0000")
    assert result == "error"
    assert "the machine has no memory there" in str(payload)
