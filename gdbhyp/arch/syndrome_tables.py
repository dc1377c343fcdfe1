"""The encodings of ESR_EL1, ESR_EL2 and ESR_EL3 as data: exception classes, and the ISS and ISS2 fields of
each.

Source: Arm Architecture Reference Manual for A-profile (DDI 0487 and DDI 0601, 2025-03), "ESR_EL2,
Exception Syndrome Register (EL2)"; positions were checked against Arm's machine-readable pseudocode as Sail
(rems-project/sail-arm, BSD-3-Clause-Clear, Armv9.4-A). Bit numbers are those of the ESR: ISS2 is [55:32],
EC [31:26], IL [25], ISS [24:0].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from gdbhyp.arch.conditions import CONDITION_TEXTS

Meaning = Mapping[int, str] | Callable[[int], str] | None


class Field(NamedTuple):
    """A field of the ESR: ``meaning`` maps values to words; a value that a mapping lacks is reserved."""

    name: str
    msb: int
    lsb: int
    long_name: str
    meaning: Meaning = None


class ClassInfo(NamedTuple):
    """An exception class: its name, the key of its ISS encoding, and the ELs (a string of digits) that can
    report it.
    """

    name: str
    encoding: str
    levels: str = "123"


CLASSES: dict[int, ClassInfo] = {
    0x00: ClassInfo("Unknown reason", "RES0"),
    0x01: ClassInfo("Trapped WFI, WFE, WFIT or WFET", "WFX"),
    0x03: ClassInfo("Trapped MCR or MRC (coproc 0b1111)", "MCR"),
    0x04: ClassInfo("Trapped MCRR or MRRC (coproc 0b1111)", "MCRR"),
    0x05: ClassInfo("Trapped MCR or MRC (coproc 0b1110)", "MCR"),
    0x06: ClassInfo("Trapped LDC or STC", "LDC"),
    0x07: ClassInfo("Trapped SME, SVE, Advanced SIMD or floating-point access", "FP"),
    0x08: ClassInfo("Trapped VMRS access to an ID register", "MCR", "2"),
    0x09: ClassInfo("Trapped pointer authentication instruction", "RES0"),
    0x0A: ClassInfo("Trapped LD64B, ST64B* or other instruction without a class of its own", "OTHER"),
    0x0C: ClassInfo("Trapped MRRC (coproc 0b1110)", "MCRR"),
    0x0D: ClassInfo("Branch Target exception", "BTI"),
    0x0E: ClassInfo("Illegal Execution state", "RES0"),
    0x11: ClassInfo("SVC (AArch32)", "IMM16", "12"),
    0x12: ClassInfo("HVC (AArch32)", "IMM16", "2"),
    0x13: ClassInfo("SMC (AArch32)", "SMC32", "23"),
    0x14: ClassInfo("Trapped MSRR, MRRS or 128-bit SYS", "MSRR"),
    0x15: ClassInfo("SVC (AArch64)", "IMM16"),
    0x16: ClassInfo("HVC (AArch64)", "IMM16", "23"),
    0x17: ClassInfo("SMC (AArch64)", "IMM16", "23"),
    0x18: ClassInfo("Trapped MSR, MRS or System instruction", "SYS64"),
    0x19: ClassInfo("Trapped SVE access", "RES0"),
    0x1A: ClassInfo("Trapped ERET, ERETAA or ERETAB", "ERET", "12"),
    0x1B: ClassInfo("Trapped TSTART (FEAT_TME, withdrawn)", "TSTART"),
    0x1C: ClassInfo("Pointer authentication failure", "PACFAIL"),
    0x1D: ClassInfo("Trapped SME access", "SME"),
    0x1E: ClassInfo("Granule Protection Check exception", "GPC", "3"),
    0x1F: ClassInfo("IMPLEMENTATION DEFINED exception to EL3", "IMPDEF", "3"),
    0x20: ClassInfo("Instruction Abort from a lower Exception level", "IABT"),
    0x21: ClassInfo("Instruction Abort without a change in Exception level", "IABT"),
    0x22: ClassInfo("PC alignment fault", "RES0"),
    0x24: ClassInfo("Data Abort from a lower Exception level", "DABT"),
    0x25: ClassInfo("Data Abort without a change in Exception level", "DABT"),
    0x26: ClassInfo("SP alignment fault", "RES0"),
    0x27: ClassInfo("Memory Copy or Memory Set exception", "MOPS"),
    0x28: ClassInfo("Trapped floating-point exception (AArch32)", "FPEXC", "12"),
    0x2C: ClassInfo("Trapped floating-point exception (AArch64)", "FPEXC"),
    0x2D: ClassInfo("Guarded Control Stack exception", "GCS"),
    0x2F: ClassInfo("SError", "SERROR"),
    0x30: ClassInfo("Breakpoint from a lower Exception level", "DEBUG", "12"),
    0x31: ClassInfo("Breakpoint without a change in Exception level", "DEBUG", "12"),
    0x32: ClassInfo("Software Step from a lower Exception level", "STEP", "12"),
    0x33: ClassInfo("Software Step without a change in Exception level", "STEP", "12"),
    0x34: ClassInfo("Watchpoint from a lower Exception level", "WP", "12"),
    0x35: ClassInfo("Watchpoint without a change in Exception level", "WP", "12"),
    0x38: ClassInfo("BKPT instruction (AArch32)", "COMMENT", "12"),
    0x3A: ClassInfo("Vector Catch (AArch32)", "DEBUG", "2"),
    0x3C: ClassInfo("BRK instruction (AArch64)", "COMMENT"),
    0x3D: ClassInfo("Profiling exception (PMU, SPE or TRBE)", "PROFILING"),
}

RESERVED_CLASS = ClassInfo("reserved or newer than this table", "RAW")


class FaultStatus(NamedTuple):
    """What a DFSC, IFSC or PAR_EL1.FST code says: ``level`` is None where the code has none."""

    kind: str
    level: int | None
    text: str
    on_walk: bool = False


def _fault_statuses() -> dict[int, FaultStatus]:
    """Return the fault status codes; the rows are the manual's, unrolled over the levels of a table walk."""
    codes: dict[int, FaultStatus] = {}
    rows = (
        (
            "address_size",
            "Address size fault",
            False,
            {-2: 0x2C, -1: 0x29, 0: 0x00, 1: 0x01, 2: 0x02, 3: 0x03},
        ),
        ("translation", "Translation fault", False, {-2: 0x2A, -1: 0x2B, 0: 0x04, 1: 0x05, 2: 0x06, 3: 0x07}),
        ("access_flag", "Access flag fault", False, {0: 0x08, 1: 0x09, 2: 0x0A, 3: 0x0B}),
        ("permission", "Permission fault", False, {0: 0x0C, 1: 0x0D, 2: 0x0E, 3: 0x0F}),
        (
            *("external_abort", "Synchronous External abort on translation table walk", True),
            {-2: 0x12, -1: 0x13, 0: 0x14, 1: 0x15, 2: 0x16, 3: 0x17},
        ),
        (
            *("parity_error", "Synchronous parity or ECC error on translation table walk", True),
            {-2: 0x1A, -1: 0x1B, 0: 0x1C, 1: 0x1D, 2: 0x1E, 3: 0x1F},
        ),
        (
            *("granule_protection", "Granule Protection Fault on translation table walk", True),
            {-2: 0x22, -1: 0x23, 0: 0x24, 1: 0x25, 2: 0x26, 3: 0x27},
        ),
    )
    for kind, text, on_walk, levels in rows:
        for level, code in levels.items():
            codes[code] = FaultStatus(kind, level, f"{text}, level {level}", on_walk)
    others = {
        0x10: ("external_abort", "Synchronous External abort, not on translation table walk"),
        0x11: ("tag_check", "Synchronous Tag Check Fault"),
        0x18: ("parity_error", "Synchronous parity or ECC error, not on translation table walk"),
        0x19: ("parity_error", "Asynchronous parity or ECC error"),
        0x21: ("alignment", "Alignment fault"),
        0x28: ("granule_protection", "Granule Protection Fault, not on translation table walk"),
        0x30: ("tlb_conflict", "TLB conflict abort"),
        0x31: ("unsupported_atomic_update", "Unsupported atomic hardware update fault"),
        0x34: ("lockdown", "IMPLEMENTATION DEFINED fault (Lockdown)"),
        0x35: (
            "unsupported_exclusive",
            "IMPLEMENTATION DEFINED fault (Unsupported Exclusive or Atomic access)",
        ),
        0x3D: ("domain", "Section Domain fault (AArch32 Short-descriptor format)"),
        0x3E: ("domain", "Page Domain fault (AArch32 Short-descriptor format)"),
    }
    for code, (kind, text) in others.items():
        codes[code] = FaultStatus(kind, None, text)
    return codes


