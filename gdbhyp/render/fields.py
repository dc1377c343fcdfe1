"""A bit field as a row of a table."""

from __future__ import annotations

from gdbhyp.render.style import Style


def field_row(name: str, msb: int, lsb: int, value: int, text: str, style: Style) -> list[str]:
    """Return the cells of a field: its bits as the manual prints them, name, value and meaning."""
    bits = f"[{msb}:{lsb}]" if msb > lsb else f"[{msb}]"
    number = f"{value:#x}" if msb > lsb else str(value)
    # A number that reads the same in decimal and hexadecimal needs no second form.
    same = text == number or (text == str(value) and value < 10)
    meaning = "" if same else text
    return [style.paint("dim", bits), style.paint("name", name), number, meaning]


def indented(table: str) -> list[str]:
    """Return the lines of a table, indented below the line that it belongs to."""
    return [f"  {line}".rstrip() for line in table.splitlines()]
