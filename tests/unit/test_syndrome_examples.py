"""The examples in the docstrings of the syndrome, register and call tables are true."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["syndrome", "registers", "sysregs_aarch32"])
def test_docstrings(name: str) -> None:
    module = importlib.import_module(f"gdbhyp.arch.{name}")
    failed, attempted = doctest.testmod(module)
    assert attempted > 0
    assert failed == 0
