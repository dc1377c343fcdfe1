"""No answer is made of a register that the target does not show.

Each machine is asked every question of the registry, and then again without each of its registers in turn. What is
answered then must be what was answered before, or less of it: a value may become unknown, a mapping or a vCPU may be
missing where a sentence says that something was not looked at. A value that is another one would be a wrong number.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from unit import linuxhost
from unit.asked import Answer, ask, questions
from unit.linuxhost import LinuxHost
from unit.machines import EL2H, HCR_GUEST, HCR_HOST, HYP, LINEAR, TEXT, VTCR, Model, Nvhe, Protected, Vhe

from gdbhyp.analyses.trees import _assumptions
from gdbhyp.analyses.walk import Question as WalkQuestion
from gdbhyp.analyses.walk import regime_of, walk
from gdbhyp.arch.regimes import Regime
from gdbhyp.commands.registry import COMMANDS
from gdbhyp.engine.stop import Stop
from gdbhyp.hypervisors.identify import Identity, identify
from gdbhyp.hypervisors.linux import kernel
from gdbhyp.hypervisors.vms import find_vms

FAULT = {
    "ESR_EL2": 0x93C5_8045,
    "FAR_EL2": 0xFFFF_0000_4200_0048,
    "HPFAR_EL2": 0x90_0000,
    "ELR_EL2": 0xFFFF_0000_4200_1000,
    "SPSR_EL2": 0x3C5,
}


def _in_a_guest() -> Model:
    return _with(Nvhe(), PC=0x1000)


def _at_the_vector() -> Model:
    model = _with(Nvhe(), PC=HYP + TEXT + 0x400)
    model.cpus[0]["CPSR"] = EL2H
    model.fill(TEXT, TEXT + 0x1000)
    return model


def _in_the_host() -> Model:
    return _first(_with(Nvhe(), PC=0x1000), 2)


def _protected() -> Model:
    return _first(_with(Protected(), PC=0x1000), 2)


def _vhe() -> Model:
    return _with(Vhe(), VBAR_EL2=LINEAR + TEXT, PC=LINEAR + TEXT + 0x900)


def _linux() -> LinuxHost:
    host = LinuxHost()
    host.registers.update(FAULT)
    found = [
        host.vm(3, 0x4800_0000, 0x7000, [(0x4000_0000, 0x10_0000, 0xFFFF_A000_0000)], vcpus=2),
        host.vm(4, 0x4810_0000, 0x7000, []),
    ]
    host.process(91, "vmm", 0x7000, [("operations", each) for each in found])
    return host


def _linux_guest() -> Model:
    host = _linux()
    vcpu = host.vcpu(host.vms[0])
    host.put("kvm_vcpu", vcpu, "cpu", 0, 4)
    host.put("kvm_vcpu", vcpu, "mode", 1, 4)
    host.registers.update(
        HCR_EL2=HCR_GUEST, VTTBR_EL2=3 << 48 | 0x4800_0001, VTCR_EL2=VTCR | 1 << 19, PC=0x9000
    )
    return host


def _with(model: Model, **registers: int) -> Model:
    model.registers.update(FAULT, **registers)
    return model


def _first(model: Model, cpu: int) -> Model:
    """Put a CPU before the others, so that it is the one that is asked."""
    model.cpus.insert(0, model.cpus.pop(cpu))
    return model


MACHINES: dict[str, Callable[[], Model]] = {
    "guest": _in_a_guest,
    "vector": _at_the_vector,
    "host": _in_the_host,
    "pkvm": _protected,
    "vhe": _vhe,
    "linux": _linux,
    "linux-guest": _linux_guest,
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def _stop(make: Callable[[], Model], without: str = "") -> Stop:
    kernel._known.clear()
    kernel._parsed.clear()
    model = make()
    for registers in (model.registers, *model.cpus):
        registers.pop(without, None)
    return model.stop()


# A page of HTML and a document of SARIF are made of what audit, vms and status answer; reg prints what is there.
ASKED = [(c, w) for c, w in questions() if c.name not in ("report", "reg", "snapshot") and "--sarif" not in w]
# Sentences say what is known in words, and counts are of what was looked at.
_WORDS = {
    "reason",
    "summary",
    "syndrome",
    "text",
    "evidence",
    "how",
    "state",
    "problems",
    "assumed",
    "not_judged",
    "owns",
}
_COUNTS = {
    "ranges",
    "mapped",
    "tables",
    "own_size",
    "findings",
    "same",
    "moved",
    "added",
    "removed",
    "changed",
}
# The vCPU's PC that was saved is what is left of a live one that cannot be seen.
_SOURCES = {"pc_from": "saved"}


def _objects(answer: Answer) -> list[Any]:
    try:
        return [json.loads(answer.text)]
    except ValueError:
        return [json.loads(line) for line in answer.text.splitlines()]


def _lies(before: Any, now: Any, path: str = "") -> Iterator[str]:
    """Yield where ``now`` says something that ``before`` does not say."""
    if now is None or now == before or now == "unknown":
        return
    if isinstance(now, dict) and isinstance(before, dict):
        for key in now:
            if key not in _WORDS and not _less_exact(key, before, now):
                yield from _lies(before.get(key), now[key], f"{path}.{key}")
    elif isinstance(now, list) and isinstance(before, list):
        for number, each in enumerate(now):
            if not any(not [*_lies(other, each)] for other in before):
                yield f"{path}[{number}]: {str(each)[:200]}"
    else:
        yield f"{path}: {before} -> {now}"


def _less_exact(key: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether a key says less than it did, and says so."""
    if now.get("ipa_page_only") and key in ("ipa", "ipa_page_only"):
        return True
    if key in _COUNTS and isinstance(now[key], int):
        return bool(now[key] <= before[key])
    return key in _SOURCES and bool(_SOURCES[key] == now[key])


