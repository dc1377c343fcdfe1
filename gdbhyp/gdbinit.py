"""``source`` this file in GDB to load gdbhyp; sourcing it again is harmless.

GDB's Python does not see an activated virtual environment, and ``PYTHONPATH`` misses what ``.pth`` files add. So the
places that can hold gdbhyp's dependencies are added here, in front of the system's own packages (which may be older),
before anything else is imported. Nothing is removed from the path and nothing is installed.
"""

import os
import site
import sys


def _dependency_folders(package: str) -> "list[str]":
    """Return the folders that may hold the dependencies: of this install, told, or of a virtual environment."""
    home = os.path.dirname(package)
    if os.path.basename(home) in ("site-packages", "dist-packages"):
        return [home]
    told = os.environ.get("GDBHYP_SITE", "")
    environments = [os.environ.get("VIRTUAL_ENV", ""), os.path.join(home, ".venv")]
    found = [home, told] if told else [home]
    for environment in filter(None, environments):
        lib = os.path.join(environment, "lib")
        versions = sorted(os.listdir(lib)) if os.path.isdir(lib) else []
        found.extend(os.path.join(lib, version, "site-packages") for version in versions)
    return [folder for folder in found if os.path.isdir(folder)]


def _prefer(folders: "list[str]") -> None:
    """Add ``folders``, and what their ``.pth`` files name, to the front of the module path."""
    before = list(sys.path)
    for folder in folders:
        site.addsitedir(folder)
        if folder not in sys.path:
            sys.path.append(folder)
    added = [entry for entry in sys.path if entry not in before]
    sys.path[:] = added + before


# Sourced from another Python script, this one finds that script's name in ``__file__``; its own is in its code.
_prefer(_dependency_folders(os.path.dirname(os.path.abspath(sys._getframe().f_code.co_filename))))

from gdbhyp.plugin import load  # noqa: E402

load.load()
