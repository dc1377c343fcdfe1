"""The commands in real GDBs on the demo hypervisor, against what its build says of itself."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from support import qemu
from support.demo import run_to
from support.gdb_session import CommandError, GdbSession
from support.tools import ROOT


def sites(truth: Any, vm: int = 0) -> list[Any]:
    found: list[Any] = truth["vms"][vm]["sites"]
    return found


def number(text: str) -> int:
    return int(text, 16)


def test_every_fault_has_its_ipa(session: GdbSession, truth: Any) -> None:
    for vm in (0, 1):
        for site in sites(truth, vm):
            run_to(session, site)
            answer = session.json("hyp-ipa")
            assert answer["ipa"] == site["ipa"], site["symbol"]
            assert answer["method"] == site["ipa_method"], site["symbol"]
            assert answer["hpfar_valid"] == site["hpfar_valid"], site["symbol"]
            if site["ipa"]:
                assert answer["vmid"] == site["vmid"]
                assert answer["certain"]


def test_every_syndrome_is_the_one_that_was_planned(session: GdbSession, truth: Any) -> None:
    for site in sites(truth):
        run_to(session, site)
        answer = session.json("hyp-esr")
        assert answer["ec"]["value"] == site["ec"], site["symbol"]
        assert number(answer["esr"]) == number(site["esr"]), site["symbol"]
        fault = answer["abort"]
        if site["fault"]:
            assert {k: fault[k] for k in ("kind", "level", "s1ptw")} == {
                k: site["fault"][k] for k in ("kind", "level", "s1ptw")
            }, site["symbol"]


def test_calls_are_named_at_the_vector(session: GdbSession, truth: Any) -> None:
    by_symbol = {site["symbol"]: site for site in sites(truth)}
    run_to(session, by_symbol["guest_smc"])
    assert "SMCCC_VERSION" in session.json("hyp-esr")["summary"]
    run_to(session, by_symbol["guest_mrs"])
    assert session.json("hyp-esr")["instruction"] == "mrs x3, ID_AA64PFR0_EL1"


def test_walk_agrees_with_the_build_and_with_qemu(session: GdbSession, truth: Any) -> None:
    run_to(session, sites(truth)[0])
    for row in truth["vms"][0]["map"]:
        answer = session.json(f"hyp-walk --stage2 {row['start']}")
        if row["fault"] is None:
            assert answer["output"] == row["pa"]
            assert answer["page_size"] == row["page_size"]
            assert answer["level"] == row["level"]
        elif row["fault"] != "access_flag":
            assert answer["fault"]["kind"] == row["fault"]


def test_walk_of_el2_agrees_with_gva2gpa(session: GdbSession, machine: qemu.Machine, truth: Any) -> None:
    run_to(session, sites(truth)[0])
    for row in truth["stage1"]["el2"]:
        for address in (number(row["start"]), number(row["end"]) - 8):
            answer = session.json(f"hyp-walk {address:#x}")
            expected = re.search(r"gpa: (0x[0-9a-f]+)", machine.command(f"gva2gpa {address:#x}"))
            assert expected
            assert number(answer["output"]) == number(expected[1])
            assert (answer["output_space"], answer["regime"]) == ("PA", "EL2")


def test_walk_takes_expressions(session: GdbSession, truth: Any) -> None:
    run_to(session, sites(truth)[0])
    answer = session.json("hyp-walk $pc + 8 - 4")
    assert number(answer["input"]) == session.register("pc") + 4
    assert session.json("hyp-walk &hyp_vectors")["input"] == truth["symbols"]["hyp_vectors"]


def test_explicit_roots_are_walked_from_any_stop(session: GdbSession, truth: Any) -> None:
    session.run("tbreak el1_host_call")
    session.run("continue")
    assert session.register("VTTBR_EL2") == 0
    for vm in truth["vms"]:
        row = next(r for r in vm["map"] if r["start"] == "0x80200000")
        command = f"hyp-walk --stage2 0x80200000 --vttbr {vm['vttbr']} --vtcr {vm['vtcr']}"
        assert session.json(command)["output"] == row["pa"]


def test_map_is_what_the_build_made(session: GdbSession, truth: Any) -> None:
    run_to(session, sites(truth)[0])
    output = session.run("hyp-map --stage2 --json").splitlines()
    rows = [json.loads(line) for line in output if line.startswith("{")]
    expected = [r for r in truth["vms"][0]["map"] if r["fault"] in (None, "access_flag")]
    keys = ("start", "end", "pa", "level", "page_size", "read", "write", "contiguous")
    assert [{k: row[k] for k in keys} for row in rows] == [{k: row[k] for k in keys} for row in expected]
    assert [row["exec"] != "never" for row in rows] == [row["exec"] for row in expected]
    assert [row["access_flag"] for row in rows] == [row["access_flag"] for row in expected]


@pytest.mark.parametrize(
    ("options", "keep"),
    [
        ("--rights wx", lambda row: row["write"] and row["exec"] != "never"),
        ("--memory device", lambda row: row["memory"].startswith("Device")),
        ("--min-size 0x200000", lambda row: number(row["end"]) - number(row["start"]) >= 0x200000),
        (
            "--range 0x80200000-0x80206000",
            lambda row: 0x80200000 <= number(row["start"]) < 0x80206000,
        ),
    ],
)
def test_map_filters(session: GdbSession, truth: Any, options: str, keep: Any) -> None:
    run_to(session, sites(truth)[0])

    def rows(extra: str) -> list[Any]:
        lines = session.run(f"hyp-map --stage2 --json {extra}").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    everything = rows("")
    wanted = [row for row in everything if keep(row)]
    assert rows(options) == wanted
    assert 0 < len(wanted) < len(everything)


def test_at_is_what_the_processor_says(session: GdbSession, truth: Any) -> None:
    by_symbol = {site["symbol"]: site for site in sites(truth)}
    run_to(session, by_symbol["guest_perm_store"])
    session.run("tbreak el1_abort_at")
    session.run("continue")
    before = session.register("PAR_EL1")
    expected = session.json("hyp-at S1E1R $FAR_EL2")
    assert session.register("PAR_EL1") == before
    for _ in range(16):
        session.run("stepi")
        if session.register("PAR_EL1") != before:
            break
    assert number(expected["par"]) == session.register("PAR_EL1")


def test_status_knows_the_worlds(session: GdbSession, truth: Any) -> None:
    session.run("tbreak el1_host_call")
    session.run("continue")
    status = session.json("hyp-status")
    assert (status["el"], status["regime"], status["world"], status["vmid"]) == (2, "EL2", "hypervisor", None)
    session.run(f"tbreak *{truth['symbols']['guest_loop']}")
    session.run("continue")
    status = session.json("hyp-status")
    assert (status["el"], status["world"]) == (1, "guest")
    assert status["vmid"] in (42, 59)
    assert (status["e2h"], status["tge"]) == (False, False)


def test_registers_by_field(session: GdbSession, truth: Any) -> None:
    run_to(session, sites(truth)[0])
    answer = session.json("hyp-reg VTCR_EL2")
    assert answer["value"] == truth["vms"][0]["vtcr"]
    fields = {f["name"]: f["value"] for f in answer["fields"]}
    assert (fields["T0SZ"], fields["SL0"], fields["TG0"]) == (24, 1, 0)
    listed = session.json_lines("hyp-reg HCR*")
    assert "HCR_EL2" in [row["name"] for row in listed]
    assert session.json("hyp-reg HCR_EL2=0x80000000")["value"] == "0x80000000"


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("hyp-walk", "required: address"),
        ("hyp-walk 1 --stagee1", "did you mean --stage1"),
        ("hyp-walk --stage1 --stage2 1", "exclude each other"),
        ("hyp-walk nonsense_symbol", "No symbol"),
        ("hyp-walk --regime EL2 --stage2 0", "only the EL1&0 regime has a stage 2"),
        ("hyp-walk --el0 0", "--el0 needs --access"),
        ("hyp-map --range 5", "is no range"),
        ("hyp-map --range 5-4", "is empty"),
        ("hyp-map --rights q", "are no rights"),
        ("hyp-reg NO_SUCH_REGISTER", "no register"),
        ("hyp-at S9 0", "invalid choice"),
        ("hyp-esr 'open", "a quote is not closed"),
        ("hyp-esr 0x1ffffffffffffffff", "has more than 64 bits"),
    ],
)
def test_mistakes_are_one_sentence(session: GdbSession, command: str, sentence: str) -> None:
    with pytest.raises(CommandError, match=re.escape(sentence)) as caught:
        session.run(command)
    assert "\n" not in str(caught.value)


def test_a_wild_root_is_an_answer(session: GdbSession, truth: Any) -> None:
    run_to(session, sites(truth)[0])
    answer = session.json("hyp-walk --stage2 0x80000000 --vttbr 0x7f0000000000")
    assert answer["output"] is None
    assert answer["fault"]["kind"] in ("external_abort", "address_size")
    output = session.run("hyp-map --stage2 --vttbr 0x3f000000")
    assert "is not known: table not readable: the machine has no memory there" in output


def test_a_device_is_never_read(session: GdbSession, truth: Any) -> None:
    """The UART at PA 0x9000000 would lose a character to a read of its data register."""
    run_to(session, sites(truth)[0])
    assert "the machine has no memory there" in session.run("hyp-map --stage2 --vttbr 0x9000000")


def test_nothing_is_left_changed(session: GdbSession, truth: Any) -> None:
    run_to(session, sites(truth)[0])
    mode = "gdb.selected_inferior().connection.send_packet(b'qqemu.PhyMemMode').decode()"
    state = "[gdb.selected_thread().num, gdb.selected_frame().level(), gdb.execute('info registers', to_string=True)]"
    before = session.python(state)
    for command in (
        "hyp-status",
        "hyp-esr",
        "hyp-ipa",
        "hyp-walk $pc",
        "hyp-map --stage2",
        "hyp-at S12E1R 0",
    ):
        session.run(command)
        assert session.python(mode) == "0", command
        assert session.python(state) == before, command


def test_physical_mode_of_the_user_is_kept(session: GdbSession, truth: Any) -> None:
    run_to(session, sites(truth)[0])
    session.run("maintenance packet Qqemu.PhyMemMode:1")
    session.run("hyp-map --stage2")
    mode = "gdb.selected_inferior().connection.send_packet(b'qqemu.PhyMemMode').decode()"
    assert session.python(mode) == "1"


def test_help_of_every_command(session: GdbSession) -> None:
    names = [n for n in session.run("complete hyp-").split() if n]
    assert {"hyp-status", "hyp-esr", "hyp-reg", "hyp-ipa", "hyp-walk", "hyp-map", "hyp-at"} <= set(names)
    for name in names:
        text = session.run(f"help {name}")
        first = text.splitlines()[0]
        assert first.endswith("."), name
        assert f"Usage: {name}" in text


def test_loading_twice_is_harmless(session: GdbSession) -> None:
    session.run(f"source {ROOT / 'gdbhyp' / 'gdbinit.py'}")
    session.json("hyp-status")