FAULT_STATUS: dict[int, FaultStatus] = _fault_statuses()

_FSC = {code: status.text for code, status in FAULT_STATUS.items()}


def _yes(yes: str, no: str) -> dict[int, str]:
    return {0: no, 1: yes}


def _register(number: int) -> str:
    return f"x{number}" if number < 31 else "xzr (or SP)"


def _immediate(value: int) -> str:
    return f"#{value:#x}"


def _number(value: int) -> str:
    return str(value)


def _coprocessor_register(value: int) -> str:
    return f"c{value}"


def _raw(value: int) -> str:
    return f"{value:#x}"


CV = Field("CV", 24, 24, "Condition code valid", _yes("COND is valid", "COND is not valid"))
COND = Field("COND", 23, 20, "Condition code", CONDITION_TEXTS)
RT = Field("Rt", 9, 5, "General-purpose register of the transfer", _register)

EC = Field("EC", 31, 26, "Exception Class", {value: info.name for value, info in CLASSES.items()})
IL = Field("IL", 25, 25, "Instruction Length", _yes("32-bit instruction", "16-bit instruction"))

RAW_ISS = (Field("ISS", 24, 0, "Instruction Specific Syndrome", _raw),)

_CM = Field(
    *("CM", 8, 8, "Cache maintenance"),
    _yes(
        "cache maintenance or address translation instruction", "not cache maintenance or address translation"
    ),
)
_WNR = Field("WnR", 6, 6, "Write not Read", _yes("write", "read"))
_FNV = Field("FnV", 10, 10, "FAR not Valid", _yes("FAR is not valid", "FAR is valid"))
_EA = Field(
    "EA", 9, 9, "External abort type", _yes("IMPLEMENTATION DEFINED type 1", "IMPLEMENTATION DEFINED type 0")
)
_VNCR = Field(
    *("VNCR", 13, 13, "Access through VNCR_EL2"),
    _yes("made by an MRS or MSR at EL1 that uses VNCR_EL2", "not an access that uses VNCR_EL2"),
)
_S1PTW = Field(
    *("S1PTW", 7, 7, "Stage 2 fault on a stage 1 table walk"),
    _yes("stage 2 fault on an access of a stage 1 table walk", "not on a stage 1 table walk"),
)
_SET = Field(
    *("SET", 12, 11, "Synchronous Error Type"),
    {0: "Recoverable state (UER)", 2: "Uncontainable (UC)", 3: "Restartable state (UEO)"},
)
_LST = Field(
    *("LST", 12, 11, "Load/Store Type"),
    {0: "not a LD64B or ST64B* instruction, or not said", 1: "ST64BV", 2: "LD64B or ST64B", 3: "ST64BV0"},
)
_TOPLEVEL = Field(
    *("TopLevel", 21, 21, "TopLevel fault"),
    _yes("TopLevel permission of a table descriptor was missing", "not a TopLevel fault"),
)
_PFV = Field("PFV", 14, 14, "PFAR valid", _yes("PFAR is valid", "PFAR is not valid"))
_WU = Field(
    *("WU", 17, 16, "Write Update"),
    {
        0: "not a store, or not said",
        2: "a store whose location was not updated",
        3: "a store whose location was updated",
    },
)
_DFSC = Field("DFSC", 5, 0, "Data Fault Status Code", _FSC)
_IFSC = Field("IFSC", 5, 0, "Instruction Fault Status Code", _FSC)
_FNP = Field("FnP", 15, 15, "FAR not Precise", _yes("FAR is not precise", "FAR is precise"))

