"""The library: the README's example, and what it says about errors."""

from __future__ import annotations

import doctest
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from support import tools

import gdbhyp

VTCR = 0x8002_3558


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the README's ram.img: stage-2 tables at 0x40000000 with a block and a page."""
    memory = bytearray(0x4000)
    for table, index, descriptor in (
        (0x0000, 2, 0x4000_2003),
        (0x2000, 0, 0x9000_07FD),
        (0x2000, 1, 0x4000_3003),
        (0x3000, 0, 0xA000_077F),
    ):
        struct.pack_into("<Q", memory, table + 8 * index, descriptor)
    (tmp_path / "ram.img").write_bytes(memory)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_readme() -> None:
    text = (tools.ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, "README.md", None, None)
    assert test.examples
    assert doctest.DocTestRunner().run(test).failed == 0


@pytest.mark.usefixtures("folder")
def test_json_is_that_of_the_command_line() -> None:
    stop = gdbhyp.open_dump("ram.img@0x40000000").stop()
    walk = gdbhyp.walk(stop, 0x8020_0123, stages="2", vttbr=0x4000_0000, vtcr=VTCR)
    said = gdbhyp.as_json(walk)
    assert (said["output"], said["steps"][-1]["kind"], "verbose" in said) == ("0xa0000123", "page", False)


@pytest.mark.usefixtures("folder")
def test_errors_are_sentences() -> None:
    stop = gdbhyp.open_dump("ram.img@0x40000000").stop()
    with pytest.raises(gdbhyp.GdbhypError, match="does not show"):
        gdbhyp.walk(stop, 0x1000)
    with pytest.raises(gdbhyp.GdbhypError, match="cannot read nothing"):
        gdbhyp.open_dump("nothing")
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = gdbhyp.no_such_name


def test_importing_costs_nothing() -> None:
    """The package itself imports none of its modules, for GDB and the command line import it first."""
    code = "import gdbhyp, sys; print(sorted(m for m in sys.modules if m.startswith('gdbhyp')))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "['gdbhyp']"


def test_all_names() -> None:
    from gdbhyp import api

    assert sorted(gdbhyp.__all__) == sorted(["__version__", *api.__all__])
    assert set(gdbhyp.__all__) <= set(dir(gdbhyp))
    for name in api.__all__:
        assert getattr(gdbhyp, name) is getattr(api, name)
