"""Any file that holds a machine's memory, with its registers from a file or from options, as a Stop."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from gdbhyp.arch.features import EVERYTHING, ID_REGISTERS
from gdbhyp.engine.machine import Machine
from gdbhyp.engine.stop import Stop
from gdbhyp.errors import BadInput
from gdbhyp.targets.elf import MAGIC, open_elf
from gdbhyp.targets.flat import FlatMemory, open_image


def open_dump(name: str, registers: Mapping[str, int]) -> Stop:
    """Open a dump: an ELF core, or a raw image as ``FILE@ADDRESS``; ``registers`` are those of its CPU.

    Without any ID register, the CPU is taken for one that implements everything: then the control registers alone
    decide how a table is read.

    :raises BadInput: with a sentence, if the file is neither.
    """
    known = dict(registers)
    if not any(register in known for register in ID_REGISTERS):
        known |= EVERYTHING
    memory = _memory(name)
    return Stop(Machine(known, memory), origin=name, ram=lambda: memory.ranges)


def _memory(name: str) -> FlatMemory:
    path = Path(name)
    if "@" in name and not path.exists():
        return FlatMemory([open_image(name)])
    try:
        with path.open("rb") as file:
            magic = file.read(len(MAGIC))
    except OSError as error:
        raise BadInput(f"cannot read {name}: {error.strerror}") from error
    if magic == MAGIC:
        return open_elf(path)
    raise BadInput(f"{name} is no ELF core; for a raw image of memory, say FILE@ADDRESS")


def read_registers(path: str | None, assignments: Sequence[str]) -> dict[str, int]:
    """Return registers from a JSON file (``{"HCR_EL2": "0x…"}``), then from ``NAME=VALUE`` words.

    :raises BadInput: if the file is not such an object, or a value is no 64-bit number.
    """
    found = _from_file(path) if path else {}
    for word in assignments:
        name, separator, value = word.partition("=")
        if not separator:
            raise BadInput(f"'{word}' is not NAME=VALUE")
        found[name.strip().upper()] = _number(name, value)
    return found


def _from_file(path: str) -> dict[str, int]:
    try:
        values = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise BadInput(f'{path} is not an object of registers, {{"HCR_EL2": "0x..."}}')
    return {name.upper(): _number(name, value) for name, value in values.items()}


def _number(name: str, value: object) -> int:
    try:
        number = int(value, 0) if isinstance(value, str) else value
    except ValueError:
        number = None
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 1 << 64:
        raise BadInput(f"the value of {name} is no 64-bit number")
    return number
