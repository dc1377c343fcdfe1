"""Each rule on a machine that breaks it and on one that does not; evidence is checked against the tables themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unit.machines import (
    DATA,
    DEVICE,
    DEVICE_ATTR,
    HCR_GUEST,
    HOST_DATA,
    HOST_TABLES,
    HYP,
    HYP_DATA,
    HYP_TEXT,
    IPA,
    ISH,
    LINEAR,
    NG,
    PAGE,
    PAGES,
    RO,
    S2_DEVICE,
    S2_NORMAL,
    S2_READ_ONLY,
    TEXT,
    USER,
    VM_MEMORY,
    XN,
    Hvhe,
    Model,
    Nvhe,
    Protected,
    Vhe,
)
from unit.pagetables import AF, CONTIGUOUS

from gdbhyp.analyses.audit.findings import SEVERITIES, Finding
from gdbhyp.analyses.audit.ignore import read_ignore_file
from gdbhyp.analyses.audit.run import RULES, AuditReport, audit
from gdbhyp.cli.main import main
from gdbhyp.errors import BadInput, UsageError
from gdbhyp.render import json as as_json
from gdbhyp.render.output import text_lines
from gdbhyp.render.style import Style

NON_CACHEABLE = 7 << 2
SHARED_BY_HOST = 2 << 55


def judged(model: Model, rule: str) -> list[Finding]:
    """Return what a rule finds; it has to be one that is judged on this machine."""
    report = audit(model.stop(), rules=[rule])
    assert not report.rules[0].not_judged, report.rules[0].not_judged
    return list(report.findings)


def extents(finding: Finding) -> list[tuple[int, int]]:
    return [(extent.start, extent.end) for extent in finding.ranges]


def test_a_correct_machine_has_no_finding() -> None:
    for model in (Nvhe(), Vhe()):
        report = audit(model.stop())
        assert [finding.message for finding in report.findings] == []
        assert not report.problems
    report = audit(Protected().stop())
    assert {finding.rule for finding in report.findings} == {"host-reaches-guest"}


# The rule, a correct machine, what breaks it, and the findings: severity and physical ranges.
Broken = tuple[str, Callable[[], Any], Callable[[Any], object], list[tuple[str, list[tuple[int, int]]]]]


def page(address: int, count: int = 1) -> list[tuple[int, int]]:
    return [(address, address + count * PAGE)]


def leaf(model: Any) -> int:
    """The address of VM 0's last-level table."""
    return int(model.vms[0].slot(IPA, 3)) & ~(PAGE - 1)


def no_memory_for(model: Any, start: int, end: int) -> None:
    model.ram = ((0x4000_0000, start), (end, 0x5000_0000))


def tables_at(model: Any, name: str, value: int) -> None:
    for registers in (model.registers, *model.cpus):
        if name in registers or registers is model.registers:
            registers[name] = registers.get(name, 0) | value