def _size(value: Any) -> int:
    """Return how many values an answer has, but for sentences; null says itself that something is unknown."""
    if isinstance(value, dict):
        return sum(_size(inner) for key, inner in value.items() if key not in _WORDS)
    if isinstance(value, list):
        return sum(map(_size, value))
    return 1


def _sentences(answer: Answer) -> set[str]:
    found = set(answer.warned)
    for each in _objects(answer):
        if isinstance(each, dict):
            found.update(each.get("problems", ()))
    return found


@pytest.mark.parametrize("name", MACHINES)
def test_without_each_register(name: str) -> None:
    make = MACHINES[name]
    whole = [ask(_stop(make), command, words) for command, words in ASKED]
    names = {*make().registers, *(register for own in make().cpus for register in own)}
    for register in sorted(names):
        stop = _stop(make, register)
        for (command, words), before in zip(ASKED, whole, strict=True):
            now = ask(stop, command, words)
            asked = f"{command.name} {' '.join(words)} without {register}"
            if now.error is not None or before.error is not None:
                continue
            # A trap whose feature may be there is a finding.
            if command.name == "audit" and register.startswith("ID_"):
                continue
            if "so the EL1&0 regime was taken" in now.text + " ".join(now.warned):
                continue
            one, other = _objects(before), _objects(now)
            assert [*_lies(one, other)] == [], asked
            if command.name in ("find", "audit", "vms") and _size(other) < _size(one):
                assert _sentences(now) - _sentences(before), f"{asked}: less is known, and nothing says why"


def test_the_comparison_sees_a_lie() -> None:
    assert [*_lies({"pa": "0x1", "n": [1, 2]}, {"pa": "0x2", "n": [2]})] == [".pa: 0x1 -> 0x2"]
    assert [*_lies([{"a": 1}], [{"a": None}])] == []
    assert [*_lies([{"a": 1}], [{"a": 0}])] == ["[0]: {'a': 0}"]


@pytest.mark.parametrize(("register", "says"), [("VBAR_EL2", "VBAR_EL2"), ("SCTLR_EL2", "SCTLR_EL2")])
def test_a_missing_register_is_not_zero(register: str, says: str) -> None:
    found = identify(_stop(_in_a_guest, register))
    assert found.name == "unknown"
    assert found.evidence == (f"the vectors cannot be found: the target does not show {says}",)


