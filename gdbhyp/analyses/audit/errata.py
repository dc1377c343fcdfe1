"""Processors with errata that a hypervisor has to know, by MIDR_EL1.

Source: the processors' public Software Developer Errata Notices, as Linux lists them in
Documentation/arch/arm64/silicon-errata.rst. Where registers show that the erratum's condition holds, it is a finding
of its own weight; else it is a note, for whether a workaround is in place cannot be read from registers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from gdbhyp.analyses.audit.findings import Finding, Rule, Severity, about_registers
from gdbhyp.analyses.audit.world import World, register_evidence, say_unknown
from gdbhyp.arch.fields import Bits, bit
from gdbhyp.arch.worlds import Hcr
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import RegisterUnavailable

_IMPLEMENTER, _VARIANT, _PART, _REVISION = Bits(31, 24), Bits(23, 20), Bits(15, 4), Bits(3, 0)
_ARM, _AMPERE = 0x41, 0xC0
_HD_TWO_RANGES, _HD_ONE_RANGE = bit(40), bit(22)
_VTCR_HA = bit(21)
_ANY = ((0, 0), (15, 15))


@dataclass(frozen=True)
class Erratum:
    """An erratum of a part, from one revision (r, p) to another, both included.

    ``holds`` says whether the registers of a CPU meet its condition and names the register that does, or raises
    RegisterUnavailable; None where registers do not tell.
    """

    number: str
    core: str
    implementer: int
    part: int
    revisions: tuple[tuple[int, int], tuple[int, int]]
    text: str
    holds: Callable[[Stop], str | None] | None = None

    def affects(self, midr: int) -> bool:
        """Return whether a processor is one of these."""
        revision = _VARIANT(midr), _REVISION(midr)
        return (_IMPLEMENTER(midr), _PART(midr)) == (self.implementer, self.part) and self.revisions[
            0
        ] <= revision <= self.revisions[1]


def _dirty_state_in_hardware(cpu: Stop) -> str | None:
    """Return the register that turns hardware management of dirty state on."""
    if (cpu.optional("TCR_EL1") or 0) & _HD_TWO_RANGES.in_place:
        return "TCR_EL1"
    hd = _HD_TWO_RANGES if Hcr(cpu.register("HCR_EL2")).e2h else _HD_ONE_RANGE
    if cpu.register("TCR_EL2") & hd.in_place:
        return "TCR_EL2"
    # One that is set would have been enough; none that is set needs all of them.
    cpu.register("TCR_EL1")
    return None


def _stage2_access_flag(cpu: Stop) -> str | None:
    return "VTCR_EL2" if cpu.register("VTCR_EL2") & _VTCR_HA.in_place else None


ERRATA = (
    Erratum(
        "834220",
        "Cortex-A57",
        _ARM,
        0xD07,
        ((0, 0), (1, 2)),
        "a stage-1 fault of a load across a page boundary may be reported as a stage-2 translation fault",
    ),
    Erratum(
        "832075",
        "Cortex-A57",
        _ARM,
        0xD07,
        ((0, 0), (1, 2)),
        "exclusive and device loads together may deadlock: a guest stops the machine",
    ),
    Erratum(
        "1319537",
        "Cortex-A57",
        _ARM,
        0xD07,
        _ANY,
        "a speculative AT may fill the TLB from a regime that is half switched",
    ),
    Erratum(
        "1319367",
        "Cortex-A72",
        _ARM,
        0xD08,
        _ANY,
        "a speculative AT may fill the TLB from a regime that is half switched",
    ),
    Erratum(
        "1530923",
        "Cortex-A55",
        _ARM,
        0xD05,
        ((0, 0), (2, 0)),
        "a speculative AT may fill the TLB from a regime that is half switched",
    ),
    Erratum(
        "1165522",
        "Cortex-A76",
        _ARM,
        0xD0B,
        ((0, 0), (2, 0)),
        "a speculative AT may fill the TLB from a regime that is half switched",
    ),
    Erratum(
        "1286807",
        "Cortex-A76",
        _ARM,
        0xD0B,
        ((0, 0), (3, 0)),
        "TLB invalidation may complete before the translations are out of use: it must be done twice",
    ),
    Erratum(
        "1024718",
        "Cortex-A55",
        _ARM,
        0xD05,
        _ANY,
        "hardware updates of dirty state go wrong without break-before-make: they must be off",
        _dirty_state_in_hardware,
    ),
    Erratum(
        "2051678",
        "Cortex-A510",
        _ARM,
        0xD46,
        ((0, 0), (0, 2)),
        "hardware updates of dirty state do not obey the rules of ordering: they must be off",
        _dirty_state_in_hardware,
    ),
    Erratum(
        "2077057",
        "Cortex-A510",
        _ARM,
        0xD46,
        ((0, 0), (0, 2)),
        "where a step exception is due and pointer authentication traps, SPSR_EL2 is lost: a guest may choose it",
    ),
    Erratum(
        "AC03_CPU_38",
        "AmpereOne",
        _AMPERE,
        0xAC3,
        _ANY,
        "VTCR_EL2.HA is not RES0, and updates descriptors that were made invalid: it must be 0",
        _stage2_access_flag,
    ),
)


def errata(world: World) -> Iterator[Finding]:
    """The errata of the machine's processors, each once for the CPUs that have it."""
    missing = world.not_shown("MIDR_EL1")
    midrs = {cpu.cpu: midr for cpu in world.cpus if (midr := cpu.optional("MIDR_EL1")) is not None}
    for item in ERRATA:
        affected = [cpu for cpu in world.cpus if cpu.cpu in midrs and item.affects(midrs[cpu.cpu])]
        if not affected:
            continue
        severity: Severity = "note"
        evidence = [register_evidence(affected[0], "MIDR_EL1")]
        explanation = "right where the hypervisor has the workaround, which registers do not show"
        if item.holds is not None:
            meets, unknown = _meets(affected, item.holds)
            if not meets:
                missing += unknown
                continue
            severity, explanation = "medium", ""
            evidence.append(register_evidence(*meets[0]))
        midr = midrs[affected[0].cpu]
        where = f"r{_VARIANT(midr)}p{_REVISION(midr)}"
        yield about_registers(
            "erratum",
            severity,
            f"{item.core} {where} has erratum {item.number}: {item.text}",
            evidence,
            explanation=explanation,
        )
    say_unknown(missing)


def _meets(
    cpus: Sequence[Stop], holds: Callable[[Stop], str | None]
) -> tuple[list[tuple[Stop, str]], list[tuple[str, Stop]]]:
    """Return the CPUs that meet an erratum's condition with the register that says so, and those that hide one."""
    answers = [(cpu, *_told(cpu, holds)) for cpu in cpus]
    meets = [(cpu, name) for cpu, name, _ in answers if name is not None]
    return meets, [(hidden, cpu) for cpu, _, hidden in answers if hidden is not None]


def _told(cpu: Stop, holds: Callable[[Stop], str | None]) -> tuple[str | None, str | None]:
    """Return the register that meets the condition and the one that is not shown, None for what there is not."""
    try:
        return holds(cpu), None
    except RegisterUnavailable as error:
        return None, error.name


RULES = (
    Rule(
        "erratum",
        "medium",
        "processors with errata that a hypervisor has to know",
        "What the architecture promises does not hold on these processors without a workaround.",
        "the processors' Software Developer Errata Notices",
        errata,
        lambda world: (
            "" if len(world.not_shown("MIDR_EL1")) < len(world.cpus) else "the target does not show MIDR_EL1"
        ),
    ),
)