BROKEN: list[Broken] = [
    (
        "vm-shared-memory",
        Nvhe,
        lambda m: m.vms[0].map(IPA + 0x10_0000, VM_MEMORY[1] + PAGE, 3, S2_READ_ONLY),
        [("high", page(VM_MEMORY[1] + PAGE))],
    ),
    (
        "vm-shared-memory",
        Nvhe,
        lambda m: [vm.map(IPA + 0x10_0000, 0x4600_0000, 3, S2_READ_ONLY) for vm in m.vms],
        [("low", page(0x4600_0000))],
    ),
    (
        "vm-reaches-hypervisor",
        Nvhe,
        lambda m: m.vms[1].map(IPA + 0x10_0000, DATA, 3, S2_NORMAL),
        [("critical", page(DATA))],
    ),
    (
        "vm-reaches-hypervisor",
        Vhe,
        lambda m: m.vm.map(IPA + 0x10_0000, TEXT, 3, S2_READ_ONLY),
        [("high", page(TEXT))],
    ),
    (
        "vm-reaches-tables",
        Nvhe,
        lambda m: m.vms[1].map(IPA + 0x10_0000, leaf(m), 3, S2_NORMAL),
        [("critical", page(leaf(Nvhe())))],
    ),
    (
        "vm-reaches-tables",
        Nvhe,
        lambda m: m.vms[0].map(IPA + 0x10_0000, m.host.root, 3, S2_READ_ONLY),
        [("high", page(HOST_TABLES))],
    ),
    (
        "host-reaches-hypervisor",
        Protected,
        lambda m: m.host_stage2.map(DATA + PAGE, DATA + PAGE, 3, S2_NORMAL),
        [("critical", page(DATA + PAGE))],
    ),
    (
        "host-reaches-guest",
        lambda: Protected(),
        lambda m: None,
        [("note", page(VM_MEMORY[0], 16)), ("note", page(VM_MEMORY[1], 16))],
    ),
    (
        "host-reaches-guest",
        lambda: Protected(protected=True),
        lambda m: None,
        [("critical", page(VM_MEMORY[0], 16)), ("critical", page(VM_MEMORY[1], 16))],
    ),
    (
        "hyp-translation-off",
        Nvhe,
        lambda m: m.cpus[1].update(SCTLR_EL2=0x30C5_0830),
        [("medium", [])],
    ),
    (
        "hyp-writable-executable",
        Nvhe,
        lambda m: m.hyp.map(HYP + DATA, DATA, 3, HYP_DATA & ~XN),
        [("high", page(DATA))],
    ),
    (
        "hyp-text-writable",
        Nvhe,
        lambda m: m.hyp.map(HYP + 0x6000_0000, TEXT + PAGE, 3, HYP_DATA),
        [("high", page(TEXT + PAGE))],
    ),
    (
        "hyp-text-writable",
        Nvhe,
        lambda m: [m.hyp.map((2 << 40) + at, at, 2, HYP_DATA) for at in range(TEXT, 0x5000_0000, 0x20_0000)],
        [("low", page(TEXT, 16))],
    ),
    (
        "hyp-user-accessible",
        Vhe,
        lambda m: m.kernel.map(LINEAR + TEXT, TEXT, 3, HOST_DATA | USER),
        [("critical", page(TEXT))],
    ),
    (
        "hyp-executes-user-pages",
        Vhe,
        lambda m: m.process.map(0x40_0000, VM_MEMORY[0], 3, AF | ISH | XN | USER | RO | NG),
        [("high", page(VM_MEMORY[0]))],
    ),
    (
        "device-executable",
        Nvhe,
        lambda m: m.hyp.map(HYP + DEVICE, DEVICE, 3, AF | DEVICE_ATTR),
        [("medium", page(DEVICE))],
    ),
    (
        "device-cacheable",
        Nvhe,
        lambda m: m.hyp.map(HYP + DEVICE, DEVICE, 3, HYP_DATA),
        [("medium", page(DEVICE))],
    ),
    (
        "alias-memory-type",
        Nvhe,
        lambda m: m.hyp.map(HYP + DATA, DATA, 3, AF | XN | DEVICE_ATTR),
        [("medium", page(DATA))],
    ),
    (
        "alias-memory-type",
        Nvhe,
        lambda m: m.hyp.map(HYP + DATA, DATA, 3, HYP_DATA | NON_CACHEABLE),
        [("low", page(DATA))],
    ),
    (
        "alias-shareability",
        Nvhe,
        lambda m: m.hyp.map(HYP + DATA, DATA, 3, HYP_DATA & ~ISH),
        [("low", page(DATA))],
    ),
    (
        "alias-stage2-type",
        Nvhe,
        lambda m: m.vms[0].map(IPA, VM_MEMORY[0], 3, S2_DEVICE),
        [("medium", page(VM_MEMORY[0]))],
    ),
    (
        "global-user-pages",
        Vhe,
        lambda m: m.process.map(0x40_0000, VM_MEMORY[0], 3, HOST_DATA | USER),
        [("medium", [])],
    ),
    ("hyp-access-flag", Nvhe, lambda m: m.hyp.map(HYP + DATA, DATA, 3, HYP_DATA & ~AF), [("low", [])]),
    (
        "hyp-execute-never",
        Hvhe,
        lambda m: m.hyp.map(HYP + DATA, DATA, 3, HYP_DATA | RO),
        [("medium", [])],
    ),
    ("dirty-bit", Nvhe, lambda m: m.vms[0].map(IPA, VM_MEMORY[0], 3, S2_NORMAL | 1 << 51), [("low", [])]),
    ("dirty-bit", Nvhe, lambda m: m.hyp.map(HYP + DATA, DATA, 3, HYP_DATA | 1 << 51), [("low", [])]),
    (
        "reserved-descriptor",
        Nvhe,
        lambda m: m.vms[0].put(m.vms[0].slot(IPA, 3), VM_MEMORY[0] | S2_NORMAL | 1),
        [("low", [])],
    ),
    (
        "reserved-descriptor",
        Nvhe,
        lambda m: m.vms[0].put(m.vms[0].slot(IPA, 3), VM_MEMORY[0] | S2_NORMAL | 1 << 45 | 3),
        [("low", [])],
    ),
    (
        "reserved-attribute",
        Nvhe,
        lambda m: m.hyp.map(HYP + DATA, DATA, 3, HYP_DATA & ~ISH | 1 << 8),
        [("medium", page(DATA))],
    ),
    (
        "contiguous-not-uniform",
        Nvhe,
        lambda m: [
            m.vms[0].map(IPA + at * PAGE, VM_MEMORY[0] + at * PAGE, 3, S2_NORMAL | CONTIGUOUS)
            for at in range(15)
        ],
        [("medium", page(VM_MEMORY[0], 15))],
    ),
    (
        "table-outside-memory",
        Nvhe,
        lambda m: no_memory_for(m, leaf(m), leaf(m) + PAGE),
        [("medium", page(leaf(Nvhe())))],
    ),
    (
        "table-two-levels",
        Nvhe,
        lambda m: m.hyp.put(m.hyp.slot(0xFF << 39, 0), m.hyp.root | 3),
        [("low", page(Nvhe().hyp.root))],
    ),
    (
        "table-shared",
        Nvhe,
        lambda m: m.vms[1].put(m.vms[1].slot(IPA, 2), leaf(m) | 3),
        [("high", page(leaf(Nvhe())))],
    ),
    (
        "walk-cacheability",
        Nvhe,
        lambda m: [
            m.registers.update(VTCR_EL2=m.registers["VTCR_EL2"] & ~0xF00),
            m.hyp.map(HYP + 0x7000_0000, m.vms[0].root, 3, HYP_DATA),
            m.host.put(m.host.slot(LINEAR + 0x4000_0000, 1), 0),
        ],
        [("medium", page(Nvhe().vms[0].root))],
    ),
    (
        "walk-cacheability",
        Vhe,
        lambda m: m.registers.update(TCR_EL2=m.registers["TCR_EL2"] & ~(3 << 24)),
        [("medium", page(Vhe().kernel.root, 4))],
    ),
    ("vmid-reused", Nvhe, lambda m: m.cpus.__setitem__(1, m.guest_cpu(1, vmid=1)), [("high", [])]),
    (
        "cnp-different-roots",
        Nvhe,
        lambda m: [m.cpus[0].update(TTBR0_EL2=m.hyp.root | 1), m.cpus[1].update(TTBR0_EL2=m.host.root | 1)],
        [("high", [])],
    ),
    (
        "trap-hole",
        Nvhe,
        lambda m: m.cpus[1].update(HCR_EL2=HCR_GUEST & ~(1 << 19)),
        [("high", [])],
    ),
    (
        "stage2-misprogrammed",
        Nvhe,
        lambda m: m.registers.update(VTCR_EL2=m.registers["VTCR_EL2"] & ~0x3F | 39),
        [("high", []), ("high", [])],
    ),
    (
        "el2-control",
        Nvhe,
        lambda m: m.cpus[0].update(SCTLR_EL2=m.registers["SCTLR_EL2"] & ~4),
        [("low", [])],
    ),
    ("erratum", Nvhe, lambda m: m.registers.update(MIDR_EL1=0x411F_D070), [("note", [])] * 3),
    (
        "erratum",
        Nvhe,
        lambda m: m.registers.update(MIDR_EL1=0xC00F_AC30, VTCR_EL2=m.registers["VTCR_EL2"] | 1 << 21),
        [("medium", [])],
    ),
]


