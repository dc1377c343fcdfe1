"""What a program's ELF file says about itself: its build ID, and where its code was linked to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gdbhyp.errors import BadInput


@dataclass(frozen=True)
class Program:
    """A linked program; ``build_id`` is hexadecimal, "" without one; ``text`` is the address of its .text section."""

    build_id: str
    text: int


def read_program(path: str) -> Program:
    """Read the headers of an ELF file.

    :raises BadInput: if it cannot be read, is no ELF file, or has no .text section.
    """
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        with Path(path).open("rb") as file:
            elf = ELFFile(file)
            text = elf.get_section_by_name(".text")
            if text is None:
                raise BadInput(f"{path} has no .text section, so it is no program with symbols")
            return Program(_build_id(elf), int(text["sh_addr"]))
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error
    except (ELFError, ValueError, KeyError, IndexError, UnicodeError, OverflowError) as error:
        raise BadInput(f"{path} is no ELF file that can be read: {error}") from error


def _build_id(elf: object) -> str:
    from elftools.elf.sections import NoteSection

    for section in elf.iter_sections():  # type: ignore[attr-defined]
        if isinstance(section, NoteSection):
            for note in section.iter_notes():
                if note["n_type"] == "NT_GNU_BUILD_ID":
                    return str(note["n_desc"])
    return ""