DABT_ISS2 = (
    Field(
        "HDBSSF",
        43,
        43,
        "Hardware Dirty state tracking fault",
        _yes("fault of the HDBSS", "not a fault of the HDBSS"),
    ),
    Field("TnD", 42, 42, "Tag not Data", _yes("access to an Allocation Tag", "access to data, or not said")),
    Field(
        *("TagAccess", 41, 41, "NoTagAccess fault"),
        _yes("stage 2 NoTagAccess permission was violated", "not a NoTagAccess fault"),
    ),
    Field(
        "GCS",
        40,
        40,
        "Guarded Control Stack",
        _yes("access to the Guarded Control Stack", "not a GCS access"),
    ),
    Field(
        "AssuredOnly", 39, 39, "AssuredOnly fault", _yes("AssuredOnly attribute", "not an AssuredOnly fault")
    ),
    Field("Overlay", 38, 38, "Overlay fault", _yes("Overlay permissions", "not by Overlay permissions")),
    Field("DirtyBit", 37, 37, "Dirty state fault", _yes("dirty state", "not by dirty state")),
    Field("Xs", 36, 32, "Register of ST64BV or ST64BV0 status", _register),
)
IABT_ISS2 = tuple(
    field for field in DABT_ISS2 if field.name in ("HDBSSF", "AssuredOnly", "Overlay", "DirtyBit")
)
GPC_ISS2 = tuple(field for field in DABT_ISS2 if field.name in ("HDBSSF", "GCS"))
GCS_ISS2 = tuple(field for field in DABT_ISS2 if field.name == "GCS")

