"""The address translation instructions: what AT leaves in PAR_EL1.

Source: Arm ARM (DDI 0487) C5.5 and the description of PAR_EL1; Arm's ASL v9.4 ``AArch64_AT``,
``AArch64_EncodePAR``. PAR_EL1 is in its 64-bit format.

Choices where the architecture leaves one: NS of a Non-secure result is 1, NSE (FEAT_RME, below EL3) is 1, bit
[10] and bits [63:48] of a fault are 0. AT never sets dirty state; it sets the access flag, so a stage-1
descriptor without it in a table that stage 2 maps read-only is a stage-2 permission fault. AT S12E* with
HCR_EL2.{E2H,TGE} = {1,1} uses the EL1&0 regime with both stages off. FEAT_PAN2 is not asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from gdbhyp.arch import faults
from gdbhyp.arch.features import ID_REGISTERS
from gdbhyp.arch.fields import Bits, bit
from gdbhyp.arch.regimes import Regime, Space
from gdbhyp.arch.spaces import VA, Word
from gdbhyp.engine.gpt import granule_table
from gdbhyp.engine.machine import Machine, Reader
from gdbhyp.engine.results import Access, Translation
from gdbhyp.engine.translate import memory_of, report
from gdbhyp.engine.walk import Fetch, Found, Walker, WalkFault, setup
from gdbhyp.errors import GdbhypError, NoTarget, UsageError

# PAR_EL1
_F = bit(0)
_FST = Bits(6, 1)
_SH = Bits(8, 7)
_PTW = bit(8)
_NS = bit(9)
_S = bit(9)
_NSE = bit(11)
_RES1 = bit(11)
_ASSURED_ONLY = bit(12)
_TOP_LEVEL = bit(13)
_OVERLAY = bit(14)
_DIRTY_BIT = bit(15)
_PA = Bits(55, 12)
_ATTR = Bits(63, 56)

# SCR_EL3
_GPF = bit(48)


class _Operation(NamedTuple):
    """An AT instruction: the stages, the Exception level it acts for, and the access."""

    both: bool
    el: int
    access: Access


def _operation(both: bool, el: int, kind: str, pan: bool = False) -> _Operation:
    return _Operation(both, el, Access(kind, el, pan))


_OPERATIONS = {
    "S1E1R": _operation(False, 1, "read"),
    "S1E1W": _operation(False, 1, "write"),
    "S1E0R": _operation(False, 0, "read"),
    "S1E0W": _operation(False, 0, "write"),
    "S1E1RP": _operation(False, 1, "read", pan=True),
    "S1E1WP": _operation(False, 1, "write", pan=True),
    "S12E1R": _operation(True, 1, "read"),
    "S12E1W": _operation(True, 1, "write"),
    "S12E0R": _operation(True, 0, "read"),
    "S12E0W": _operation(True, 0, "write"),
    "S1E2R": _operation(False, 2, "read"),
    "S1E2W": _operation(False, 2, "write"),
    "S1E3R": _operation(False, 3, "read"),
    "S1E3W": _operation(False, 3, "write"),
}

AT_OPS = tuple(_OPERATIONS)
"""The operations by the name that follows AT."""


@dataclass(frozen=True, slots=True)
class ParResult:
    """What an AT instruction does.

    ``par`` is PAR_EL1. With ``exception`` the processor takes the fault as an exception instead, and leaves
    PAR_EL1 UNKNOWN; ``par`` is then what would describe that fault. ``translation`` is the walk behind it.
    """

    op: str
    va: VA
    par: Word
    exception: bool
    translation: Translation


def address_translate(machine: Machine, op: str, va: int, *, from_el: int = 3) -> ParResult:
    """Return what ``AT op, va`` executed at ``from_el`` (1 to 3) does.

    :raises UsageError: if there is no such operation.
    :raises NoTarget: if the operation is UNDEFINED here: no EL2, or no Security state is selected.
    :raises Unsupported: if a feature is in use that is not modelled.
    """
    operation = _OPERATIONS.get(op.upper())
    if operation is None:
        raise UsageError(f"there is no AT {op}; the operations are {', '.join(AT_OPS)}")
    fetches: list[Fetch] = []
    walk, both = _walker(machine, op, operation)
    found = _walk(walk, operation, both, va, fetches)
    par, exception = _par(machine.registers.get, walk, both, found, from_el)
    return ParResult(
        op=op.upper(),
        va=VA(va),
        par=Word(par),
        exception=exception,
        translation=report(walk, va, "both" if both else "1", found, fetches, operation.access),
    )


def _walker(machine: Machine, op: str, operation: _Operation) -> tuple[Walker, bool]:
    """Return the walker of the regime that the operation is about, and whether stage 2 is included."""
    get = machine.registers.get
    el = operation.el
    # Which regime an operation is about depends on HCR_EL2, which every regime's setup has read.
    own = setup(get, Regime.EL10)
    control = own.controls
    if el != 3 and control.space is None:
        raise NoTarget("SCR_EL3.{NSE,NS} = {1,0} selects no Security state, so AT is UNDEFINED")
    if el == 2 and not control.el2_enabled:
        raise NoTarget(f"AT {op} is UNDEFINED: EL2 is not enabled in Secure state (SCR_EL3.EEL2 = 0)")
    if not operation.both:
        regime = Regime.EL20 if el == 1 and control.in_host else control.regime_of(el)
        if regime is not Regime.EL10:
            own = setup(get, regime)
    read = machine.memory.read
    gpt = granule_table(get, read) if own.features.rme else None
    walk = Walker(own, read, gpt, bool(machine.pstate.get("PAN")))
    return walk, operation.both and control.el2_enabled


def _walk(
    walk: Walker, operation: _Operation, both: bool, va: int, fetches: list[Fetch] | None
) -> Found | WalkFault:
    if both:
        return walk.resolve(va, operation.access, fetches)
    first = walk.stage1(va, operation.access, fetches)
    return first if isinstance(first, WalkFault) else Found(first.output, first.space, first, None)


def _par(
    get: Callable[[str], int | None], walk: Walker, both: bool, found: Found | WalkFault, from_el: int
) -> tuple[int, bool]:
    """Encode PAR_EL1, and say whether the processor takes an exception instead of writing it."""
    if isinstance(found, WalkFault):
        return _par_fault(found), _takes_exception(get, found, from_el)
    attr, sh = memory_of(found)
    par = found.output & _PA.in_place | _ATTR.put(attr) | _SH.put(sh) | _ns_bits(walk, both, found.space)
    return par, False


def _ns_bits(walk: Walker, both: bool, space: Space) -> int:
    """NS and NSE, or the RES1 bit in NSE's place without FEAT_RME."""
    rme = walk.features.rme
    if walk.regime is Regime.EL3:
        if rme:
            ns = space in (Space.NON_SECURE, Space.REALM)
            return _NS.put(ns) | _NSE.put(space in (Space.ROOT, Space.REALM))
        return _NS.put(space is not Space.SECURE) | _RES1.put(1)
    own = walk.controls.space
    if own is Space.REALM and walk.regime is Regime.EL10 and not both:
        return _NS.put(1) | _NSE.put(1)
    ns = own is Space.NON_SECURE or space is not own
    return _NS.put(ns) | (_NSE if rme else _RES1).put(1)


