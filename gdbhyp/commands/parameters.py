"""What a person may choose with ``set hyp NAME VALUE``; each is declared once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gdbhyp.errors import UsageError


@dataclass(frozen=True)
class Parameter:
    """One parameter.

    ``kind`` is "choice" (one of ``values``, of which the first holds until another is set), "number", "text" or "path";
    the others' ``default`` holds. ``summary`` completes "Set …" and "Show …", as a help's first line does; ``shown`` is
    what ``show`` prints, with the value for ``{}``; ``description`` says what the values mean. ``check`` refuses a
    value with a UsageError or BadInput.
    """

    name: str
    summary: str
    shown: str
    description: str
    kind: str = "choice"
    values: tuple[str, ...] = ()
    default: str = ""
    check: Callable[[str], object] = str

    @property
    def initial(self) -> str:
        """The value that holds until another is set."""
        return self.values[0] if self.values else self.default


def register_values(text: str) -> dict[str, int]:
    """Return the registers that ``NAME=VALUE NAME=VALUE ...`` says.

    :raises UsageError: for a word of another form.
    """
    values = {}
    for word in text.replace(",", " ").split():
        name, equals, number = word.partition("=")
        try:
            value = int(number, 0)
        except ValueError:
            value = -1
        if not equals or not name.replace("_", "").isalnum() or not 0 <= value < 1 << 64:
            raise UsageError(
                f"'{word}' is no register: write NAME=VALUE, for example ID_AA64MMFR0_EL1=0x1122"
            )
        values[name.upper()] = value
    return values


def _check_map(path: str) -> None:
    if path:
        from gdbhyp.commands.register_map import read

        read(path)


MEMORY = Parameter(
    name="memory",
    values=("auto", "stub", "qemu-pread", "ram-file"),
    summary="how physical memory is read.",
    shown="Physical memory is read by '{}'.",
    description="""
  auto        the fastest of these that can be had
  stub        the stub's physical memory mode, which also works from afar
  qemu-pread  the memory of a QEMU process on this machine
  ram-file    the file of a memory-backend-file with share=on
'hyp-status -v' says which of them is in use, and why not another one.""",
)
HYPERVISOR = Parameter(
    name="hypervisor",
    values=("auto", "kvm-nvhe", "kvm-vhe", "kvm-hvhe", "pkvm", "xen", "unknown"),
    summary="which hypervisor owns EL2.",
    shown="The hypervisor is '{}'.",
    description="""
With 'auto' it is recognised by the code at VBAR_EL2. Anything else is believed, for a hypervisor that was changed so
that it is not recognised; 'hyp-status -v' says so.""",
)
FEATURES = Parameter(
    name="features",
    kind="text",
    summary="ID registers that the stub lacks or gets wrong.",
    shown="Registers given by hand: '{}'.",
    description="""
The value is NAME=VALUE NAME=VALUE ..., for example: set hyp features ID_AA64MMFR0_EL1=0x1122 ID_AA64MMFR1_EL1=0
Without ID registers, a processor is taken for one that has every feature, so that control registers alone decide. What
is given here goes before what the stub shows. An empty value takes it all back.""",
    check=register_values,
)
REGISTERS = Parameter(
    name="registers",
    kind="path",
    summary="the file that says how a stub's registers are had.",
    shown="How registers are had: '{}'.",
    description="""
For stubs that use other names than the Arm ARM and QEMU, or show registers by a monitor command alone: 'hyp-help stubs'
describes the file, with an example for OpenOCD. An empty value takes it back.""",
    check=_check_map,
)
MAX_TABLES = Parameter(
    name="max-tables",
    kind="number",
    default="4194304",
    summary="how many tables a map reads at most.",
    shown="A map reads at most {} tables.",
    description="""
Tables that point to themselves would never end. 'hyp-map --max-tables' goes before it.""",
)
COLOUR = Parameter(
    name="colour",
    values=("auto", "on", "off"),
    summary="whether gdbhyp's text is coloured.",
    shown="Colour is '{}'.",
    description="""
With 'auto', text is coloured where GDB colours its own ('set style enabled'), on a terminal and not in a pipe.""",
)

PARAMETERS = (MEMORY, HYPERVISOR, FEATURES, REGISTERS, MAX_TABLES, COLOUR)