@pytest.mark.parametrize(
    ("rule", "correct", "damage", "expected"), BROKEN, ids=[broken[0] for broken in BROKEN]
)
def test_rule(
    rule: str,
    correct: Callable[[], Model],
    damage: Callable[[Model], object],
    expected: list[tuple[str, list[tuple[int, int]]]],
) -> None:
    if rule not in ("erratum", "host-reaches-guest"):
        assert judged(correct(), rule) == []
    model = correct()
    damage(model)
    found = judged(model, rule)
    assert [(finding.severity, extents(finding)) for finding in found] == expected
    for finding in found:
        assert finding.rule == rule
        assert finding.size == sum(end - start for start, end in extents(finding))
        assert finding.evidence or rule == "stage2-misprogrammed"
        for item in finding.evidence:
            if item.descriptor_space == "PA" and item.descriptor_address is not None:
                assert model.memory.word(item.descriptor_address) == item.descriptor
            if item.register is not None and item.cpu is not None:
                assert (model.registers | model.cpus[item.cpu])[item.register] == item.value


def test_every_rule_is_broken_once() -> None:
    assert {rule for rule, _, _, _ in BROKEN} == {rule.name for rule in RULES}
    assert len({rule.name for rule in RULES}) == len(RULES)


def test_a_finding_is_no_worse_than_its_rule() -> None:
    worst = {rule.name: SEVERITIES.index(rule.severity) for rule in RULES}
    for rule, _, _, expected in BROKEN:
        for severity, _ in expected:
            assert SEVERITIES.index(severity) >= worst[rule]
    assert all(
        any(SEVERITIES.index(s) == worst[rule.name] for r, _, _, e in BROKEN if r == rule.name for s, _ in e)
        for rule in RULES
    )


