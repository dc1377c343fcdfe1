"""What was learnt of a kernel, kept in the person's cache folder by its build ID.

A file is a line of JSON about the image, and then its parts, as they were read or in the simplest form. It is text and
numbers; nothing of it is executed. A file that is damaged, of another version of gdbhyp's format, or of another
kernel is as good as none, and the folder may be removed at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gdbhyp.hypervisors.linux.image import Image
from gdbhyp.hypervisors.linux.kallsyms import Kallsyms

_FORMAT = "gdbhyp linux image 2"
_MOST_FILES = 32
_LARGEST_LINE = 4096
_LARGEST_PART = 128 << 20


def folder() -> Path:
    """Return the folder: below XDG_CACHE_HOME, ``~/.cache`` where that is not set."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "gdbhyp" / "linux"


def headers() -> Iterator[dict[str, Any]]:
    """Yield what the cache knows about each kernel, the one used last first, without reading its parts."""
    try:
        files = sorted(folder().glob("*.image"), key=lambda path: -path.stat().st_mtime)
    except OSError:
        return
    for path in files[:_MOST_FILES]:
        with contextlib.suppress(OSError, ValueError, RecursionError), path.open("rb") as file:
            header = json.loads(file.readline(_LARGEST_LINE))
            if _is_header(header, path.stem):
                yield header


def _is_header(header: object, build_id: str) -> bool:
    if not isinstance(header, dict) or header.get("format") != _FORMAT or header.get("build_id") != build_id:
        return False
    numbers = ("note", "tcr", "base_less", "size")
    vectors = header.get("vectors")
    return (
        all(_is_number(header.get(name)) for name in numbers)
        and all(header.get(name) is None or _is_number(header.get(name)) for name in ("root", "base_word"))
        and isinstance(vectors, list)
        and all(map(_is_number, vectors))
        and isinstance(header.get("banner"), str)
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 64


def load(build_id: str) -> Image | None:
    """Return the image of a build ID, None if there is no sound file."""
    path = folder() / f"{build_id}.image"
    try:
        with path.open("rb") as file:
            header = json.loads(file.readline(_LARGEST_LINE))
            packed = file.read(_LARGEST_PART + 1)
        if not _is_header(header, build_id) or hashlib.sha256(packed).hexdigest() != header.get("sha256"):
            return None
        unpack = zlib.decompressobj()
        names, offsets, types = _parts(unpack.decompress(packed, _LARGEST_PART))
        os.utime(path)
    except (OSError, ValueError, RecursionError, zlib.error):
        return None
    values = array("q")
    values.frombytes(offsets)
    if sys.byteorder == "big":
        values.byteswap()
    entries = names.decode("utf-8", "replace").split("\n")
    if len(entries) != len(values):
        return None
    return Image(
        build_id=build_id,
        banner=header["banner"],
        symbols=Kallsyms(entries, values, 0),
        types=types,
        base_word=header["base_word"],
        base_less=header["base_less"],
        note=header["note"],
        root=header["root"],
        tcr=header["tcr"],
    )


def _parts(data: bytes) -> list[bytes]:
    """Split what ``_joined`` put together.

    :raises ValueError: if it is cut off.
    """
    parts, at = [], 0
    for _ in range(3):
        size = int.from_bytes(data[at : at + 8], "little")
        parts.append(data[at + 8 : at + 8 + size])
        if len(parts[-1]) != size:
            raise ValueError("cut off")
        at += 8 + size
    return parts


def _joined(parts: list[bytes]) -> bytes:
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)


def save(image: Image, vectors: list[int]) -> None:
    """Keep an image; ``vectors`` are the offsets that exception vectors are at. A full disk or the like is no error."""
    if len(image.build_id) != 40:
        return
    offsets = array("q", image.symbols.offsets)
    if sys.byteorder == "big":
        offsets.byteswap()
    names = "\n".join(image.symbols.entries).encode()
    packed = zlib.compress(_joined([names, offsets.tobytes(), image.types]), 1)
    header = {
        "format": _FORMAT,
        "build_id": image.build_id,
        "banner": image.banner,
        "base_word": image.base_word,
        "base_less": image.base_less,
        "note": image.note,
        "root": image.root,
        "tcr": image.tcr,
        "vectors": vectors,
        "size": len(packed),
        "sha256": hashlib.sha256(packed).hexdigest(),
    }
    with contextlib.suppress(OSError):
        target = folder()
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target, delete=False) as file:
            try:
                file.write(json.dumps(header).encode() + b"\n" + packed)
                file.close()
                os.replace(file.name, target / f"{image.build_id}.image")
            except BaseException:
                os.unlink(file.name)
                raise
        _trim(target)


def _trim(target: Path) -> None:
    """Keep the files of the kernels that were used last."""
    for path in sorted(target.glob("*.image"), key=lambda path: -path.stat().st_mtime)[_MOST_FILES:]:
        path.unlink()
