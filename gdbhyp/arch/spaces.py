"""Addresses are a number and a space; values of registers are neither.

The types cost nothing at run time, are checked by mypy, and tell the JSON renderer what is printed as ``"0x…"``.
"""

from __future__ import annotations

from typing import NewType

VA = NewType("VA", int)
"""A virtual address: the input of stage 1."""

IPA = NewType("IPA", int)
"""An intermediate physical address: the output of stage 1 and the input of stage 2 of the EL1&0 regime."""

PA = NewType("PA", int)
"""A physical address."""

Address = NewType("Address", int)
"""An address whose space is said by a field beside it."""

Word = NewType("Word", int)
"""The value of a register, a descriptor or a field of one: printed in hexadecimal."""
