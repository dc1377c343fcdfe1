"""The JSON tables of the architecture, each of which names its source in its key "source"."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_DATA = Path(__file__).parent


def load(name: str) -> dict[str, Any]:
    """Return the table ``name`` of this directory as parsed JSON; the caller keeps it."""
    with (_DATA / name).open(encoding="utf-8") as file:
        document: dict[str, Any] = json.load(file)
    return document
