"""GDB as a debug adapter: the commands in an IDE's console, the registers in its variables view."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live.conftest import GDBINIT
from support import qemu, tools
from support.dap_client import DapClient


@pytest.fixture
def dap(demo: Path, machine: qemu.Machine, truth: Any) -> Iterator[DapClient]:
    """GDB 18 as an adapter, attached, at the vector for a store that stage 2 does not permit."""
    command = [tools.newest_gdb(), "-nx", "-q", "-i=dap", "-iex", f"source {GDBINIT}"]
    client = DapClient(command, {**os.environ, "GDBHYP_SITE": sysconfig.get_path("purelib")})
    client.ask("initialize", adapterID="gdb", linesStartAt1=True, columnsStartAt1=True)
    attached = client.send("attach", program=str(demo / "demo.elf"), target=str(machine.gdb))
    client.event("initialized")
    client.ask("configurationDone")
    client.answer(attached)
    client.event("stopped")
    site = next(s for s in truth["vms"][0]["sites"] if s["symbol"] == "guest_perm_store")
    condition = (
        f"$ELR_EL2 == {site['elr']} && $ESR_EL2 == {site['esr']} && $VTTBR_EL2 >> 48 == {site['vmid']}"
    )
    client.ask("setFunctionBreakpoints", breakpoints=[{"name": "el1_sync", "condition": condition}])
    client.ask("continue", threadId=1)
    client.event("stopped")
    yield client
    client.close()


def frame(dap: DapClient) -> int:
    return int(dap.ask("stackTrace", threadId=1, levels=1)["stackFrames"][0]["id"])


def console(dap: DapClient, line: str) -> str:
    return str(dap.ask("evaluate", expression=line, context="repl", frameId=frame(dap))["result"])


def test_commands_in_the_debug_console(dap: DapClient, truth: Any) -> None:
    site = next(s for s in truth["vms"][0]["sites"] if s["symbol"] == "guest_perm_store")
    shown = console(dap, "hyp-ipa")
    assert f"IPA {site['ipa']} of VMID 42" in shown
    assert "\x1b" not in shown
    assert console(dap, "hyp-walk --stage2 --quiet $hyp_last_ipa") == ""
    assert site["pa"] in console(dap, 'output/x $hyp_last("output")')
    value = dap.ask("evaluate", expression="$hyp_s2($hyp_ipa())", context="watch", frameId=frame(dap))
    assert int(value["result"], 0) == int(site["pa"], 16)


def test_registers_by_field_in_the_variables_view(dap: DapClient, truth: Any) -> None:
    scopes = {s["name"]: s["variablesReference"] for s in dap.ask("scopes", frameId=frame(dap))["scopes"]}

    def unfold(reference: int) -> dict[str, Any]:
        return {v["name"]: v for v in dap.ask("variables", variablesReference=reference)["variables"]}

    whole = unfold(unfold(scopes["Locals"])["gdbhyp"]["variablesReference"])
    assert whole["world"]["value"].startswith("hypervisor")
    assert whole["regime"]["value"] == "EL2"
    assert whole["VTCR_EL2"]["value"] == truth["vms"][0]["vtcr"]
    fields = unfold(whole["VTCR_EL2"]["variablesReference"])
    assert fields["SL0"]["value"] == "1  level 1"
    assert fields["T0SZ"]["value"] == "0x18  40 bits"
    assert fields["SL0"]["variablesReference"] == 0
