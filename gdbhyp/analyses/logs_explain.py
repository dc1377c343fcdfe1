"""What a syndrome of a log says, together with the registers printed beside it, and what of those not to believe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

from gdbhyp.analyses.logs import Found
from gdbhyp.arch.syndrome_context import NOTHING_KNOWN, SyndromeContext
from gdbhyp.arch.syndrome_summary import Explanation, explain
from gdbhyp.arch.syndrome_tables import CLASSES, RESERVED_CLASS


class Said(NamedTuple):
    """A syndrome read as ESR_EL<el>: what it says, and notes on the registers and on what is assumed."""

    el: int
    explanation: Explanation
    notes: tuple[str, ...]


def say(found: Found) -> Said:
    """Return what a syndrome says."""
    return _say(found[_PLACE:])


# The items of Found that say where it was found, which does not matter to what it means.
_PLACE = 4


@lru_cache(maxsize=4096)
def _say(values: tuple[Any, ...]) -> Said:
    found = Found(0, 0, "", "", *values)
    el = _assumed_level(found.esr) if found.level is None else found.level
    context = _context(found)
    explanation = _explain(found.esr, el, context)
    notes = list(_notes(found, el, explanation))
    if _stage_unknown(found, el, explanation):
        explanation = _without_stage(found.esr, el, context)
        notes.append(_OF_STAGE_1)
    if found.from_el is not None:
        explanation = explanation._replace(summary=_by_level(explanation.summary, found.from_el))
    return Said(el, explanation, tuple(notes))


def _explain(esr: int, el: int, context: SyndromeContext) -> Explanation:
    return explain(esr, el, CLASSES.get(esr >> 26 & 0x3F, RESERVED_CLASS), context)


def _context(found: Found) -> SyndromeContext:
    return SyndromeContext(
        far=found.far if _sets_far(found.esr) else None,
        hpfar=found.hpfar,
        ipa=found.ipa,
        elr=found.elr,
        spsr=found.spsr,
        from_el=found.from_el,
        guest=found.guest,
        registers=dict(found.registers) if found.registers else None,
    )


# The exception classes for which the architecture defines what FAR_ELx holds.
_FAR_CLASSES = frozenset((0x1E, 0x20, 0x21, 0x22, 0x24, 0x25, 0x34, 0x35))


def _sets_far(esr: int) -> bool:
    return esr >> 26 & 0x3F in _FAR_CLASSES


def _assumed_level(esr: int) -> int:
    """Return the Exception level of an ESR of which nothing is said: EL1, unless only EL2 reports such a thing."""
    abort = _explain(esr, 2, NOTHING_KNOWN).abort
    if abort is not None and abort.stage == 2 and (abort.isv or abort.s1ptw):
        return 2
    return 1 if "1" in CLASSES.get(esr >> 26 & 0x3F, RESERVED_CLASS).levels else 2


_OF_STAGE_1 = (
    "of stage 1 if HCR_EL2.TGE was 1 (a process of a VHE host), else of stage 2: the log does not say which"
)


def _stage_unknown(found: Found, el: int, explanation: Explanation) -> bool:
    """Return whether an abort from EL0 to EL2 may as well be of stage 1, as a VHE host's own processes have them."""
    abort = explanation.abort
    return found.from_el == 0 and el == 2 and abort is not None and abort.stage == 2 and not abort.s1ptw


def _without_stage(esr: int, el: int, context: SyndromeContext) -> Explanation:
    explanation = _explain(esr, el, replace(context, stage2=False, hpfar=None))
    assert explanation.abort is not None
    summary = explanation.summary.replace("(stage-1 ", "(")
    return explanation._replace(summary=summary, abort=replace(explanation.abort, stage=None))


def _by_level(summary: str, from_el: int) -> str:
    """Name who took an exception to EL2 by its Exception level: whether it was a guest or pKVM's host is not known."""
    if summary.startswith("guest EL0 "):
        return summary.removeprefix("guest ")
    return f"EL{from_el} {summary.removeprefix('guest ')}" if summary.startswith("guest ") else summary


def _notes(found: Found, el: int, explanation: Explanation) -> Iterator[str]:
    if found.esr == 0:
        yield "no exception leaves 0 here (with EC 0, IL is 1): the register was never written, or was cleared"
    elif found.level is None:
        yield f"the log does not say whose ESR this is; read as ESR_EL{el}"
    stale = list(_stale(found, el, explanation))
    if stale:
        yield f"{' and '.join(stale)}: not architecturally valid for this exception (stale)"
    if found.par is not None and _is_poison(found.par):
        yield f"PAR_EL1 {found.par:#x}: what KVM resets a vCPU's registers to, not the result of an AT instruction"


def _stale(found: Found, el: int, explanation: Explanation) -> Iterator[str]:
    """Yield the registers that were printed and that the architecture does not define for this exception."""
    abort = explanation.abort
    if found.far and (not _sets_far(found.esr) or (abort is not None and abort.fnv)):
        yield f"FAR_EL{el} {found.far:#x}"
    if found.hpfar and not (abort is not None and abort.hpfar_valid):
        yield f"HPFAR_EL2 {found.hpfar:#x}"


# KVM's reset value of a guest's registers. Of PAR_EL1 the processor drops bits that are RES0, and it may set the RES1
# bit 11.
_POISON = 0x1DE7_EC7E_DBAD_C0DE
_PAR_RES1 = 1 << 11
_MOST_DROPPED = 14


def _is_poison(par: int) -> bool:
    kept = par & ~_PAR_RES1
    return not kept & ~_POISON and kept.bit_count() >= _POISON.bit_count() - _MOST_DROPPED