# What looks wrong and is not.


def test_a_device_that_two_vms_have_is_not_shared_memory() -> None:
    model = Nvhe()
    for vm in model.vms:
        vm.map(IPA + 0x10_0000, DEVICE, 3, S2_DEVICE)
    assert judged(model, "vm-shared-memory") == []


def test_a_direct_map_owns_nothing() -> None:
    """A hypervisor that maps all memory, as Xen does, says nothing by that about a VM's memory."""
    model = Nvhe()
    for at in range(TEXT, 0x5000_0000, 0x20_0000):
        model.hyp.map((2 << 40) + at, at, 2, HYP_DATA)
    assert judged(model, "vm-reaches-hypervisor") == []
    model.vms[0].map(IPA + 0x10_0000, DATA, 3, S2_NORMAL)
    (finding,) = judged(model, "vm-reaches-hypervisor")
    assert extents(finding) == page(DATA)


def test_pages_that_pkvm_marks_as_shared_are_the_hosts_too() -> None:
    model = Protected()
    model.hyp.map(HYP + DATA, DATA, 3, HYP_DATA | SHARED_BY_HOST)
    model.host_stage2.map(DATA, DATA, 3, S2_NORMAL)
    assert judged(model, "host-reaches-hypervisor") == []


def test_a_vm_that_is_not_protected_is_the_hosts_too() -> None:
    assert judged(Protected(protected=False), "host-reaches-guest") == []


def test_write_execute_never_counts() -> None:
    model = Nvhe()
    model.hyp.map(HYP + DATA, DATA, 3, HYP_DATA & ~XN)
    model.registers["SCTLR_EL2"] |= 1 << 19
    assert judged(model, "hyp-writable-executable") == []


def test_el0_rights_count_only_where_el0_is() -> None:
    """hVHE: E2H = 1 and TGE = 0 everywhere, so that EL0 is in the EL1&0 regime."""
    model = Vhe()
    model.kernel.map(LINEAR + TEXT, TEXT, 3, HOST_DATA | USER)
    model.cpus = [registers | {"HCR_EL2": HCR_GUEST | 1 << 34} for registers in model.cpus]
    report = audit(model.stop(), rules=["hyp-user-accessible"])
    assert "EL0 does not run" in report.rules[0].not_judged


def test_a_whole_contiguous_run_is_right() -> None:
    model = Nvhe()
    for at in range(16):
        model.vms[0].map(IPA + at * PAGE, VM_MEMORY[0] + at * PAGE, 3, S2_NORMAL | CONTIGUOUS)
    assert judged(model, "contiguous-not-uniform") == []


