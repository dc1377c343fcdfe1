"""``hyp-catch`` on the demo hypervisor, each stop against what the build knows of its traps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from live.conftest import Start
from support.gdb_session import CommandError, GdbSession

Truth = Any


def site(truth: Truth, symbol: str) -> Any:
    return next(s for s in truth["vms"][0]["sites"] if s["symbol"] == symbol)


def stands_at(session: GdbSession, truth: Truth, symbol: str) -> bool:
    """Whether the selected CPU stands at EL2's vector for one of the guest's traps."""
    where = site(truth, symbol)
    wanted = (int(where["elr"], 16), int(where["esr"], 16))
    return (session.register("ELR_EL2"), session.register("ESR_EL2")) == wanted


def watched(session: GdbSession) -> int:
    """Return how many hidden breakpoints there are that can stop."""
    return sum(
        line.startswith("-") and "keep y" in line
        for line in session.run("maint info breakpoints").splitlines()
    )


CAUGHT = [
    ("hvc PSCI_VERSION", "guest_hvc", "guest hvc #0: PSCI_VERSION"),
    ("dabt --ipa 0x9000000-0x9000fff --write", "guest_mmio_store", "guest write of 8 bytes from x5"),
    ("dabt --ipa 0x80204000-0x80204fff --write", "guest_perm_store", "IPA 0x80204128 (stage-2 permission"),
    ("iabt", "guest_iabt_unmapped", "guest instruction fetch"),
    ("sysreg ICC_SGI1R_EL1", "guest_msr", "guest msr ICC_SGI1R_EL1"),
    ("ec 0x19", "guest_sve", "guest SVE access trapped"),
    ("wfx --vmid 42", "guest_wfi", "of VMID 42"),
]
"""What is caught, in the order in which the guest does it."""


def test_stops_there(start: Start, truth: Truth) -> None:
    """Only guests are caught: no host call stops on the way, and no other exit."""
    session = start()
    for words, symbol, said in CAUGHT:
        number = session.json(f"hyp-catch {words}")["catches"][0]["number"]
        shown = session.run("continue")
        assert stands_at(session, truth, symbol), words
        line = next(line for line in shown.splitlines() if line.startswith("hyp-catch"))
        assert line.startswith(f"hyp-catch {number}, CPU 0: ")
        assert said in line
        assert session.json("hyp-catch")["catches"][0]["hits"] == 1
        assert session.register("VTTBR_EL2") >> 48 == 42
        session.run(f"delete {number}")


def test_is_a_breakpoint(start: Start, truth: Truth) -> None:
    """GDB lists it in the words that were typed; its number serves disable, ignore, condition and delete."""
    session = start()
    session.run("hyp-catch hvc")
    session.run("hyp-catch smc")
    listed = session.run("info breakpoints")
    assert "hyp-catch hvc" in listed
    assert "hyp-catch smc" in listed
    session.run("disable 2")
    session.run("ignore 3 1")
    session.run("continue")
    assert session.register("ESR_EL2") >> 26 == 0x17
    assert session.register("VTTBR_EL2") >> 48 == 59, "the first VM's SMC was ignored"
    assert [row["hits"] for row in session.json("hyp-catch")["catches"]] == [0, 2]
    session.run("enable 2")
    session.run("condition 2 $VTTBR_EL2 >> 48 == 42")
    session.run("continue")
    assert stands_at(session, truth, "guest_hvc")
    session.run("delete 2")
    session.run("delete 3")
    assert "hyp-catch" not in session.run("info breakpoints")
    assert not watched(session)


def test_temporary_and_condition(start: Start) -> None:
    session = start()
    session.run("hyp-catch hvc --world host --temporary --ignore 2 if $x1 != 0")
    session.run("continue")
    assert session.register("VTTBR_EL2") == 0
    assert session.json("hyp-catch")["catches"] == []
    assert not watched(session)


def test_commands(start: Start) -> None:
    """What GDB shall do at a breakpoint, it does at a catch."""
    session = start()
    session.run("hyp-catch smc")
    session.python(
        "setattr(next(b for b in gdb.breakpoints() if b.number == 2),"
        " 'commands', 'silent\\nset $seen = $ESR_EL2 >> 26')"
    )
    assert "hyp-catch" not in session.run("continue")
    assert session.python("int(gdb.parse_and_eval('$seen'))") == 0x17


def test_entry(start: Start, truth: Truth) -> None:
    session = start()
    session.run("hyp-catch enter --vmid 59")
    assert "entry into the guest of VMID 59 at EL1" in session.run("continue")
    assert session.register("pc") == int(truth["symbols"]["__guest_eret"], 16)
    assert session.register("VTTBR_EL2") >> 48 == 59


def test_cpu_is_selected(start: Start) -> None:
    """GDB answers for the CPU that was caught."""
    session = start(2)
    session.run("hyp-catch exit --cpu 1")
    assert "hyp-catch 2, CPU 1: " in session.run("continue")
    assert session.python("gdb.selected_thread().num") == 2
    assert session.json("hyp-status")["cpu"] == 1


def test_beside_a_recording(start: Start) -> None:
    """Both share the breakpoints, and each leaves the other's."""
    session = start()
    session.run("hyp-trace start --source break")
    session.run("hyp-catch wfx")
    session.run("continue")
    rows = session.json_lines("hyp-trace show --last 1")
    assert (rows[0]["ec"], rows[0]["vmid"]) == (1, 42)
    session.run("hyp-trace stop")
    assert watched(session)
    session.run("continue")
    assert session.register("VTTBR_EL2") >> 48 == 59
    session.run("delete")
    assert not watched(session)


