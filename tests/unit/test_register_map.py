"""Files that say how a stub's registers are had, and registers given by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gdbhyp.commands.parameters import register_values
from gdbhyp.commands.register_map import RegisterMap, printed_value, read
from gdbhyp.commands.topic import source
from gdbhyp.errors import BadInput, UsageError


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text(
        '{"names": {"hcr_el2": "hcr"}, "monitor": {"VTTBR_EL2": "x 1"}, "values": {"A": "0x10", "B": 3}}'
    )
    assert read(str(path)) == RegisterMap({"HCR_EL2": "hcr"}, {"VTTBR_EL2": "x 1"}, {"A": 16, "B": 3})


def test_the_example_of_the_help_is_one(tmp_path: Path) -> None:
    page = source("stubs")
    example = page[page.index("\n  {") : page.index("\n  }") + 4]
    path = tmp_path / "openocd.json"
    path.write_text(example)
    found, written = read(str(path)), json.loads(example)
    assert (found.names, found.monitor) == (written["names"], written["monitor"])
    assert found.values == {"ID_AA64MMFR0_EL1": 0x1122}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is no JSON object"),
        ("[]", "is no JSON object"),
        ("[" * 100_000, "is no JSON object"),
        ('{"name": {}}', "has a key 'name': its keys are names, monitor, values"),
        ('{"names": []}', "'names' is no object of texts"),
        ('{"monitor": {"A": 1}}', "'monitor' is no object of texts"),
        ('{"monitor": {"A": "x\\n quit"}}', "'monitor' is no object of texts"),
        ('{"values": {"A": "0x10000000000000000"}}', "the value of A is no 64-bit number"),
        ('{"values": {"A": -1}}', "the value of A is no 64-bit number"),
        ('{"values": {"A": true}}', "the value of A is no 64-bit number"),
        ('{"values": 3}', "the value of values is no 64-bit number"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "map.json"
    path.write_text(text)
    with pytest.raises(BadInput, match=sentence):
        read(str(path))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"cannot read .*: No such file"):
        read(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0x1234\n", 0x1234),
        ("VTTBR_EL2 (/64): 0x002a000040218000", 0x2A000040218000),
        ("was 0x1, is 0xff; ready", 0xFF),
        ("hcr_el2 = 80000001 done", 0x80000001),
        ("deadbeef", None),
        ("error: no such register", None),
        ("", None),
    ],
)
def test_what_a_monitor_prints(text: str, value: int | None) -> None:
    assert printed_value(text) == value


def test_registers_by_hand() -> None:
    assert register_values("id_aa64mmfr0_el1=0x1122, HCR_EL2=1") == {"ID_AA64MMFR0_EL1": 0x1122, "HCR_EL2": 1}
    assert register_values("") == {}


@pytest.mark.parametrize(
    "text", ["HCR_EL2", "HCR_EL2=", "HCR_EL2=x", "=3", "A=-1", "A=0x10000000000000000", "A;B=1"]
)
def test_no_registers(text: str) -> None:
    with pytest.raises(UsageError, match="is no register: write NAME=VALUE"):
        register_values(text)