def _par_fault(stop: WalkFault) -> int:
    par = _F.put(1) | _RES1.put(1)
    par |= _FST.put(faults.status_code(stop.kind, stop.level))
    par |= _PTW.put(stop.s1ptw) | _S.put(stop.stage == 2)
    denied = stop.denied
    if denied is not None:
        par |= _DIRTY_BIT.put(denied.dirty_bit) | _OVERLAY.put(denied.overlay)
        par |= _TOP_LEVEL.put(denied.top_level) | _ASSURED_ONLY.put(denied.assured_only)
    return par


def _takes_exception(get: Callable[[str], int | None], stop: WalkFault, from_el: int) -> bool:
    if stop.kind == faults.EXTERNAL_ABORT:
        return True
    if stop.violation is not None:
        if stop.violation.kind != "fail":
            return True
        if from_el < 3 and _GPF(get("SCR_EL3") or 0):
            return True
    return from_el == 1 and stop.s1ptw


_LIMIT = 1 << 64


def _number(value: object, what: str) -> int:
    """Read an address or register value of a case."""
    if isinstance(value, str):
        try:
            number = int(value, 0)
        except ValueError:
            raise UsageError(f"{what} is not a number: {value[:40]!r}") from None
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    else:
        raise UsageError(f"{what} is neither a number nor a string that holds one")
    if not 0 <= number < _LIMIT:
        raise UsageError(f"{what} does not fit 64 bits")
    return number


def _mapping(case: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = case.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UsageError(f'"{key}" is not an object')
    return value


def run_case(case: object, memory: Reader) -> dict[str, object]:
    """Execute one case of a batch at EL3: ``{"op": …, "va": "0x…", "regs": {…}, "pstate": {…}}``.

    Returns ``{"par": "0x…"}``, with ``"exception": True`` where the processor takes an external abort instead
    of writing PAR_EL1, or ``{"error": sentence}`` for a case that is malformed or cannot be modelled.
    """
    try:
        par, exception = _run(case, memory)
    except GdbhypError as error:
        return {"error": str(error)}
    answer: dict[str, object] = {"par": f"{par:#x}"}
    if exception:
        answer["exception"] = True
    return answer


def _run(case: object, memory: Reader) -> tuple[int, bool]:
    if not isinstance(case, dict):
        raise UsageError("a case is a JSON object")
    op = case.get("op")
    operation = _OPERATIONS.get(op) if isinstance(op, str) else None
    if operation is None or not isinstance(op, str):
        raise UsageError(f'"op" is not one of {", ".join(AT_OPS)}')
    if "va" not in case:
        raise UsageError('the case has no "va"')
    va = _number(case["va"], '"va"')
    registers = {name: _number(value, name) for name, value in _mapping(case, "regs").items()}
    pstate = {name: _number(value, f"PSTATE.{name}") for name, value in _mapping(case, "pstate").items()}
    # What is not given is 0, the ID registers among it: of a target, they would be taken for not shown.
    machine = Machine(dict.fromkeys(ID_REGISTERS, 0) | registers, memory, pstate)
    walk, both = _walker(machine, op, operation)
    return _par(registers.get, walk, both, _walk(walk, operation, both, va, None), 3)
