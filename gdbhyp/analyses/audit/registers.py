"""Rules about what a guest may do to the processor itself: registers of EL2 against a baseline.

The baseline is data. It is what keeps a guest that is written with ill intent inside: what KVM and Xen set for every
guest, less what only decides about features and speed. It is compared on each CPU that runs a guest,
or has just left one: inside EL2 the registers may be between two worlds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gdbhyp.analyses.audit.findings import Finding, Rule, Severity, about_registers
from gdbhyp.analyses.audit.world import World, register_evidence, say_unknown
from gdbhyp.arch.fields import Bits
from gdbhyp.arch.registers import layout_of
from gdbhyp.arch.worlds import Hcr
from gdbhyp.engine.stop import Stop


@dataclass(frozen=True)
class Feature:
    """What an ID register tells by a field that is not ``absent``."""

    register: str
    field: Bits
    absent: int = 0

    def is_denied(self, cpu: Stop) -> bool:
        """Return whether the ID register says that it is not there; one that is not shown says nothing against it."""
        value = cpu.optional(self.register)
        return value is not None and self.field(value) == self.absent


@dataclass(frozen=True)
class Expected:
    """A field of a register that has to have ``value`` while a guest runs, and why.

    ``feature`` is what the field is about, None where every processor has it.
    """

    register: str
    field: str
    value: int
    severity: Severity
    why: str
    feature: Feature | None = None

    def explanation(self, cpu: Stop) -> str:
        """Return what would make it right to have another value."""
        if self.feature is None or cpu.optional(self.feature.register) is not None:
            return ""
        return f"right where the processor lacks what it traps: {self.feature.register} is not shown"


_EL3 = Feature("ID_AA64PFR0_EL1", Bits(15, 12))
_TRACE = Feature("ID_AA64DFR0_EL1", Bits(7, 4))
_PMU = Feature("ID_AA64DFR0_EL1", Bits(11, 8))
_SPE = Feature("ID_AA64DFR0_EL1", Bits(35, 32))
_TRF = Feature("ID_AA64DFR0_EL1", Bits(43, 40))
_AMU = Feature("ID_AA64PFR0_EL1", Bits(47, 44))

BASELINE = (
    Expected(
        "HCR_EL2", "IMO", 1, "high", "physical IRQs interrupt the guest, which may keep them from the host"
    ),
    Expected(
        "HCR_EL2", "FMO", 1, "high", "physical FIQs interrupt the guest, which may keep them from the host"
    ),
    Expected("HCR_EL2", "AMO", 1, "medium", "physical SErrors go to the guest, not to EL2"),
    Expected(
        "HCR_EL2", "TSC", 1, "high", "the guest's SMC goes to the firmware at EL3, past the hypervisor", _EL3
    ),
    Expected(
        "HCR_EL2", "TACR", 1, "medium", "the guest writes the Auxiliary Control Registers of the processor"
    ),
    Expected(
        "HCR_EL2", "TIDCP", 1, "medium", "the guest uses IMPLEMENTATION DEFINED registers and instructions"
    ),
    Expected(
        "HCR_EL2",
        "TSW",
        1,
        "low",
        "the guest cleans and invalidates caches by set and way, others' lines too",
    ),
    Expected("HCR_EL2", "DC", 0, "medium", "the guest's stage 1 is taken for off, whatever it sets"),
    Expected(
        "HCR_EL2",
        "CD",
        0,
        "low",
        "the guest's data accesses are Non-cacheable beside cacheable ones of the host",
    ),
    Expected("CPTR_EL2", "TTA", 1, "medium", "the guest uses the registers of the trace unit", _TRACE),
    Expected(
        "CPTR_EL2", "TAM", 1, "low", "the guest reads the activity monitors, which count for everybody", _AMU
    ),
    Expected("MDCR_EL2", "TDRA", 1, "low", "the guest reads where the debug components are"),
    Expected(
        "MDCR_EL2", "TDOSA", 1, "medium", "the guest uses the OS lock and power control of the debug logic"
    ),
    Expected(
        "MDCR_EL2", "TPM", 1, "low", "the guest uses the performance monitors, which the host shares", _PMU
    ),
    Expected(
        "MDCR_EL2", "TPMS", 1, "medium", "the guest controls statistical profiling, which writes memory", _SPE
    ),
    Expected("MDCR_EL2", "TTRF", 1, "low", "the guest controls the trace filter", _TRF),
)


def _field(register: str, name: str, value: int, e2h: bool) -> tuple[str, int] | None:
    """Return a field's bits in words and its value, None where the layout has no such field."""
    for field in layout_of(register, value, e2h=e2h).fields:
        if field.name == name:
            bits = f"[{field.msb}]" if field.msb == field.lsb else f"[{field.msb}:{field.lsb}]"
            return bits, field.of(value)
    return None