def test_registers_between_two_worlds_are_not_a_guests() -> None:
    """EL2 has a guest's stage 2 loaded while it invalidates the TLB, with HCR_EL2 still the host's."""
    model = Nvhe()
    model.cpus = [model.cpus[0] | {"HCR_EL2": 1 | 1 << 31, "CPSR": 9, "PC": HYP + TEXT + 0x40}]
    report = audit(model.stop(), rules=["trap-hole"])
    assert report.rules[0].not_judged == "no CPU runs a guest"


def test_what_hardware_does_is_not_odd() -> None:
    model = Nvhe()
    model.vms[0].map(IPA, VM_MEMORY[0], 3, S2_NORMAL | 1 << 51)
    model.registers["VTCR_EL2"] |= 3 << 21
    assert judged(model, "dirty-bit") == []


def test_processes_have_global_pages_only_if_el0_may_use_them() -> None:
    model = Vhe()
    model.process.map(0x40_0000, VM_MEMORY[0], 3, HOST_DATA)
    assert judged(model, "global-user-pages") == []


def test_an_asid_tells_tables_apart() -> None:
    model = Vhe()
    model.cpus[0]["TTBR0_EL2"] = model.process.root | 1 | 5 << 48
    model.cpus.append(model.cpus[0] | {"TTBR0_EL2": model.kernel.root | 1 | 6 << 48})
    assert judged(model, "cnp-different-roots") == []
    model.cpus[2]["TTBR0_EL2"] = model.kernel.root | 1 | 5 << 48
    (finding,) = judged(model, "cnp-different-roots")
    assert "the same ASID" in finding.message


def test_an_erratum_needs_its_revision() -> None:
    model = Nvhe()
    model.registers["MIDR_EL1"] = 0x414F_D0B1
    assert judged(model, "erratum") == []
    model.registers["MIDR_EL1"] = 0x413F_D0B0
    assert [finding.message for finding in judged(model, "erratum")] == [
        "Cortex-A76 r3p0 has erratum 1286807: TLB invalidation may complete before the translations are out of use: "
        "it must be done twice"
    ]


@pytest.mark.parametrize(
    ("rule", "midr", "missing", "says"),
    [
        ("erratum", 0x413F_D0B0, ["MIDR_EL1"], ""),
        ("erratum", 0x411F_D050, ["TCR_EL1"], "TCR_EL1 of CPU 0, 1, 2"),
        ("erratum", 0x411F_D050, ["TCR_EL2"], "TCR_EL2 of CPU 0, 1, 2"),
        ("erratum", 0x411F_D050, ["HCR_EL2"], "HCR_EL2 of CPU 0, 1, 2"),
        ("erratum", 0xC00F_AC30, ["VTCR_EL2"], "VTCR_EL2 of CPU 0, 1, 2"),
        ("trap-hole", 0, ["CPTR_EL2", "MDCR_EL2"], "CPTR_EL2 of CPU 0, 1 and MDCR_EL2 of CPU 0, 1"),
        ("trap-hole", 0, ["VTTBR_EL2"], "VTTBR_EL2 of CPU 0, 1, 2"),
        ("el2-control", 0, ["SCTLR_EL2"], "SCTLR_EL2 of CPU 0, 1, 2"),
        ("hyp-translation-off", 0, ["SCTLR_EL2"], "SCTLR_EL2 of CPU 0, 1, 2"),
    ],
)
def test_a_rule_says_what_it_could_not_judge_by(rule: str, midr: int, missing: list[str], says: str) -> None:
    model = Nvhe()
    model.registers["MIDR_EL1"] = midr
    assert audit(model.stop(), rules=[rule]).rules[0].not_judged == ""
    for registers in (model.registers, *model.cpus):
        for name in missing:
            registers.pop(name, None)
    assert audit(model.stop(), rules=[rule]).rules[0].not_judged == (
        f"not judged to the end: the target does not show {says}"
        if says
        else "the target does not show MIDR_EL1"
    )


def test_one_cpu_that_hides_its_identity_leaves_the_others_judged() -> None:
    model = Nvhe()
    model.cpus[1]["MIDR_EL1"] = 0x413F_D0B0
    report = audit(model.stop(), rules=["erratum"])
    assert [finding.severity for finding in report.findings] == ["note"]
    assert (
        report.rules[0].not_judged == "not judged to the end: the target does not show MIDR_EL1 of CPU 0, 2"
    )


