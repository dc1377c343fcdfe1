"""Commands as parts of larger things: in expressions, files, pipes and scripts."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest
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