def test_a_control_that_nobody_shows_is_null() -> None:
    (first, _) = find_vms(_stop(_in_a_guest, "VTCR_EL2")).vms
    assert (first.vmid, first.vtcr, first.ipa_bits) == (1, None, None)


@pytest.mark.parametrize("register", ["ID_AA64MMFR1_EL1", "ID_AA64MMFR0_EL1", "HCRX_EL2"])
def test_e2h_means_what_it_says_without_id_registers(register: str) -> None:
    """HCR_EL2.E2H is RES0 without FEAT_VHE: where it is set, the feature is there."""
    stop = _stop(_vhe, register)
    assert regime_of(stop) is Regime.EL20
    assert walk(stop, WalkQuestion(LINEAR + TEXT)).output == TEXT


def _named(names: Sequence[str]) -> Callable[[Model], None]:
    def remove(model: Model) -> None:
        for registers in (model.registers, *model.cpus):
            for name in names:
                registers.pop(name, None)

    return remove


FEATURES = tuple(f"ID_AA64MMFR{number}_EL1" for number in range(4))
SAID = "so every feature was taken to be there"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        *(
            (make, words)
            for make in (_in_a_guest, _vhe)
            for words in ("walk 0xffff000042000000", "map", "status")
        ),
        (_in_a_guest, "at S12E1R 0x42000000"),
        (_in_a_guest, "x/x 0x80000000 --ipa"),
        (_in_the_host, "find 0x46000000"),
    ],
)
def test_assumed_features_are_said_once(make: Callable[[], Model], words: str) -> None:
    """Without ID registers every answer that depends on them says so; with them, none has anything to say."""
    name, *arguments = words.replace("/", " /").split()
    command = next(command for command in COMMANDS if command.name == name)
    shown = make()
    shown.fill(0x4400_0000, 0x4401_0000)
    answer = ask(shown.stop(), command, tuple(arguments))
    assert "does not show" not in answer.text + " ".join(answer.warned)
    bare = make()
    bare.fill(0x4400_0000, 0x4401_0000)
    _named(FEATURES)(bare)
    answer = ask(bare.stop(), command, tuple(arguments))
    assert (answer.text + " ".join(answer.warned)).count(SAID) == 1


def test_a_register_that_does_not_matter_is_not_named() -> None:
    """What ID_AA64MMFR3_EL1 tells of is off by its control bits."""
    assert walk(_stop(_in_a_guest, "ID_AA64MMFR3_EL1"), WalkQuestion(0x4200_0000)).assumed is None


def test_force_write_back_as_kvm_sets_it_is_said() -> None:
    """The VM is in no CPU and has no vCPU that was found: what its memory types mean was assumed."""

    def host() -> Model:
        model = _in_the_host()
        _named(FEATURES)(model)
        return model

    stop = host().stop()
    (vm, *_) = find_vms(stop).vms
    for cpu in stop.cpus():
        cpu.machine.registers["HCR_EL2"] = HCR_HOST  # type: ignore[index]
    trees = [*_assumptions(stop.cpus(), stop, (), [vm], Identity("kvm-nvhe", ()))]
    assert trees == [
        "VM 0: HCR_EL2.FWB was taken to be 1, as KVM sets it where it is there: what the memory types of stage 2 "
        "mean depends on it"
    ]


def test_a_shown_id_register_is_believed() -> None:
    def without_vhe() -> Model:
        model = _vhe()
        model.registers["ID_AA64MMFR1_EL1"] = 0
        return model

    assert regime_of(_stop(without_vhe)) is Regime.EL2


def test_protection_is_not_denied_without_the_root() -> None:
    """Stage 2 is on under the host, and whose it is cannot be seen."""

    def host() -> Model:
        found = linuxhost.LinuxHost()
        found.registers.update(HCR_EL2=1 << 31 | 1)
        return found

    evidence = identify(_stop(host, "VTTBR_EL2")).evidence
    assert not any("stage 2 off" in sentence for sentence in evidence)