def test_a_trap_of_what_may_not_be_there() -> None:
    """Without its ID register the activity monitors may be there: the finding stays and says so."""
    model = Nvhe()
    del model.registers["ID_AA64PFR0_EL1"]
    found = [
        finding for finding in audit(model.stop(), rules=["trap-hole"]).findings if "TAM" in finding.message
    ]
    assert (
        found[0].explanation == "right where the processor lacks what it traps: ID_AA64PFR0_EL1 is not shown"
    )


def test_data_that_wxn_or_uxn_throughout_covers_is_right() -> None:
    """hVHE: what is written does not execute with WXN; text that has UXN = 1 shows that UXN is not taken for PXN."""
    model = Hvhe()
    model.hyp.map(HYP + DATA, DATA, 3, HYP_DATA)
    model.registers["SCTLR_EL2"] |= 1 << 19
    assert judged(model, "hyp-execute-never") == []
    model.hyp.map(HYP + DATA, DATA, 3, HYP_DATA | RO)
    assert judged(model, "hyp-execute-never")
    for at in range(PAGES):
        model.hyp.map(HYP + TEXT + at * PAGE, TEXT + at * PAGE, 3, HYP_TEXT | XN)
    assert judged(model, "hyp-execute-never") == []


def test_nothing_is_judged_without_registers() -> None:
    report = audit(Model(registers={}, cpus=[{}]).stop())
    assert report.problems
    assert {rule.name for rule in report.rules if not rule.not_judged} <= {
        "hyp-translation-off",
        "device-executable",
        "device-cacheable",
        "alias-memory-type",
        "alias-shareability",
        "global-user-pages",
        "hyp-access-flag",
        "hyp-execute-never",
        "dirty-bit",
        "reserved-descriptor",
        "reserved-attribute",
        "contiguous-not-uniform",
        "table-outside-memory",
        "table-two-levels",
        "table-shared",
        "walk-cacheability",
        "vmid-reused",
        "el2-control",
    }


def test_a_part_of_memory_does_not_say_where_there_is_none() -> None:
    model = Nvhe()
    model.ram = ((0x4010_0000, 0x4900_0000),)
    model.vms[0].map(IPA + 0x10_0000, DATA, 3, S2_NORMAL)
    report = audit(model.stop())
    assert [finding.rule for finding in report.findings] == ["vm-reaches-hypervisor"]
    assert "device-cacheable" in {rule.name for rule in report.rules if rule.not_judged}


# The report.


def shared() -> Nvhe:
    model = Nvhe()
    model.vms[0].map(IPA + 0x10_0000, VM_MEMORY[1] + PAGE, 3, S2_READ_ONLY)
    return model


def test_text_shows_the_evidence() -> None:
    report = audit(shared().stop(), verbose=True)
    text = "\n".join(text_lines(report, Style()))
    assert "1 finding: 1 high" in text
    assert (
        "high vm-shared-memory: VM 0 and VM 1 reach the same memory; at least one of them may write to it"
        in text
    )
    assert "4 KiB: PA 0x45001000 to 0x45002000" in text
    assert (
        "VM 0 stage 2: IPA 0x80100000 is PA 0x45001000, r-x/r-x, Normal Write-Back; descriptor 0x4500177f at PA "
        in text
    )
    assert "not judged: host-reaches-hypervisor: there is no host behind a stage 2 of its own (pKVM)" in text


def test_json_is_one_object() -> None:
    (line,) = as_json.lines(audit(shared().stop()))
    answer = json.loads(line)
    (finding,) = answer["findings"]
    assert finding["ranges"] == [{"start": "0x45001000", "end": "0x45002000"}]
    assert finding["vms"] == [0, 1]
    assert finding["evidence"][0]["descriptor_address"].startswith("0x")


def sarif(report: AuditReport) -> Any:
    from dataclasses import replace

    return json.loads("\n".join(text_lines(replace(report, sarif=True), Style())))


