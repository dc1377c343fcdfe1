"""Commands as parts of larger things: in expressions, files, pipes and scripts."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest
from live.conftest import Attach, demo_arguments
from support import qemu
from support.demo import run_to
from support.gdb_session import CommandError, GdbSession


@pytest.fixture
def at_store(session: GdbSession, truth: Any) -> Any:
    """GDB at the vector for a store that stage 2 does not permit; the site, of truth.json."""
    site = next(s for s in truth["vms"][0]["sites"] if s["symbol"] == "guest_perm_store")
    run_to(session, site)
    return site


def printed(session: GdbSession, expression: str) -> str:
    """Return what ``print/x`` shows, without the number in the value history."""
    return re.sub(r"^\$\d+ = ", "", session.run(f"print/x {expression}").strip())


def test_the_last_answer_in_expressions(session: GdbSession, at_store: Any) -> None:
    with pytest.raises(CommandError, match="no command has answered yet"):
        session.run('print $hyp_last("ipa")')
    session.run("hyp-ipa")
    assert printed(session, '$hyp_last("ipa")') == at_store["ipa"]
    assert printed(session, "$hyp_last_ipa & 0xfff") == hex(int(at_store["ipa"], 16) & 0xFFF)
    assert printed(session, '$hyp_last("stage2.steps[0].level")') == "0x1"
    assert session.run("output $hyp_last_method") == '"stage1_walk"'
    session.run("hyp-walk --stage2 --quiet $hyp_last_ipa")
    assert printed(session, "$hyp_last_output") == at_store["pa"]
    assert printed(session, "$hyp_last_method") == "void"
    assert printed(session, '$hyp_last("fault")') == "void"
    for path, sentence in (
        ("nonsense", "the last answer has no 'nonsense': its keys are input, input_space, output"),
        ("steps", r"'steps' has several values: write \[0\] for its first entry, or .count"),
        ("steps[9]", "'steps' has 3 entries"),
        ("", "say a key: its keys are input"),
    ):
        with pytest.raises(CommandError, match=sentence):
            session.run(f'print $hyp_last("{path}")')


def test_the_rows_of_the_last_map(session: GdbSession, at_store: Any, truth: Any) -> None:
    mapped = [row for row in truth["vms"][0]["map"] if row["fault"] in (None, "access_flag")]
    session.run("hyp-map --stage2 --quiet")
    assert int(printed(session, '$hyp_last("rows.count")'), 16) == len(mapped)
    assert printed(session, '$hyp_last("rows[1].start")') == mapped[1]["start"]


def test_answers_in_files(session: GdbSession, at_store: Any, truth: Any, tmp_path: Path) -> None:
    mapped = [row for row in truth["vms"][0]["map"] if row["fault"] in (None, "access_flag")]
    path = tmp_path / "a map.csv"
    said = session.run(f"hyp-map --stage2 --csv --output '{path}'")
    assert said.splitlines() == [line for line in said.splitlines() if line.startswith("0x8020a000 to ")]
    table = list(csv.DictReader(path.open()))
    assert [(row["start"], row["pa"]) for row in table] == [(row["start"], row["pa"]) for row in mapped]
    assert {path.name for path in tmp_path.glob("*a map*")} == {"a map.csv"}
    with pytest.raises(CommandError, match=r"^cannot write /nowhere/x: No such file"):
        session.run("hyp-status --output /nowhere/x")


def test_answers_in_pipes(session: GdbSession, at_store: Any, tmp_path: Path) -> None:
    session.run(f"pipe hyp-map --stage2 | tail -n 2 | head -n 1 > {tmp_path / 'tail'}")
    assert (tmp_path / "tail").read_text().startswith("18 ranges")


def test_functions(session: GdbSession, at_store: Any, truth: Any) -> None:
    for expression, value in (
        ("$hyp_ipa()", at_store["ipa"]),
        ("$hyp_ipa($FAR_EL2)", at_store["ipa"]),
        ("$hyp_s2($hyp_ipa())", at_store["pa"]),
        ("$hyp_s2($hyp_ipa(), 0)", at_store["pa"]),
        ("$hyp_esr_ec()", hex(at_store["ec"])),
        ("$hyp_esr_ec(2)", hex(at_store["ec"])),
        ('$hyp_reg("HCR_EL2", "VM")', "0x1"),
        ('$hyp_reg("hcr_el2", "tge")', "0x0"),
        ('$hyp_reg("VTTBR_EL2")', truth["vms"][0]["vttbr"]),
        ("$hyp_pa(0x123)", "void"),
        ("$_isvoid($hyp_pa(0x123))", "0x1"),
        ('$hyp_world("hypervisor")', "0x1"),
        ('$hyp_world("guest")', "0x0"),
        ('$_streq($hyp_world(), "hypervisor")', "0x1"),
    ):
        assert printed(session, expression) == value, expression
    walked = session.json("hyp-walk $pc")
    assert printed(session, "$hyp_pa($pc)") == walked["output"]
    for expression, sentence in (
        ('$hyp_reg("HCR_EL2", "TGF")', "HCR_EL2 has no field TGF: its fields are "),
        ('$hyp_reg("NO_EL2")', "the target does not show NO_EL2"),
        ("$hyp_reg(3)", "it takes a text in quotes"),
        ("$hyp_pa()", "'help function hyp_pa' says which"),
        ("$hyp_s2(0, 9)", "there is no VM 9: the VMs are 0"),
        ('$hyp_world("gest")', "there is no world 'gest'"),
        ("$hyp_esr_ec(4)", "EL4 has no syndrome register"),
    ):
        with pytest.raises(CommandError, match=re.escape(sentence)):
            session.run(f"print {expression}")


def test_functions_select_nothing(demo: Path, tmp_path: Path, attach: Attach, truth: Any) -> None:
    """In a condition, the CPU that came to the breakpoint is asked, each time anew."""
    with qemu.machine(tmp_path, demo_arguments(demo, cpus=2)) as running:
        session = attach(running)
        vm = truth["vms"][1]
        row = next(r for r in vm["map"] if r["start"] == "0x80200000")
        assert row["pa"] != next(r for r in truth["vms"][0]["map"] if r["start"] == "0x80200000")["pa"]
        hit = f'$hyp_esr_ec() == 0x18 && $hyp_s2(0x80200000) == {row["pa"]} && $hyp_world("hypervisor")'
        session.run("thread 1")
        session.run(f"tbreak el1_sync if $VTTBR_EL2 != 0 && {hit}")
        session.run("continue")
        assert session.register("VTTBR_EL2") == int(vm["vttbr"], 16)
        assert session.register("ESR_EL2") >> 26 == 0x18
        selected = "[gdb.selected_thread().num, gdb.selected_frame().level()]"
        mode = "gdb.selected_inferior().connection.send_packet(b'qqemu.PhyMemMode').decode()"
        before = session.python(selected)
        session.run('print $hyp_s2(0x80200000, 0), $hyp_pa($pc), $hyp_reg("HCR_EL2"), $hyp_world()')
        assert (session.python(selected), session.python(mode)) == (before, "0")


def test_from_python(session: GdbSession, at_store: Any) -> None:
    session.run("python import gdbhyp.plugin.api as hyp")
    for expression, value in (
        ("hyp.run('walk --stage2 ' + hex(hyp.ipa())).output", int(at_store["pa"], 16)),
        ("[type(hyp.run('map --stage2').rows).__name__, len(hyp.run('map --stage2').rows)]", ["tuple", 18]),
        ("[hyp.ipa(), hyp.s2(hyp.ipa()), hyp.s2(hyp.ipa(), vm=0)]", None),
        (
            "[hyp.world(), hyp.esr_ec(), hyp.register('HCR_EL2', 'VM'), hyp.pa(0x123)]",
            ["hypervisor", 0x24, 1, None],
        ),
    ):
        wanted = [int(at_store[k], 16) for k in ("ipa", "pa", "pa")] if value is None else value
        assert (
            session.python(f"(lambda hyp: {expression})(__import__('gdbhyp.plugin.api').plugin.api)")
            == wanted
        )
    session.run("python with hyp.stop() as stop: assert stop.el == 2 and stop.register('ESR_EL2')")
    with pytest.raises(CommandError, match="this stop was lent for a question that is answered by now"):
        session.python("__import__('__main__').stop.machine.memory.read(0x40000000, 8)")
    with pytest.raises(CommandError, match=r"there is no command 'wlak' \(did you mean walk\?\)"):
        session.python("__import__('gdbhyp.plugin.api').plugin.api.run('wlak 1')")
    with pytest.raises(CommandError, match="required: address"):
        session.python("__import__('gdbhyp.plugin.api').plugin.api.run('walk')")


def test_hyp_with_a_space(session: GdbSession, at_store: Any) -> None:
    assert session.run("hyp walk --json $pc") == session.run("hyp-walk --json $pc")
    assert "hyp-walk " in session.run("help hyp")
    assert session.run("hyp") == session.run("help hyp")
    for name in ("hyp-walk", "function hyp_world"):
        assert name in session.run("apropos hyp")
    with pytest.raises(CommandError, match=r"no command 'wlak' \(did you mean walk\?\)"):
        session.run("hyp wlak 1")
    assert session.run("complete hyp walk --reg") == "hyp walk --regime\n"
    assert session.run("complete hyp m").split() == ["hyp", "map"]
    assert session.run("complete hyp-reg hcr_el2.tg") == "hyp-reg hcr_el2.TGE\n"
    assert session.run("complete hyp-diff --vm 0") == "hyp-diff --vm 0\n"
    assert session.run("complete hyp-diff --vm 7") == ""
    assert session.run("complete hyp-trace show --ec dabt-l") == "hyp-trace show --ec dabt-lower\n"
    assert session.run("complete hyp-help conc") == "hyp-help concatenation\n"


def test_one_field(session: GdbSession, at_store: Any) -> None:
    answer = session.json("hyp-reg HCR_EL2.VM")
    assert [(f["name"], f["value"]) for f in answer["fields"]] == [("VM", 1)]
    with pytest.raises(CommandError, match="HCR_EL2 has no field VMM: its fields are"):
        session.run("hyp-reg HCR_EL2.VMM")