_DABT_COMMON = (_FNV, _EA, _CM, _S1PTW, _WNR, _DFSC)
_DABT_VALID = (
    Field(
        "ISV",
        24,
        24,
        "Instruction Syndrome Valid",
        _yes("ISS[23:14] describes the instruction", "ISS[23:14] says nothing of the instruction"),
    ),
    Field("SAS", 23, 22, "Syndrome Access Size", {0: "1 byte", 1: "2 bytes", 2: "4 bytes", 3: "8 bytes"}),
    Field("SSE", 21, 21, "Syndrome Sign Extend", _yes("sign-extended", "not sign-extended")),
    Field("SRT", 20, 16, "Syndrome Register Transfer", _register),
    Field("SF", 15, 15, "Sixty-Four bit register", _yes("64-bit register", "32-bit register")),
    Field(
        "AR",
        14,
        14,
        "Acquire/Release",
        _yes("acquire or release semantics", "no acquire or release semantics"),
    ),
)
_DABT_INVALID = (_DABT_VALID[0], _TOPLEVEL, _FNP, _PFV)

LAYOUTS: dict[str, tuple[Field, ...]] = {
    "RES0": (),
    "RAW": RAW_ISS,
    "IMPDEF": (Field("IMPLEMENTATION DEFINED", 24, 0, "IMPLEMENTATION DEFINED syndrome", _raw),),
    "PROFILING": (
        Field(
            *("FSC", 5, 1, "Reason of the exception"),
            {
                0: "PMU counter overflow",
                1: "Profiling Buffer management event",
                2: "Trace buffer management event",
            },
        ),
        Field("SYNC", 0, 0, "Taken synchronously", _yes("synchronous", "asynchronous")),
    ),
    "WFX": (
        *(CV, COND),
        Field("RN", 9, 5, "Register Number of WFET or WFIT", _register),
        Field("RV", 2, 2, "Register field Valid", _yes("RN is valid", "RN is not valid")),
        Field("TI", 1, 0, "Trapped instruction", {0: "WFI", 1: "WFE", 2: "WFIT", 3: "WFET"}),
    ),
    "MCR": (
        *(CV, COND),
        Field("Opc2", 19, 17, "Opc2 of the instruction", _number),
        Field("Opc1", 16, 14, "Opc1 of the instruction", _number),
        Field("CRn", 13, 10, "CRn of the instruction", _coprocessor_register),
        RT,
        Field("CRm", 4, 1, "CRm of the instruction", _coprocessor_register),
        Field("Direction", 0, 0, "Direction of the access", _yes("read (MRC or VMRS)", "write (MCR)")),
    ),
    "MCRR": (
        *(CV, COND),
        Field("Opc1", 19, 16, "Opc1 of the instruction", _number),
        Field("Rt2", 14, 10, "Second general-purpose register", _register),
        RT,
        Field("CRm", 4, 1, "CRm of the instruction", _coprocessor_register),
        Field("Direction", 0, 0, "Direction of the access", _yes("read (MRRC)", "write (MCRR)")),
    ),
    "LDC": (
        *(CV, COND),
        Field("imm8", 19, 12, "Immediate of the instruction", _immediate),
        Field("Rn", 9, 5, "Base register", _register),
        Field("Offset", 4, 4, "Sign of the offset", _yes("added", "subtracted")),
        Field(
            *("AM", 3, 1, "Addressing mode"),
            {
                0: "immediate unindexed",
                1: "immediate post-indexed",
                2: "immediate offset",
                3: "immediate pre-indexed",
                4: "literal unindexed",
                6: "literal offset",
            },
        ),
        Field(
            "Direction",
            0,
            0,
            "Direction of the access",
            _yes("read from memory (LDC)", "write to memory (STC)"),
        ),
    ),
    "FP": (CV, COND),
    "OTHER": (
        Field(
            *("ISS", 24, 0, "Trapped instruction"),
            {0: "ST64BV", 1: "ST64BV0", 2: "LD64B or ST64B", 3: "TSB CSYNC", 4: "PSB CSYNC"},
        ),
    ),
    "BTI": (Field("BTYPE", 1, 0, "PSTATE.BTYPE that caused the exception", _number),),
    "IMM16": (Field("imm16", 15, 0, "Immediate of the instruction", _immediate),),
    "COMMENT": (Field("Comment", 15, 0, "Immediate of the instruction", _immediate),),
    "SMC32": (
        *(CV, COND),
        Field(
            *("CCKNOWNPASS", 19, 19, "Condition known to have passed"),
            _yes(
                "the instruction may have been conditional",
                "the instruction was unconditional or passed its condition",
            ),
        ),
    ),
    "MSRR": (
        Field("Op0", 21, 20, "Op0 of the instruction", _number),
        Field("Op2", 19, 17, "Op2 of the instruction", _number),
        Field("Op1", 16, 14, "Op1 of the instruction", _number),
        Field("CRn", 13, 10, "CRn of the instruction", _number),
        Field("Rt", 9, 6, "Register pair, Rt[4:1]", lambda value: f"x{2 * value}, x{2 * value + 1}"),
        Field("CRm", 4, 1, "CRm of the instruction", _number),
        Field("Direction", 0, 0, "Direction of the access", _yes("read (MRRS)", "write (MSRR or SYSP)")),
    ),
    "SYS64": (
        Field("Op0", 21, 20, "Op0 of the instruction", _number),
        Field("Op2", 19, 17, "Op2 of the instruction", _number),
        Field("Op1", 16, 14, "Op1 of the instruction", _number),
        Field("CRn", 13, 10, "CRn of the instruction", _number),
        RT,
        Field("CRm", 4, 1, "CRm of the instruction", _number),
        Field("Direction", 0, 0, "Direction of the access", _yes("read (MRS or SYSL)", "write (MSR or SYS)")),
    ),
    "ERET": (
        Field("ERET", 1, 1, "Kind of ERET", _yes("ERETAA or ERETAB", "ERET")),
        Field("ERETA", 0, 0, "Key of the authenticating ERET", _yes("ERETAB (key B)", "ERETAA (key A)")),
    ),
    "TSTART": (Field("Rd", 9, 5, "Destination register", _register),),
    "PACFAIL": (
        Field("DnI", 1, 1, "Data or Instruction key", _yes("data key", "instruction key")),
        Field("BnA", 0, 0, "B or A key", _yes("B key", "A key")),
    ),
    "SME": (
        Field(
            *("SMTC", 2, 0, "SME trap code"),
            {
                0: "access to SME, by CPACR_EL1.SMEN, CPTR_EL2.SMEN, CPTR_EL2.TSM or CPTR_EL3.ESM",
                1: "illegal in Streaming SVE mode (PSTATE.SM is 1)",
                2: "illegal outside Streaming SVE mode (PSTATE.SM is 0)",
                3: "ZA or ZT0 is not active (PSTATE.ZA is 0)",
                4: "access to ZT0, by SMCR_ELx.EZT0",
            },
        ),
    ),
    "GPC": (
        Field(
            "S2PTW",
            21,
            21,
            "On a stage 2 table walk",
            _yes("on a stage 2 table walk", "not on a stage 2 table walk"),
        ),
        Field("InD", 20, 20, "Instruction or Data", _yes("instruction access", "data access")),
        Field(
            *("GPCSC", 19, 14, "Granule Protection Check Status Code"),
            {
                0x00: "GPT address size fault, level 0",
                0x01: "GPT address size fault, level 1",
                0x04: "GPT walk fault, level 0",
                0x05: "GPT walk fault, level 1",
                0x0C: "Granule protection fault, level 0",
                0x0D: "Granule protection fault, level 1",
                0x14: "Synchronous External abort on GPT fetch, level 0",
                0x15: "Synchronous External abort on GPT fetch, level 1",
            },
        ),
        *(_VNCR, _CM, _S1PTW, _WNR),
        Field("xFSC", 5, 0, "Instruction or Data Fault Status Code", _FSC),
    ),
    "IABT": (
        *(_TOPLEVEL, _PFV, _SET._replace(meaning={0: "not valid with this IFSC"})),
        *(_FNV, _EA, _S1PTW, _IFSC),
    ),
    "IABT SET": (_TOPLEVEL, _PFV, _SET, _FNV, _EA, _S1PTW, _IFSC),
    "DABT ISV": (*_DABT_VALID, _VNCR, *_DABT_COMMON),
    "DABT ISV LST": (*_DABT_VALID, _VNCR, _LST, *_DABT_COMMON),
    "DABT ISV SET": (*_DABT_VALID, _VNCR, _SET, *_DABT_COMMON),
    "DABT": (*_DABT_INVALID, _VNCR, *_DABT_COMMON),
    "DABT LST": (*_DABT_INVALID, _VNCR, _LST, *_DABT_COMMON),
    "DABT SET": (_DABT_VALID[0], _TOPLEVEL, _WU, _FNP, _PFV, _VNCR, _SET, *_DABT_COMMON),
    "MOPS": (
        Field("MemInst", 24, 24, "Memory instruction", _yes("Memory Set", "Memory Copy")),
        Field("isSETG", 23, 23, "SETG*", _yes("SETG* (sets tags too)", "not SETG*")),
        Field("Options", 22, 19, "Options of the instruction", _raw),
        Field(
            "FromEpilogue",
            18,
            18,
            "From the epilogue",
            _yes("epilogue instruction", "not the epilogue instruction"),
        ),
        # DDI 0487M.a shows the two as one, FormatOption: the registers are in the format of option A when they differ.
        Field(
            "WrongOption", 17, 17, "Wrong option (FormatOption[1])", _yes("not OptionA", "as OptionA says")
        ),
        Field("OptionA", 16, 16, "Option A (FormatOption[0])", _yes("option A", "option B")),
        Field("destreg", 14, 10, "Destination address register", _register),
        Field("srcreg", 9, 5, "Source address or data register", _register),
        Field("sizereg", 4, 0, "Size register", _register),
    ),
    "FPEXC": (
        Field(
            "TFV",
            23,
            23,
            "Trapped Fault Valid",
            _yes("IDF, IXF, UFF, OFF, DZF, IOF are valid", "the flags are not valid"),
        ),
        Field("VECITR", 10, 8, "Vector iteration (AArch32)", _number),
        Field("IDF", 7, 7, "Input Denormal", _yes("occurred", "did not occur")),
        Field("IXF", 4, 4, "Inexact", _yes("occurred", "did not occur")),
        Field("UFF", 3, 3, "Underflow", _yes("occurred", "did not occur")),
        Field("OFF", 2, 2, "Overflow", _yes("occurred", "did not occur")),
        Field("DZF", 1, 1, "Divide by Zero", _yes("occurred", "did not occur")),
        Field("IOF", 0, 0, "Invalid Operation", _yes("occurred", "did not occur")),
    ),
    "SERROR IDS": (
        Field(
            "IDS", 24, 24, "IMPLEMENTATION DEFINED syndrome", _yes("IMPLEMENTATION DEFINED", "architected")
        ),
        Field("IMPLEMENTATION DEFINED", 23, 0, "IMPLEMENTATION DEFINED syndrome", _raw),
    ),
    "DEBUG": (Field("IFSC", 5, 0, "Instruction Fault Status Code", {0x22: "Debug exception"}),),
    "STEP": (
        Field("ISV", 24, 24, "Instruction Syndrome Valid", _yes("EX is valid", "EX is not valid")),
        Field(
            "EX", 6, 6, "Exclusive operation", _yes("a Load-Exclusive was stepped", "not a Load-Exclusive")
        ),
        Field("IFSC", 5, 0, "Instruction Fault Status Code", {0x22: "Debug exception"}),
    ),
    "WP": (
        Field("WPT", 23, 18, "Watchpoint number", _number),
        Field("WPTV", 17, 17, "Watchpoint number Valid", _yes("WPT is valid", "WPT is not valid")),
        Field("WPF", 16, 16, "Watchpoint might be false-positive", _yes("might be a false positive", "real")),
        *(_FNP, _VNCR, _FNV, _CM, _WNR),
        Field("DFSC", 5, 0, "Data Fault Status Code", {0x22: "Debug exception"}),
    ),
}