def test_sarif_names_rules_places_and_what_is_known(tmp_path: Path) -> None:
    path = tmp_path / "known"
    path.write_text("vm-shared-memory 0x45001000-0x45002000 # the doorbell page\n")
    document = sarif(audit(shared().stop(), known=read_ignore_file(str(path))))
    assert document["version"] == "2.1.0"
    (run,) = document["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    (result,) = run["results"]
    assert result["ruleId"] in rules
    assert result["level"] == "error"
    assert result["suppressions"][0]["justification"] == "the doorbell page"
    place = result["locations"][0]["physicalLocation"]
    assert place["address"] == {"absoluteAddress": 0x4500_1000, "length": PAGE, "kind": "physical"}
    assert place["artifactLocation"]["uri"] == "a%20test"


def test_a_known_finding_is_ignored_with_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "known"
    path.write_text(
        "# what we know\n\nvm-shared-memory 0x45001000-0x45002000 # the doorbell page\n"
        'trap-hole "TACR" # harmless here\n'
    )
    report = audit(shared().stop(), known=read_ignore_file(str(path)), fail_on="note")
    assert (report.findings, report.exit_status) == ((), 0)
    assert [(item.finding.rule, item.reason) for item in report.ignored] == [
        ("vm-shared-memory", "the doorbell page")
    ]
    assert report.problems == ('line 4 of the ignore file matches nothing: trap-hole "TACR" # harmless here',)


@pytest.mark.parametrize(
    "line",
    ["vm-shared-memory 0x45001800-0x45002000 # too small", 'vm-shared-memory "VM 7" # another', "x # other"],
)
def test_another_finding_is_not_ignored(line: str, tmp_path: Path) -> None:
    path = tmp_path / "known"
    path.write_text(line + "\n")
    assert len(audit(shared().stop(), known=read_ignore_file(str(path))).findings) == 1


@pytest.mark.parametrize(
    "line", ["vm-shared-memory", "vm-shared-memory #", "vm-shared-memory 0x1 # half a range"]
)
def test_a_line_without_a_reason_is_refused(line: str, tmp_path: Path) -> None:
    path = tmp_path / "known"
    path.write_text("# a comment\n" + line + "\n")
    with pytest.raises(BadInput, match="line 2"):
        read_ignore_file(str(path))


def test_the_exit_status_is_for_scripts() -> None:
    assert audit(shared().stop()).exit_status == 0
    assert audit(shared().stop(), fail_on="critical").exit_status == 0
    assert audit(shared().stop(), fail_on="medium").exit_status == 1


def test_a_rule_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="vm-shared-memory"):
        audit(shared().stop(), rules=["vm-shared"])


def write_flat(model: Nvhe, path: Path) -> list[str]:
    """Write a machine's memory and first CPU as files, and return the arguments that open them."""
    start, end = min(model.memory.pages) << 12, 0x4900_0000
    image = bytearray(end - start)
    for number, data in model.memory.pages.items():
        image[(number << 12) - start : (number + 1 << 12) - start] = data
    (path / "ram").write_bytes(image)
    registers = model.registers | model.cpus[0]
    (path / "registers").write_text(json.dumps({name: hex(value) for name, value in registers.items()}))
    return [f"{path / 'ram'}@{start:#x}", "--registers", str(path / "registers")]


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = Nvhe()
    model.vms[0].map(IPA + 0x10_0000, DATA, 3, S2_NORMAL)
    arguments = ["audit", *write_flat(model, tmp_path), "--rule", "vm-reaches-hypervisor"]
    assert main([*arguments, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [finding["severity"] for finding in answer["findings"]] == ["critical"]
    assert main([*arguments, "--fail-on", "high"]) == 1
    assert "critical vm-reaches-hypervisor" in capsys.readouterr().out
    assert main([*arguments, "--sarif"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][0]["results"]
    assert (
        main(["audit", *write_flat(Nvhe(), tmp_path), "--rule", "vm-reaches-hypervisor", "--fail-on", "note"])
        == 0
    )


def test_rules_are_listed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["audit", *write_flat(Nvhe(), tmp_path), "--list"]) == 0
    out = capsys.readouterr().out
    assert all(f"{rule.name} ({rule.severity}): {rule.title}" in out for rule in RULES)


def test_text_is_read_only() -> None:
    """The audit of a machine with text mapped for EL2 alone reads and never writes."""
    model = Nvhe()
    before = {number: bytes(data) for number, data in model.memory.pages.items()}
    model.hyp.map(HYP + TEXT, TEXT, 3, HYP_TEXT)
    audit(model.stop())
    assert {number: bytes(data) for number, data in model.memory.pages.items()} == before
