"""Small worlds as the specification: a file in worlds/ is a CPU, a memory, and questions with their answers.

::

    cpu everything                  # ID registers: everything, v8.0, or everything with changes as register
    lines SCTLR_EL1 = 0x5                 # registers; a|b|c is allowed, 1<<n too PSTATE.PAN = 1 0x1000:
    0x2003 0 0x3003         # memory, eight bytes each; zero up to the end of the 4 KiB page walk EL1&0 both -
    0x5123 -> PA 0x9123 walk EL1&0 both w0 0x5123 -> fault permission S1 L3 at S1E1R 0x5123 ->
    0xff00000000009b80

A walk names the regime, the stages, an access (``-`` for none, else r, w or x and the Exception level; ``p``
after it: PSTATE.PAN counts), the address, and what comes out: ``PA`` or ``IPA``, address, rights and memory
if given, or the fault with stage, level and ``ptw``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from unit.pagetables import EVERYTHING, SparseMemory

from gdbhyp.arch.features import ID_REGISTERS
from gdbhyp.engine.at import address_translate, run_case
from gdbhyp.engine.machine import Machine
from gdbhyp.engine.translate import Access, Regime, Translation, translate

WORLDS = sorted((Path(__file__).parent / "worlds").glob("*.txt"))
CPUS = {
    "everything": EVERYTHING,
    "v8.0": dict.fromkeys(ID_REGISTERS, 0) | {"ID_AA64MMFR0_EL1": 5 | 1 << 20, "ID_AA64PFR0_EL1": 0x2222},
}
KINDS = {"r": "read", "w": "write", "x": "execute"}


class World:
    """A parsed file."""

    def __init__(self, path: Path) -> None:
        self.registers: dict[str, int] = {}
        self.pstate: dict[str, int] = {}
        self.memory = SparseMemory()
        self.questions: list[tuple[int, str]] = []
        for number, raw in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            line = raw.partition("#")[0].strip()
            if line:
                self._line(number, line)

    def _line(self, number: int, line: str) -> None:
        if line.startswith("cpu "):
            self.registers.update(CPUS[line.split()[1]])
        elif "->" in line:
            self.questions.append((number, line))
        elif "=" in line:
            name, _, value = line.partition("=")
            name = name.strip()
            where = self.pstate if name.startswith("PSTATE.") else self.registers
            where[name.removeprefix("PSTATE.")] = number_of(value)
        else:
            address, _, words = line.partition(":")
            for index, word in enumerate(words.split()):
                self.memory.write_word(int(address, 0) + 8 * index, number_of(word))

    @property
    def machine(self) -> Machine:
        return Machine(self.registers, self.memory, self.pstate)


def number_of(text: str) -> int:
    """Read ``0x5 | 1<<10 | 3<<8``."""
    value = 0
    for part in text.split("|"):
        number, _, shift = part.partition("<<")
        value |= int(number, 0) << int(shift or "0", 0)
    return value


def told(found: Translation, wanted: str) -> str:
    """Say an answer in as many words as the wanted one has."""
    if found.fault is not None:
        fault = found.fault
        text = f"fault {fault.kind} S{fault.stage} L{fault.level}" + (" ptw" if fault.s1ptw else "")
        for flag in ("overlay", "dirty_bit", "top_level", "assured_only"):
            text += f" {flag}" if getattr(fault, flag) else ""
        return text
    assert found.output is not None
    assert found.permissions is not None
    assert found.attributes is not None
    words = [f"{found.output_space} {found.output:#x}", found.permissions.text, found.attributes.memory]
    return " ".join(words[: min(len(wanted.split(maxsplit=3)) - 1, 3)])


def questions() -> list[ParameterSet]:
    return [
        pytest.param(path, line, id=f"{path.stem}:{number}")
        for path in WORLDS
        for number, line in World(path).questions
    ]


@pytest.mark.parametrize(("path", "line"), questions())
def test_world(path: Path, line: str) -> None:
    world = World(path)
    question, _, wanted = (part.strip() for part in line.partition("->"))
    # Digits are grouped in the files, but "access_flag" keeps its underscore.
    wanted = " ".join(f"{int(word, 0):#x}" if word.startswith("0x") else word for word in wanted.split())
    verb, *words = question.split()
    if verb == "at":
        op, address = words
        result = address_translate(world.machine, op, int(address, 0))
        text = f"{result.par:#x}" + (" exception" if result.exception else "")
        assert text == wanted
        regs = {name: hex(value) for name, value in world.registers.items()}
        case = {"op": op, "va": address, "regs": regs, "pstate": world.pstate}
        assert run_case(case, world.memory)["par"] == wanted.split()[0]
        return
    regime, stages, access, address = words
    wanted_access = None
    if access != "-":
        wanted_access = Access(KINDS[access[0]], int(access[1]), access.endswith("p"))
    found = translate(world.machine, int(address, 0), Regime(regime), stages=stages, access=wanted_access)
    assert told(found, wanted) == wanted


def test_there_are_worlds() -> None:
    assert len(WORLDS) > 10
