"""A page about the architecture, with what it says of the stopped CPU filled in.

A page is a title, text, and behind a line ``Here:`` sentences with names in braces: ``{VTCR_EL2}`` is a register,
``{VTCR_EL2.SL0}`` one of its fields with its meaning, and ``{stage2.start_level}`` and the like what follows from
several. What cannot be known is said to be so.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from gdbhyp.analyses.exception import last_exception
from gdbhyp.analyses.registers import describe, field_named
from gdbhyp.analyses.walk import regime_of
from gdbhyp.analyses.world import world_of
from gdbhyp.arch.granules import FINAL_LEVEL, stride
from gdbhyp.arch.regimes import Regime
from gdbhyp.arch.stage2 import Stage2Params
from gdbhyp.arch.worlds import Hcr
from gdbhyp.engine.stop import Stop
from gdbhyp.engine.walk import setup
from gdbhyp.errors import GdbhypError


@dataclass(frozen=True)
class TopicReport:
    """A page. ``here`` are its sentences about the CPU; ``missing`` says why there are none."""

    kind: ClassVar[str] = "topic"

    topic: str
    title: str
    text: str
    here: tuple[str, ...]
    missing: str | None


@dataclass(frozen=True)
class TopicRow:
    """A page that there is."""

    topic: str
    title: str


@dataclass(frozen=True)
class TopicList:
    """All pages; in JSON a line each."""

    kind: ClassVar[str] = "topic_list"
    json_lines: ClassVar[bool] = True

    rows: tuple[TopicRow, ...]


def page(topic: str, source: str, stop: Callable[[], Stop]) -> TopicReport:
    """Return the page whose text is ``source``; ``stop`` is asked only if the page has something to fill in."""
    text, _, here = source.partition("\nHere:\n")
    title, _, body = text.partition("\n")
    try:
        lines = tuple(filled(stop(), line.strip()) for line in here.splitlines() if line.strip())
        missing = None
    except GdbhypError as error:
        lines, missing = (), str(error)
    return TopicReport(topic, title, body.strip("\n"), lines, missing)


def filled(stop: Stop, line: str) -> str:
    """Return ``line`` with every name in braces replaced by its value."""
    return re.sub(r"\{([A-Za-z_][\w.]*)\}", lambda match: _known(stop, match[1]), line)


def _known(stop: Stop, name: str) -> str:
    try:
        register, dot, field = name.partition(".")
        if not register.isupper():
            return _COMPUTED[name](stop)
        return _field(stop, register, field) if dot else f"{stop.register(register):#x}"
    except GdbhypError as error:
        return f"not known ({error})"


def _field(stop: Stop, register: str, name: str) -> str:
    e2h = Hcr(stop.register("HCR_EL2")).e2h
    view = describe(register, stop.register(register), e2h=e2h, verbose=True)
    field = field_named(register, view.fields, name)
    value = str(field.value) if field.value < 10 else f"{field.value:#x}"
    return f"{value} ({field.text})" if field.text not in ("", value) else value


def _stage2(say: Callable[[Stage2Params], str]) -> Callable[[Stop], str]:
    """Return how a sentence about stage 2 is made of its parameters, where they describe a walk."""

    def value(stop: Stop) -> str:
        stop.register("VTCR_EL2")
        params = setup(stop.machine.registers.get, Regime.EL10, force_stage2=True).second
        if params is None or params.misprogrammed:
            return "(VTCR_EL2 describes no valid walk)"
        return say(params)

    return value


def _entries(params: Stage2Params) -> int:
    """Return how many entries the first level has, those of concatenated tables included."""
    return 1 << max(params.input_bits - params.tgx - (FINAL_LEVEL - params.start) * stride(params.tgx), 0)


def _tables(params: Stage2Params) -> str:
    count = max(_entries(params) >> stride(params.tgx), 1)
    return f"{count} concatenated tables" if count > 1 else "1 table, not concatenated"


def _size(size: int) -> str:
    return f"{size >> 10} KiB" if size >= 1024 else f"{size} bytes"


def _hpfar(stop: Stop) -> str:
    exception = last_exception(stop)
    if exception.abort is None:
        return "not valid, for the last exception is no abort"
    if not exception.abort.hpfar_valid:
        return "not valid for it"
    return f"valid for it, IPA page {(stop.register('HPFAR_EL2') & 0xFFFF_FFFF_FFF0) << 8:#x}"


_COMPUTED: dict[str, Callable[[Stop], str]] = {
    "el": lambda stop: str(stop.el),
    "regime": lambda stop: regime_of(stop).value,
    "world": lambda stop: world_of(stop)[0],
    "world_reason": lambda stop: world_of(stop)[1],
    "esr.summary": lambda stop: last_exception(stop).summary,
    "esr.hpfar": _hpfar,
    "stage2.vmid": _stage2(lambda params: str(params.vmid)),
    "stage2.root": _stage2(lambda params: f"{params.base:#x}"),
    "stage2.ipa_bits": _stage2(lambda params: str(params.input_bits)),
    "stage2.start_level": _stage2(lambda params: str(params.start)),
    "stage2.granule": _stage2(lambda params: _size(1 << params.tgx)),
    "stage2.entries": _stage2(lambda params: str(_entries(params))),
    "stage2.tables": _stage2(_tables),
    "stage2.root_size": _stage2(lambda params: _size(_entries(params) * 8)),
}
