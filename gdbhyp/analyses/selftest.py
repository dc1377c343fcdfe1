"""Whether gdbhyp and the target's own translation agree, on the machine at hand."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

from gdbhyp.analyses.map import MapRow, Question, map_tables
from gdbhyp.analyses.walk import machine_for, regime_of
from gdbhyp.arch import faults
from gdbhyp.arch.regimes import Regime
from gdbhyp.arch.spaces import PA, VA
from gdbhyp.engine.results import Access, Translation
from gdbhyp.engine.stop import Stop
from gdbhyp.engine.translate import translate
from gdbhyp.errors import GdbhypError

Oracle = Callable[[int], int | None]
"""The target's own translation of a VA for a read by the CPU as it stands; None where it faults."""

# Ranges and tables that are looked at for addresses to ask about; a sample needs no whole map.
_RANGES = 20_000
_TABLES = 2_000

_PAGE = 0x1000
_ALL = (1 << 64) - 1
_POINTERS = ("PC", "SP", "ELR_EL1", "ELR_EL2", "FAR_EL1", "FAR_EL2", "VBAR_EL1", "VBAR_EL2")


@dataclass(frozen=True)
class Difference:
    """An address for which the two disagree; None stands for a fault, which ``fault`` then names for gdbhyp's side."""

    va: VA
    ours: PA | None
    theirs: PA | None
    fault: str | None


@dataclass(frozen=True)
class SelftestReport:
    """How many of the ``asked`` translations were the same, and how many of those led to memory (``mapped``).

    They were reads by the CPU as it stands, at exception level ``el``, drawn from ``seed``. ``set_aside`` are those
    that say nothing: Access flag faults, for QEMU's walk for a debugger goes on without the flag. ``problems`` are
    addresses that gdbhyp did not answer, in sentences.
    """

    kind: ClassVar[str] = "selftest"

    oracle: str
    regime: Regime
    el: int
    seed: int
    asked: int
    agreed: int
    mapped: int
    set_aside: int
    differences: tuple[Difference, ...]
    problems: tuple[str, ...]


def selftest(
    stop: Stop, oracle: Oracle, name: str, samples: int, seed: int, progress: Callable[[int], object]
) -> SelftestReport:
    """Translate up to ``samples`` addresses of the current regime and compare with ``oracle``, called ``name``.

    They are inside, at the edges and beside what the tables map, what registers point to, and random ones.

    :raises RegisterUnavailable: if the target lacks a register that the walk starts from.
    """
    regime = regime_of(stop)
    machine = machine_for(stop.machine, regime, "both")
    access = Access("read", stop.el, pan=True)
    chance = random.Random(seed)
    agreed = mapped = asked = set_aside = 0
    differences, problems = [], []
    for va in _sample(stop, samples, chance):
        progress(asked)
        asked += 1
        try:
            found = translate(machine, va, regime, access=access)
        except GdbhypError as error:
            problems.append(f"VA {va:#x}: {error}")
            continue
        theirs = oracle(va)
        if found.output == theirs:
            agreed += 1
            mapped += theirs is not None
        elif found.fault is not None and found.fault.kind == faults.ACCESS_FLAG:
            set_aside += 1
        else:
            differences.append(_difference(va, found, theirs))
    return SelftestReport(
        oracle=name,
        regime=regime,
        el=stop.el,
        seed=seed,
        asked=asked,
        agreed=agreed,
        mapped=mapped,
        set_aside=set_aside,
        differences=tuple(differences),
        problems=tuple(problems),
    )


def _difference(va: int, found: Translation, theirs: int | None) -> Difference:
    return Difference(
        VA(va),
        None if found.output is None else PA(found.output),
        None if theirs is None else PA(theirs),
        found.fault.text if found.fault else None,
    )


def _sample(stop: Stop, samples: int, chance: random.Random) -> list[int]:
    """Return different addresses in random order; a quarter of them need not be mapped."""
    drawn = dict.fromkeys(_pointed_at(stop, chance))
    rows = list(islice(map_tables(stop, Question(most_tables=_TABLES)).rows, _RANGES))
    inside = _inside(rows, chance)
    for number in range(4 * samples):
        if len(drawn) >= samples:
            break
        drawn[next(inside) if rows and number % 4 else _anywhere(chance)] = None
    chosen = list(drawn)
    chance.shuffle(chosen)
    return chosen[:samples]


def _pointed_at(stop: Stop, chance: random.Random) -> Iterator[int]:
    for name in (*_POINTERS, *(f"X{n}" for n in range(31))):
        value = stop.optional(name)
        if value is not None:
            yield value
            yield (value + chance.randrange(-16 * _PAGE, 16 * _PAGE)) & _ALL


def _inside(rows: list[MapRow], chance: random.Random) -> Iterator[int]:
    """Yield addresses inside ranges, at their edges, and just outside."""
    while True:
        row = chance.choice(rows)
        within = row.start + chance.randrange(row.end - row.start)
        yield chance.choice((within, within, row.start, row.end - 1, row.end & _ALL, row.start - 1 & _ALL))


def _anywhere(chance: random.Random) -> int:
    low = chance.getrandbits(chance.choice((32, 40, 48, 52, 56)))
    return low | (0xFFFF << 48 if chance.getrandbits(1) else 0)