_WHO_RUNS = ("HCR_EL2", "VTTBR_EL2")


def trap_hole(world: World) -> Iterator[Finding]:
    """A field that is not as the baseline has it, on a CPU that runs a guest."""
    missing = world.not_shown(*_WHO_RUNS)
    for cpu, vttbr in world.guests():
        e2h = Hcr(cpu.optional("HCR_EL2") or 0).e2h
        vm = world.vm_of(vttbr)
        for item in BASELINE:
            if item.feature is not None and item.feature.is_denied(cpu):
                continue
            value = cpu.optional(item.register)
            if value is None:
                missing.append((item.register, cpu))
                continue
            found = _field(item.register, item.field, value, e2h)
            if found is None or found[1] == item.value:
                continue
            yield about_registers(
                "trap-hole",
                item.severity,
                f"CPU {cpu.cpu}, in {'a guest' if vm is None else f'VM {vm}'}: {item.register}.{item.field} "
                f"{found[0]} is {found[1]:#x}, the baseline is {item.value:#x}: {item.why}",
                [register_evidence(cpu, item.register, f"{item.field} = {found[1]:#x}")],
                vms=[] if vm is None else [vm],
                explanation=item.explanation(cpu),
            )
    say_unknown(missing)


def stage2_misprogrammed(world: World) -> Iterator[Finding]:
    """VTCR_EL2 does not describe a walk, or RES1 is 0."""
    for each in world.vms:
        for problem in each.map.problems:
            if problem.kind == "registers":
                vtcr = each.tree.machine.registers.get("VTCR_EL2") or 0
                yield about_registers(
                    "stage2-misprogrammed",
                    "high",
                    f"{each.tree.label}: {problem.text} (VTCR_EL2 = {vtcr:#x})",
                    [],
                    vms=each.tree.vms,
                )


_SCTLR = (
    ("C", 1, "EL2's data accesses are Non-cacheable beside cacheable ones of everybody else"),
    ("I", 1, "EL2's instruction fetches are Non-cacheable"),
    ("SA", 1, "a misaligned stack pointer of EL2 is not noticed"),
)


def el2_control(world: World) -> Iterator[Finding]:
    """SCTLR_EL2 without what a hypervisor that runs is expected to have."""
    for cpu in world.cpus:
        value = cpu.optional("SCTLR_EL2")
        if value is None or not value & 1:
            continue
        e2h = Hcr(cpu.optional("HCR_EL2") or 0).e2h
        for name, wanted, why in _SCTLR:
            found = _field("SCTLR_EL2", name, value, e2h)
            if found is not None and found[1] != wanted:
                yield about_registers(
                    "el2-control",
                    "low",
                    f"CPU {cpu.cpu}: SCTLR_EL2.{name} {found[0]} is {found[1]}, the baseline is {wanted}: {why}",
                    [register_evidence(cpu, "SCTLR_EL2", f"{name} = {found[1]}")],
                )
    say_unknown(world.not_shown("SCTLR_EL2"))


def _needs_guest(world: World) -> str:
    return "" if any(world.guests()) or world.not_shown(*_WHO_RUNS) else "no CPU runs a guest"


RULES = (
    Rule(
        "trap-hole",
        "high",
        "what a guest may do that EL2 should see",
        "Traps are the second wall beside stage 2: what does not trap, a guest does to the processor itself.",
        "Arm ARM (DDI 0487), HCR_EL2, CPTR_EL2, MDCR_EL2; baseline: what KVM and Xen set for every guest",
        trap_hole,
        _needs_guest,
    ),
    Rule(
        "stage2-misprogrammed",
        "high",
        "a stage 2 that is no walk",
        "Every access of the VM faults, or what the processor does is CONSTRAINED UNPREDICTABLE.",
        "Arm ARM (DDI 0487), VTCR_EL2.{T0SZ,SL0,TG0}",
        stage2_misprogrammed,
        lambda world: "" if world.vms else "no VM is known",
    ),
    Rule(
        "el2-control",
        "low",
        "EL2 without caches or checks",
        "Accesses by EL2 do not meet those of the others in a cache, or errors go unnoticed.",
        "Arm ARM (DDI 0487), SCTLR_EL2; baseline: M, C, I and SA set",
        el2_control,
    ),
)
