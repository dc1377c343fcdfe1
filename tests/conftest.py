"""What holds for all tests: which cases are drawn, and what runs beside what.

Property tests draw the same cases in CI, so that a change is judged by what it changes, and fresh ones elsewhere.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("fresh", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "fresh")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give whole files to a worker of xdist, and all that asks one booted machine to the same."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))


def _group(item: pytest.Item) -> str:
    parameters = getattr(item, "callspec", None)
    machine = parameters.params.get("rig") if parameters is not None else None
    if machine is not None:
        return f"rig {machine}"
    return "xen" if "xen" in getattr(item, "fixturenames", ()) else str(item.path)