_IDS = LAYOUTS["SERROR IDS"][0]
_AET = Field(
    *("AET", 12, 10, "Asynchronous Error Type"),
    {
        0: "Uncontainable (UC)",
        1: "Unrecoverable state (UEU)",
        2: "Restartable state (UEO)",
        3: "Recoverable state (UER)",
        6: "Corrected (CE)",
    },
)
_SERROR_DFSC = Field(
    *("DFSC", 5, 0, "Data Fault Status Code"),
    {0x00: "Uncategorized error", 0x11: "Asynchronous SError exception"},
)
_SERROR_RAS = (
    Field(
        *("ELS", 18, 18, "Meaning of ELR"),
        _yes("triggered by the instruction at ELR", "asynchronous, ELR does not say the trigger"),
    ),
    _WU,
    Field("VFV", 15, 15, "FAR valid", _yes("FAR is valid", "FAR is not valid")),
    _PFV,
    Field(
        *("IESB", 13, 13, "Implicit error synchronization"),
        _yes("synchronized by an implicit ESB", "not by an implicit ESB"),
    ),
)
LAYOUTS["SERROR AET"] = (
    *(_IDS, *_SERROR_RAS, _AET, _EA),
    Field("WnRV", 7, 7, "WnR valid", _yes("WnR is valid", "WnR is not valid")),
    *(_WNR, _SERROR_DFSC),
)
LAYOUTS["SERROR"] = (
    *(_IDS, *_SERROR_RAS),
    _AET._replace(meaning={0: "not valid with this DFSC"}),
    *(_EA, _SERROR_DFSC),
)

