"""What a syndrome says to a person: the instruction, the register, the call, the address, in one line.

Source: Arm Architecture Reference Manual (DDI 0487), the ISS descriptions of ESR_EL2 and "HPFAR_EL2" for
when it is valid. The rules for the stage of an abort and the validity of HPFAR_EL2 are those of the
manual's pseudocode functions AArch64.FaultSyndrome and IPAValid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from gdbhyp.arch import smccc
from gdbhyp.arch.conditions import aarch32_register, suffix
from gdbhyp.arch.spaces import IPA, VA
from gdbhyp.arch.syndrome_context import SyndromeContext
from gdbhyp.arch.syndrome_tables import FAULT_STATUS, LAYOUTS, RESERVED_CLASS, ClassInfo, FaultStatus

_FROM_LOWER = frozenset((0x20, 0x24, 0x30, 0x32, 0x34))
_WITHOUT_CHANGE = frozenset((0x21, 0x25, 0x31, 0x33, 0x35))


@dataclass(frozen=True)
class Abort:
    """An Instruction Abort, Data Abort, Granule Protection Check exception or SError with a fault status.

    ``kind`` is "translation", "access_flag", "permission", "address_size", "external_abort", …, or
    "reserved"; ``level`` the level of the walk (-2 to 3) where the code has one; ``stage`` 1 or 2 where it
    can be told; ``access`` "read", "write", "execute" or "cache maintenance"; ``size`` in bytes and
    ``register`` (``"w5"``) only where the syndrome describes the instruction. ``ipa`` is the faulting IPA,
    only its 4 KiB page where ``ipa_page_only``. ``hpfar_valid``: the architecture makes HPFAR_EL2 valid for
    this syndrome.
    """

    kind: str
    text: str
    level: int | None
    stage: int | None
    s1ptw: bool
    access: str
    isv: bool
    fnv: bool
    hpfar_valid: bool
    size: int | None = None
    register: str | None = None
    sign_extend: bool = False
    acquire_release: bool = False
    far: VA | None = None
    ipa: IPA | None = None
    ipa_page_only: bool = False


class Explanation(NamedTuple):
    """One line for a person, and its parts for a program; see ``Syndrome`` for what each is."""

    summary: str
    instruction: str | None = None
    system_register: str | None = None
    call: str | None = None
    immediate: int | None = None
    abort: Abort | None = None


class _Case:
    """A syndrome on its way to being explained."""

    __slots__ = ("context", "ec", "el", "esr", "info")

    def __init__(self, esr: int, el: int, info: ClassInfo, context: SyndromeContext) -> None:
        self.esr = esr
        self.el = el
        self.ec = esr >> 26 & 0x3F
        self.info = info
        self.context = context

    def bits(self, msb: int, lsb: int) -> int:
        return self.esr >> lsb & (1 << msb - lsb + 1) - 1

    def bit(self, position: int) -> bool:
        return bool(self.esr >> position & 1)

    def word(self, layout: str, name: str) -> tuple[int, str | None]:
        """Return the value of a field and its meaning, None when the value is reserved."""
        for field in LAYOUTS[layout]:
            if field.name == name:
                value = self.bits(field.msb, field.lsb)
                meaning = field.meaning
                return value, meaning(value) if callable(meaning) else meaning.get(value) if meaning else None
        raise KeyError(name)

    @property
    def through_vncr(self) -> bool:
        """Whether an MRS or MSR at EL1 that FEAT_NV2 turned into a memory access was aborted."""
        return self.ec == 0x25 and self.el == 2 and self.bit(13)

    @property
    def who(self) -> str:
        """Who took the exception, with a space behind it; empty where it is not known."""
        if self.ec in _WITHOUT_CHANGE:
            return f"EL{self.el} " if not self.through_vncr else "guest "
        source = self.context.source_el
        if source is not None and source == self.el:
            return f"EL{source} "
        owner = _OWNER[self.context.guest]
        if not owner and self.ec in _FROM_LOWER and self.el == 2:
            owner = "guest"
        if source == 0 or (self.ec in _FROM_LOWER and self.el == 1):
            return f"{owner} EL0 ".lstrip()
        if owner:
            return f"{owner} "
        if source is not None:
            return f"EL{source} "
        return "lower EL " if self.ec in _FROM_LOWER else ""

    def register(self, number: int, *, wide: bool = True) -> str:
        """Return the general-purpose register ``number`` as the trapped code writes it."""
        if self.context.from_aarch32:
            return aarch32_register(number)
        if number == 31:
            return "xzr" if wide else "wzr"
        return f"{'x' if wide else 'w'}{number}"

    def valued(self, number: int) -> str:
        """Return `` (x3 = 0x…)`` for a register whose value is known."""
        value = None if number == 31 else self.context.x(number)
        return "" if value is None else f" ({self.register(number)} = {value:#x})"


_OWNER = {True: "guest", False: "host", None: ""}


def explain(esr: int, el: int, info: ClassInfo, context: SyndromeContext) -> Explanation:
    """Return what ``esr`` of EL ``el`` says; ``info`` is its exception class."""
    case = _Case(esr, el, info, context)
    if info is RESERVED_CLASS:
        return Explanation(
            f"exception class {case.ec:#x}, reserved or newer than this table, ISS {case.bits(24, 0):#x}"
        )
    explanation = _EXPLAIN.get(info.encoding, _plain)(case)
    if str(el) not in info.levels:
        return explanation._replace(summary=f"{explanation.summary} (not possible at EL{el})")
    return explanation


def _plain(case: _Case) -> Explanation:
    at = ""
    if case.ec == 0x22 and case.context.far is not None:
        at = f" at {case.context.far:#x}"
    return Explanation(f"{case.who}{_sentence(case)}{at}")


def _sentence(case: _Case) -> str:
    return _PLAIN.get(case.ec, case.info.name)


_PLAIN = {
    0x00: "exception with an unknown reason (an undefined or disallowed instruction)",
    0x09: "pointer authentication instruction or key register trapped (HCR_EL2.API or SCR_EL3.API is 0)",
    0x0E: "Illegal Execution state (PSTATE.IL was 1)",
    0x19: "SVE access trapped",
    0x22: "PC alignment fault",
    0x26: "SP alignment fault",
}


def _wfx(case: _Case) -> Explanation:
    kind = case.bits(1, 0)
    name = ("wfi", "wfe", "wfit", "wfet")[kind] + _condition(case)
    number = case.bits(9, 5)
    timed = kind >= 2 and case.bit(2)
    instruction = f"{name} {case.register(number)}" if timed else name
    return Explanation(f"{case.who}{instruction} trapped{case.valued(number) if timed else ''}", instruction)


def _condition(case: _Case) -> str:
    return suffix(case.bits(23, 20)) if case.bit(24) else ""


def _coprocessor(case: _Case) -> int:
    return 15 if case.ec in (0x03, 0x04) else 14


def _mcr(case: _Case) -> Explanation:
    read, number = case.bit(0), case.bits(9, 5)
    register = aarch32_register(number)
    if case.ec == 0x08:
        name = _VFP_REGISTERS.get(case.bits(13, 10))
        instruction = f"vmrs{_condition(case)} {register}, {name or 'FPSID-group register'}"
        return Explanation(f"{case.who}{instruction} trapped", instruction, name)
    operands = (
        f"#{case.bits(16, 14)}, {register}, c{case.bits(13, 10)}, c{case.bits(4, 1)}, #{case.bits(19, 17)}"
    )
    instruction = f"{'mrc' if read else 'mcr'}{_condition(case)} p{_coprocessor(case)}, {operands}"
    value = "" if read or number > 12 else _aarch32_value(case, number)
    from gdbhyp.arch import sysregs_aarch32

    encoding = (case.bits(16, 14), case.bits(13, 10), case.bits(4, 1), case.bits(19, 17))
    name = sysregs_aarch32.name_of(_coprocessor(case), *encoding)
    return Explanation(f"{case.who}{instruction}{_named(name)} trapped{value}", instruction, name)


def _named(name: str | None) -> str:
    return f" ({name})" if name else ""


def _aarch32_value(case: _Case, number: int) -> str:
    value = case.context.x(number)
    return "" if value is None else f" (r{number} = {value & 0xFFFF_FFFF:#x})"


_VFP_REGISTERS = {0: "FPSID", 5: "MVFR2", 6: "MVFR1", 7: "MVFR0"}


def _mcrr(case: _Case) -> Explanation:
    mnemonic = ("mrrc" if case.bit(0) else "mcrr") + _condition(case)
    registers = f"{aarch32_register(case.bits(9, 5))}, {aarch32_register(case.bits(14, 10))}"
    instruction = f"{mnemonic} p{_coprocessor(case)}, #{case.bits(19, 16)}, {registers}, c{case.bits(4, 1)}"
    from gdbhyp.arch import sysregs_aarch32

    name = sysregs_aarch32.long_name_of(_coprocessor(case), case.bits(19, 16), case.bits(4, 1))
    return Explanation(f"{case.who}{instruction}{_named(name)} trapped", instruction, name)


def _ldc(case: _Case) -> Explanation:
    load, mode, sign = case.bit(0), case.bits(3, 1), "" if case.bit(4) else "-"
    base = "pc" if mode in (4, 6) else aarch32_register(case.bits(9, 5))
    offset = f"#{sign}{case.bits(19, 12) * 4:#x}"
    address = {1: f"[{base}], {offset}", 3: f"[{base}, {offset}]!", 0: f"[{base}]", 4: f"[{base}]"}
    operand = address.get(mode, f"[{base}, {offset}]")
    # The only registers that LDC and STC reach are the debug communication channel's.
    register = "DBGDTRTXint" if load else "DBGDTRRXint"
    instruction = f"{'ldc' if load else 'stc'}{_condition(case)} p14, c5, {operand}"
    return Explanation(f"{case.who}{instruction} trapped ({register})", instruction, register)


def _fp(case: _Case) -> Explanation:
    return Explanation(f"{case.who}floating-point, Advanced SIMD, SVE or SME instruction trapped")


def _other(case: _Case) -> Explanation:
    value, name = case.word("OTHER", "ISS")
    if name is None:
        return Explanation(
            f"{case.who}instruction trapped (ISS {value:#x}, reserved or newer than this table)"
        )
    instruction = name.lower() if " or " not in name else None
    return Explanation(f"{case.who}{name} trapped", instruction)


def _bti(case: _Case) -> Explanation:
    return Explanation(
        f"{case.who}branch to a place that is no valid target (PSTATE.BTYPE {case.bits(1, 0)})"
    )


def _call(case: _Case) -> Explanation:
    immediate = case.bits(15, 0)
    mnemonic = {0x11: "svc", 0x12: "hvc", 0x15: "svc", 0x16: "hvc", 0x17: "smc"}[case.ec]
    instruction = f"{mnemonic} #{immediate:#x}" if immediate else f"{mnemonic} #0"
    if mnemonic == "svc":
        return Explanation(f"{case.who}{instruction}", instruction, immediate=immediate)
    return _hypervisor_call(case, mnemonic, instruction, immediate)


def _hypervisor_call(case: _Case, mnemonic: str, instruction: str, immediate: int) -> Explanation:
    context = case.context
    x0 = context.x(0)
    number = context.x(12 if context.from_aarch32 else 16)
    call = smccc.call_name(
        immediate, x0, number, hvc=mnemonic == "hvc", guest=context.guest, host_call=context.host_call
    )
    summary = f"{case.who}{instruction}"
    if call is not None:
        summary += f": {call}"
    if immediate == smccc.XEN_IMMEDIATE and mnemonic == "hvc":
        summary += "" if number is None else f" ({'r12' if context.from_aarch32 else 'x16'} = {number:#x})"
    elif x0 is not None:
        summary += f" ({'r0' if context.from_aarch32 else 'x0'} = {x0:#x})"
    return Explanation(summary, instruction, call=call, immediate=immediate)


def _smc32(case: _Case) -> Explanation:
    passed = "" if not case.bit(19) else _condition(case)
    return _hypervisor_call(case, "smc", f"smc{passed} #0", 0)


def _encoding(case: _Case) -> tuple[int, int, int, int, int]:
    return case.bits(21, 20), case.bits(16, 14), case.bits(13, 10), case.bits(4, 1), case.bits(19, 17)


def _sys64(case: _Case) -> Explanation:
    # The names of a thousand registers are read only when one of them was trapped.
    from gdbhyp.arch import sysregs

    encoding, read, number = _encoding(case), case.bit(0), case.bits(9, 5)
    name = sysregs.name_of(*encoding, read=read)
    instruction = sysregs.instruction_of(*encoding, case.register(number), read=read)
    unknown = "" if name else ", not a register or instruction that this table knows"
    value = "" if read else case.valued(number)
    return Explanation(f"{case.who}{instruction} trapped{value}{unknown}", instruction, name)


def _msrr(case: _Case) -> Explanation:
    from gdbhyp.arch import sysregs

    encoding, read = _encoding(case), case.bit(0)
    first = case.bits(9, 6) * 2
    pair = f"{case.register(first)}, {case.register(first + 1)}"
    name = sysregs.name_of(*encoding, read=read)
    if encoding[0] == 1:
        operation = name.replace(" ", "p ", 1).lower() if name else f"sysp {encoding}"
        instruction = f"{operation}, {pair}"
    else:
        shown = name or sysregs.generic_name(*encoding)
        instruction = f"mrrs {pair}, {shown}" if read else f"msrr {shown}, {pair}"
    return Explanation(f"{case.who}{instruction} trapped", instruction, name)


def _eret(case: _Case) -> Explanation:
    instruction = ("eret", "eret", "eretaa", "eretab")[case.bits(1, 0)]
    return Explanation(f"{case.who}{instruction} trapped", instruction)


def _tstart(case: _Case) -> Explanation:
    instruction = f"tstart {case.register(case.bits(9, 5))}"
    return Explanation(f"{case.who}{instruction} trapped", instruction)


def _pacfail(case: _Case) -> Explanation:
    kind = "data" if case.bit(1) else "instruction"
    return Explanation(
        f"{case.who}pointer authentication failed (FPAC, {kind} key {'B' if case.bit(0) else 'A'})"
    )


def _sme(case: _Case) -> Explanation:
    value, text = case.word("SME", "SMTC")
    return Explanation(f"{case.who}SME instruction trapped: {text or f'reserved code {value}'}")


def _impdef(case: _Case) -> Explanation:
    return Explanation(f"{case.who}IMPLEMENTATION DEFINED exception, syndrome {case.bits(24, 0):#x}")


def _profiling(case: _Case) -> Explanation:
    value, reason = case.word("PROFILING", "FSC")
    return Explanation(f"{case.who}profiling exception: {reason or f'reserved reason {value:#x}'}")


def _mops(case: _Case) -> Explanation:
    destination, source, size = (case.register(case.bits(lsb + 4, lsb)) for lsb in (10, 5, 0))
    if case.bit(24):
        what, operands = "setg*" if case.bit(23) else "set*", f"[{destination}]!, {size}!, {source}"
    else:
        what, operands = "cpy*", f"[{destination}]!, [{source}]!, {size}!"
    part = "epilogue" if case.bit(18) else "main"
    option = "A" if case.bit(16) != case.bit(17) else "B"
    return Explanation(
        f"{case.who}{what} {operands}: {part} instruction, registers in the format of option {option}"
    )


def _fpexc(case: _Case) -> Explanation:
    flags = [name for name, bit in _FP_FLAGS if case.bit(bit)]
    if not case.bit(23):
        return Explanation(f"{case.who}floating-point exception trapped, which one is not said")
    return Explanation(f"{case.who}floating-point exception trapped: {', '.join(flags) or 'none of the six'}")


_FP_FLAGS = (
    *(("Invalid Operation", 0), ("Divide by Zero", 1), ("Overflow", 2), ("Underflow", 3)),
    *(("Inexact", 4), ("Input Denormal", 7)),
)


def _gcs(case: _Case) -> Explanation:
    kind = case.bits(23, 20)
    if kind == 0:
        value, name = case.word("GCS DATA", "IT")
        what = name or f"instruction type {value:#x}, reserved"
        return Explanation(f"{case.who}Guarded Control Stack data check failed at {what}")
    if kind == 1:
        return Explanation(f"{case.who}Guarded Control Stack: exception return refused (EXLOCK)")
    if kind == 2:
        operands = f"{case.register(case.bits(9, 5))}, [{case.register(case.bits(14, 10))}]"
        return Explanation(f"{case.who}Guarded Control Stack store trapped: gcsstr {operands}")
    return Explanation(f"{case.who}Guarded Control Stack exception of type {kind}, reserved")


def _serror(case: _Case) -> Explanation:
    if case.bit(24):
        return Explanation(f"SError with an IMPLEMENTATION DEFINED syndrome {case.bits(23, 0):#x}")
    status = case.bits(5, 0)
    if status == 0x11:
        value, severity = case.word("SERROR AET", "AET")
        return Explanation(f"SError: {severity or f'reserved severity {value}'}")
    return Explanation("SError: uncategorized" if status == 0 else f"SError with reserved status {status:#x}")


def _debug(case: _Case) -> Explanation:
    what = "AArch32 vector catch" if case.ec == 0x3A else "hardware breakpoint"
    return Explanation(f"{case.who}{what}{_at(case)}")


def _at(case: _Case) -> str:
    return "" if case.context.elr is None else f" at {case.context.elr:#x}"


def _step(case: _Case) -> Explanation:
    exclusive = " of a Load-Exclusive" if case.bit(24) and case.bit(6) else ""
    return Explanation(f"{case.who}software step{exclusive}{_at(case)}")


def _watchpoint(case: _Case) -> Explanation:
    number = f" {case.bits(23, 18)}" if case.bit(17) else ""
    access = "cache maintenance" if case.bit(8) else "write" if case.bit(6) else "read"
    far = case.context.far
    where = "" if far is None or case.bit(10) else f" of VA {far:#x}"
    return Explanation(f"{case.who}watchpoint{number}: {access}{where}")


def _comment(case: _Case) -> Explanation:
    immediate = case.bits(15, 0)
    name = "bkpt" if case.ec == 0x38 else "brk"
    instruction = f"{name} #{immediate:#x}"
    meaning = smccc.breakpoint_name(immediate) if name == "brk" else None
    return Explanation(
        f"{case.who}{instruction}{f' ({meaning})' if meaning else ''}{_at(case)}",
        instruction,
        immediate=immediate,
    )


_TABLE_FAULTS = frozenset(("translation", "access_flag", "permission", "address_size"))


def _stage(case: _Case, status: FaultStatus, s1ptw: bool) -> int | None:
    """Return the stage of translation that an abort is of, None where the syndrome does not say it."""
    if s1ptw:
        return 2
    if case.ec in _WITHOUT_CHANGE or case.el == 1:
        return 1 if status.kind in _TABLE_FAULTS or status.on_walk else None
    if case.context.stage2 is False:
        return 1 if status.kind in _TABLE_FAULTS or status.on_walk else None
    if case.el == 2 and status.kind in _TABLE_FAULTS:
        return 2
    return None


def _hpfar_valid(case: _Case, status: FaultStatus, stage: int | None, s1ptw: bool) -> bool:
    if case.el != 2 or stage != 2:
        return False
    if status.kind == "granule_protection":
        return True
    return status.kind in _TABLE_FAULTS and (s1ptw or status.kind != "permission")


def _iabt(case: _Case) -> Explanation:
    return _abort(case, "execute", case.bit(7), None)


def _dabt(case: _Case) -> Explanation:
    access = "cache maintenance" if case.bit(8) else "write" if case.bit(6) else "read"
    register = None
    if case.bit(24):
        register = case.register(case.bits(20, 16), wide=case.bit(15))
    return _abort(case, access, case.bit(7), register)


def _abort(case: _Case, access: str, s1ptw: bool, register: str | None) -> Explanation:
    code = case.bits(5, 0)
    status = FAULT_STATUS.get(code) or FaultStatus("reserved", None, f"reserved fault status {code:#x}")
    stage = _stage(case, status, s1ptw)
    valid = _hpfar_valid(case, status, stage, s1ptw)
    fnv = case.bit(10)
    far = None if fnv or case.context.far is None else VA(case.context.far)
    ipa, page_only = _faulting_ipa(case, valid, far, s1ptw)
    isv = register is not None
    abort = Abort(
        *(status.kind, status.text, status.level, stage, s1ptw, access, isv, fnv, valid),
        size=_size(case, status) if isv else None,
        register=register,
        sign_extend=isv and case.bit(21),
        acquire_release=isv and case.bit(14),
        far=far,
        ipa=ipa,
        ipa_page_only=page_only,
    )
    return Explanation(_abort_summary(case, abort), abort=abort)


def _size(case: _Case, status: FaultStatus) -> int:
    if status.kind in ("translation", "access_flag", "permission") and case.bits(12, 11):
        return 64
    return 1 << case.bits(23, 22)


def _faulting_ipa(case: _Case, valid: bool, far: VA | None, s1ptw: bool) -> tuple[IPA | None, bool]:
    """Return the IPA and whether only its page is known: HPFAR_EL2 has IPA[55:12], FAR_EL2 the rest."""
    context = case.context
    if context.ipa is not None:
        return IPA(context.ipa), False
    if not valid or context.hpfar is None:
        return None, False
    page = (context.hpfar & 0x0000_FFFF_FFFF_FFF0) << 8
    if s1ptw or far is None:
        return IPA(page), True
    return IPA(page | far & 0xFFF), False


_VERBS = {"execute": ("instruction fetch", "from"), "write": ("write", "to"), "read": ("read", "from")}


def _abort_summary(case: _Case, abort: Abort) -> str:
    verb, preposition = _VERBS.get(abort.access, ("cache maintenance or address translation", "of"))
    if abort.s1ptw:
        article = "an" if verb[0] in "aeiou" else "a"
        verb, preposition = f"stage-1 table walk for {article} {verb}", "at"
    what = verb
    if abort.size is not None and abort.register is not None:
        unit = "byte" if abort.size == 1 else "bytes"
        what += f" of {abort.size} {unit} {'from' if abort.access == 'write' else 'into'} {abort.register}"
    return f"{case.who}{what}{_where(abort, preposition)} ({_fault_words(case, abort)}){_also_at(abort)}"


def _where(abort: Abort, preposition: str) -> str:
    if abort.ipa is not None:
        return f" {preposition} IPA {'page ' if abort.ipa_page_only else ''}{abort.ipa:#x}"
    return "" if abort.far is None else f" {preposition} VA {abort.far:#x}"


def _also_at(abort: Abort) -> str:
    if abort.ipa is None or abort.far is None or int(abort.ipa) == int(abort.far):
        return ""
    return f", VA {abort.far:#x}"


def _fault_words(case: _Case, abort: Abort) -> str:
    words = abort.text[0].lower() + abort.text[1:] if not abort.text[1].isupper() else abort.text
    words = words.replace("granule Protection", "Granule Protection").replace(
        "synchronous Ext", "synchronous ext"
    )
    if abort.stage is not None:
        words = f"stage-{abort.stage} {words}"
    causes = [name for name, bit in _PERMISSION_CAUSES if case.bit(bit)] if abort.kind == "permission" else []
    if case.through_vncr:
        causes.append("register access through VNCR_EL2")
    return ", ".join((words, *causes))


# ISS2 says which mechanism refused a permission.
_PERMISSION_CAUSES = (
    *(("by Overlay permissions", 38), ("by dirty state", 37), ("by AssuredOnly", 39), ("NoTagAccess", 41)),
    *(("of the HDBSS", 43),),
)


def _gpc(case: _Case) -> Explanation:
    code, text = case.word("GPC", "GPCSC")
    access = (
        "execute"
        if case.bit(20)
        else "cache maintenance"
        if case.bit(8)
        else "write"
        if case.bit(6)
        else "read"
    )
    explanation = _abort(case, access, case.bit(7), None)
    reason = text or f"reserved GPC status {code:#x}"
    return explanation._replace(summary=f"{explanation.summary}: {reason}")


_EXPLAIN: dict[str, Callable[[_Case], Explanation]] = {
    "WFX": _wfx,
    "MCR": _mcr,
    "MCRR": _mcrr,
    "LDC": _ldc,
    "FP": _fp,
    "OTHER": _other,
    "BTI": _bti,
    "IMM16": _call,
    "COMMENT": _comment,
    "SMC32": _smc32,
    "MSRR": _msrr,
    "SYS64": _sys64,
    "ERET": _eret,
    "TSTART": _tstart,
    "PACFAIL": _pacfail,
    "SME": _sme,
    "GPC": _gpc,
    "IMPDEF": _impdef,
    "IABT": _iabt,
    "DABT": _dabt,
    "MOPS": _mops,
    "FPEXC": _fpexc,
    "GCS": _gcs,
    "SERROR": _serror,
    "DEBUG": _debug,
    "STEP": _step,
    "WP": _watchpoint,
    "PROFILING": _profiling,
}