def test_cost_of_a_stop(start: Start) -> None:
    """What is not caught costs less than three packets beside GDB's own; recording an exception costs five or six."""
    session = start()
    hub = "__import__('gdbhyp.plugin.vectors', fromlist=['vectors']).vectors()"

    def cost() -> float:
        before = session.python(f"[{hub}.packets, {hub}.stops]")
        session.run("tbreak hyp_vcpu_run")
        session.run(f"ignore {session.python('max(b.number for b in gdb.breakpoints())')} 60")
        session.run("continue")
        after = session.python(f"[{hub}.packets, {hub}.stops]")
        assert after[1] - before[1] > 60
        return float(after[0] - before[0]) / float(after[1] - before[1])

    session.run("hyp-catch dabt --ipa 0x1")
    cost()  # until it is known whose vectors they are
    assert cost() < 3
    session.run("delete 2")
    session.run("hyp-trace start --source break")
    cost()
    assert cost() < 6


def test_next_target(start: Start, tmp_path: Path) -> None:
    """A catch outlives its target, and is there for the next one."""
    session = start()
    session.run("hyp-catch smc")
    session.run("detach")
    assert not watched(session)
    session.run(f"target remote {tmp_path / 'gdb.sock'}")
    session.run("continue")
    assert session.register("ESR_EL2") >> 26 == 0x17
    assert session.register("VTTBR_EL2") >> 48 in (42, 59)


WRONG = [
    ("sysreg NO_SUCH_EL1", "is no system register"),
    ("wfx --ipa 0", "only aborts have an IPA"),
    ("hvc if", "an expression is missing behind 'if'"),
    ("hvc if $x0 +", "is no condition"),
    ("ec 64", "takes an exception class, such as dabt-lower or 0x24, not '64'"),
    ("vmid", "takes a number"),
    ("dabt --ipa 2-1", "is empty"),
    ("dabt too much", "one word too many"),
    ("dabt --read --write", "exclude each other"),
]


def test_wrong_use(start: Start) -> None:
    session = start()
    for words, said in WRONG:
        with pytest.raises(CommandError, match=said):
            session.run(f"hyp-catch {words}")
    assert "hyp-catch" not in session.run("info breakpoints")
    assert not watched(session)


def test_before_there_are_vectors(session: GdbSession) -> None:
    with pytest.raises(CommandError, match="VBAR_EL2 is 0 on every CPU"):
        session.run("hyp-catch dabt")
    assert "hyp-catch" not in session.run("info breakpoints")