_GCS_EXTYPE = Field(
    *("ExType", 23, 20, "Type of GCS exception"),
    {0: "GCS data check", 1: "EXLOCK", 2: "GCSSTR or GCSSTTR"},
)
LAYOUTS["GCS"] = (_GCS_EXTYPE,)
LAYOUTS["GCS DATA"] = (
    _GCS_EXTYPE,
    Field("Rn", 9, 5, "Register of the instruction", _register),
    Field(
        *("IT", 4, 0, "Instruction type"),
        {
            0: "RET",
            1: "GCSPOPM",
            2: "RETAA, RETAASPPC or RETAASPPCR",
            3: "RETAB, RETABSPPC or RETABSPPCR",
            4: "GCSSS1",
            5: "GCSSS2",
            8: "GCSPOPCX",
            9: "GCSPOPX",
        },
    ),
)
LAYOUTS["GCS STORE"] = (
    _GCS_EXTYPE,
    Field("Raddr", 14, 10, "Address register", _register),
    Field("Rvalue", 9, 5, "Value register", _register),
)


def layout_key(encoding: str, iss: int) -> str:
    """Return the key of ``LAYOUTS`` that is in force for an ISS: some encodings depend on ISV, DFSC, IDS or
    ExType.
    """
    status = iss & 0x3F
    if encoding == "DABT":
        key = "DABT ISV" if iss >> 24 & 1 else "DABT"
        if status in _EXTERNAL_CODES:
            return key + " SET"
        return key + " LST" if status in _LST_CODES else key
    if encoding == "IABT":
        return "IABT SET" if status == 0x10 else "IABT"
    if encoding == "SERROR":
        if iss >> 24 & 1:
            return "SERROR IDS"
        return "SERROR AET" if status == 0x11 else "SERROR"
    if encoding == "GCS":
        return {0: "GCS DATA", 2: "GCS STORE"}.get(iss >> 20 & 0xF, "GCS")
    return encoding


# Data Aborts report LST for translation, access flag and permission faults, SET and WU for External aborts.
_LST_CODES = frozenset(
    code
    for code, status in FAULT_STATUS.items()
    if status.kind in ("translation", "access_flag", "permission")
)
_EXTERNAL_CODES = frozenset(code for code, status in FAULT_STATUS.items() if status.kind == "external_abort")

ISS2_LAYOUTS: dict[str, tuple[Field, ...]] = {
    "DABT": DABT_ISS2,
    "IABT": IABT_ISS2,
    "WP": GCS_ISS2,
    "GPC": GPC_ISS2,
    "RAW": (Field("ISS2", 55, 32, "Instruction Specific Syndrome 2", _raw),),
}
