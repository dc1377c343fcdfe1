"""A vmlinux with debug information but without code, made from a kernel's own types (BTF) by the assembler.

It has the structures that are asked for, and what they hold by value. What a pointer leads to is only declared where
the pointer is, as it is in a compiled file that does not look behind it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

from gdbhyp.hypervisors.linux import btf
from support import tools

# DWARF 4, section 7: an abbreviation's tag, whether it has children, and pairs of attribute and form. Of those forms,
# string is 0x08, data1 0x0b, data4 0x06, ref4 0x13, sdata 0x0d, and flag_present 0x19.
_NAME, _SIZE1, _SIZE4, _TYPE = (0x03, 0x08), (0x0B, 0x0B), (0x0B, 0x06), (0x49, 0x13)
_LOCATION, _BITS, _BIT_AT = (0x38, 0x06), (0x0D, 0x0B), (0x6B, 0x06)
_ABBREVIATIONS = {
    "unit": (0x11, 1, (_NAME,)),
    "base": (0x24, 0, (_NAME, _SIZE1, (0x3E, 0x0B))),
    "pointer": (0x0F, 0, (_SIZE1, _TYPE)),
    "void pointer": (0x0F, 0, (_SIZE1,)),
    "struct": (0x13, 1, (_NAME, _SIZE4)),
    "nameless struct": (0x13, 1, (_SIZE4,)),
    "union": (0x17, 1, (_NAME, _SIZE4)),
    "nameless union": (0x17, 1, (_SIZE4,)),
    "declared struct": (0x13, 0, (_NAME, (0x3C, 0x19))),
    "member": (0x0D, 0, (_NAME, _TYPE, _LOCATION)),
    "nameless member": (0x0D, 0, (_TYPE, _LOCATION)),
    "bits": (0x0D, 0, (_NAME, _TYPE, _BITS, _BIT_AT)),
    "array": (0x01, 1, (_TYPE,)),
    "count": (0x21, 0, ((0x37, 0x06),)),
    "enum": (0x04, 1, (_NAME, _SIZE4)),
    "constant": (0x28, 0, (_NAME, (0x1C, 0x0D))),
    "typedef": (0x16, 0, (_NAME, _TYPE)),
}
_CODES = {name: code for code, name in enumerate(_ABBREVIATIONS, 1)}


def write(
    types: btf.Btf, structs: tuple[str, ...], enums: tuple[str, ...], build_id: str, path: Path
) -> None:
    """Write the ELF file to ``path``; ``build_id`` is hexadecimal. Structures that the kernel lacks are left out."""
    text, compiled = path.with_suffix(".s"), path.with_suffix(".o")
    text.write_text("\n".join(_Assembler(types).lines(structs, enums)) + "\n")
    subprocess.run([tools.need("aarch64-linux-gnu-as"), "-o", str(compiled), str(text)], check=True)
    linker = [tools.need("aarch64-linux-gnu-ld"), "-e", "0", f"--build-id=0x{build_id}"]
    subprocess.run([*linker, "-o", str(path), str(compiled)], check=True)


class _Assembler:
    def __init__(self, types: btf.Btf) -> None:
        self._types = types
        self._wanted: list[int] = []
        self._seen: set[int] = set()
        self._declared: dict[str, str] = {}

    def lines(self, structs: tuple[str, ...], enums: tuple[str, ...]) -> Iterator[str]:
        yield ".text\n nop\n.section .debug_abbrev"
        for code, (tag, children, attributes) in enumerate(_ABBREVIATIONS.values(), 1):
            pairs = [number for pair in attributes for number in pair]
            yield f".uleb128 {code}, {tag}\n.byte {children}\n.uleb128 {', '.join(map(str, (*pairs, 0, 0)))}"
        yield ".byte 0\n.section .debug_info\nstart: .4byte end - start - 4\n.2byte 4\n.4byte 0\n.byte 8"
        yield from self._entry("unit", "types")
        for kind, names in ((btf.STRUCT, structs), (btf.ENUM, enums)):
            for name in names:
                number = self._types.find(kind, name)
                if number is not None:
                    self._want(number)
        yield from self._entry("base", "long", 8, 7, label="long")
        while self._wanted:
            yield from self._type(self._wanted.pop())
        for name, label in self._declared.items():
            yield from self._entry("declared struct", name, label=label)
        yield ".byte 0\nend:"

    def _want(self, number: int) -> str:
        if number not in self._seen:
            self._seen.add(number)
            self._wanted.append(number)
        return f"t{number}"

    def _entry(self, kind: str, *values: str | int, label: str = "") -> Iterator[str]:
        if label:
            yield f"{label}:"
        yield f".uleb128 {_CODES[kind]}"
        sizes = {0x0B: ".byte", 0x06: ".4byte", 0x0D: ".sleb128"}
        forms = [form for _, form in _ABBREVIATIONS[kind][2] if form != 0x19]
        for form, value in zip(forms, values, strict=True):
            if form == 0x08:
                yield f'.asciz "{value}"'
            elif form == 0x13:
                yield f".4byte {value} - start"
            else:
                yield f"{sizes[form]} {value}"

    def _reference(self, number: int) -> str:
        """Return the label of a type; qualifiers are left out, and of what has no structure only the size is kept."""
        types = self._types
        kind, _, _, target, _ = types._record(number)
        while kind in (btf.CONST, btf.VOLATILE, btf.RESTRICT, btf.TYPE_TAG) and target:
            number = target
            kind, _, _, target, _ = types._record(number)
        return self._want(number)

    def _type(self, number: int) -> Iterator[str]:
        types, label = self._types, f"t{number}"
        kind, _, _, size, name_at = types._record(number)
        name = types.text(name_at)
        if kind in (btf.STRUCT, btf.UNION):
            yield from self._composite(number, "struct" if kind == btf.STRUCT else "union", name, size, label)
        elif kind == btf.PTR:
            below = types.resolve(size) if size else 0
            target = types.text(types._record(below)[4]) if types.kind(below) in (btf.STRUCT, btf.FWD) else ""
            if target:
                declared = self._declared.setdefault(target, f"d{len(self._declared)}")
                yield from self._entry("pointer", 8, declared, label=label)
            else:
                yield from self._entry("void pointer", 8, label=label)
        elif kind == btf.ARRAY:
            element, count = types.element(number)
            yield from self._entry("array", self._reference(element), label=label)
            yield from self._entry("count", count)
            yield ".byte 0"
        elif kind == btf.ENUM:
            yield from self._entry("enum", name, size, label=label)
            for constant, value in types.enum_of(number).items():
                yield from self._entry("constant", constant, value)
            yield ".byte 0"
        elif kind == btf.TYPEDEF and size:
            yield from self._entry("typedef", name, self._reference(size), label=label)
        else:
            yield from self._entry("base", name or "int", max(1, types.size(number)) & 0xFF, 7, label=label)

    def _composite(self, number: int, kind: str, name: str, size: int, label: str) -> Iterator[str]:
        if name:
            yield from self._entry(kind, name, size, label=label)
        else:
            yield from self._entry(f"nameless {kind}", size, label=label)
        for own, member in self._types.members(number):
            target = self._reference(member.type)
            if member.bits:
                yield from self._entry("bits", own, target, member.bits, 8 * member.offset + member.shift)
            elif own:
                yield from self._entry("member", own, target, member.offset)
            else:
                yield from self._entry("nameless member", target, member.offset)
        yield ".byte 0"
