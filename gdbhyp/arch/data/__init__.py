"""The tables of the architecture that are data files; each names its source."""

from __future__ import annotations

import json
import os.path
from typing import Any


def text(name: str) -> str:
    """Return the file ``name`` of this directory."""
    # pathlib would cost more to import than the file takes to read.
    with open(os.path.join(os.path.dirname(__file__), name), encoding="utf-8") as file:
        return file.read()


def load(name: str) -> dict[str, Any]:
    """Return the table ``name`` of this directory as parsed JSON; the caller keeps it."""
    document: dict[str, Any] = json.loads(text(name))
    return document
