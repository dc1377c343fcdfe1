"""The rooms of the package import only from the rooms below them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent.parent / "gdbhyp"

ORDER = {
    "errors": 0,
    "escaping": 0,
    "files": 1,
    "arch": 1,
    "engine": 2,
    "targets": 3,
    "hypervisors": 3,
    "trace": 3,
    "analyses": 4,
    "commands": 5,
    "render": 6,
    "api": 7,
    "plugin": 7,
    "cli": 7,
}
# The file that GDB sources loads the plugin, and belongs to it.
ROOM_OF_FILE = {"gdbinit": "plugin"}
CORE = ("arch", "engine")
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.parent != PACKAGE or p.stem != "__init__")


def room(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return ROOM_OF_FILE.get(first, first)


def imports(path: Path) -> Iterator[str]:
    """Yield the full names of all imported modules, also of those imported in functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def allowed(source: str, target: str) -> bool:
    same_level = ORDER[source] == ORDER[target]
    return ORDER[target] < ORDER[source] or source == target or (same_level and ORDER[source] == 3)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "gdbhyp" and len(parts) > 1 and parts[1] != "__version__":
            assert allowed(room(path), parts[1]), f"{path} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_plugin_knows_gdb(path: Path) -> None:
    if room(path) != "plugin":
        assert "gdb" not in {name.split(".")[0] for name in imports(path)}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_edge_knows_other_packages(path: Path) -> None:
    import sys

    known = {*sys.stdlib_module_names, "gdbhyp"}
    if room(path) == "plugin":
        known |= {"gdb"}
    if room(path) == "render":
        known |= {"tabulate", "pygments"}
    if room(path) == "targets":
        known |= {"cramjam", "lzallright"}
    if room(path) == "cli":
        known |= {"distributed", "fsspec"}
    assert {name.split(".")[0] for name in imports(path)} <= known


def test_every_room_is_ordered() -> None:
    assert {room(p) for p in MODULES} <= set(ORDER)
