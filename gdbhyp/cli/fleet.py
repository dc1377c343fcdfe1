"""``gdbhyp fleet``: one question about many dumps, each in a process of its own, here or on a Dask cluster.

A row is a line of JSON: ``{"dump": "vm1.core", "question": "status", "status": 0, "answer": [{...}], "error": null,
"seconds": 0.4}``. ``status`` is the question's exit status, ``answer`` the objects that it printed, ``error`` what it
said on standard error.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from gdbhyp.commands.declaration import Argument, Command, Context
from gdbhyp.errors import BadInput, NoTarget, UsageError

if TYPE_CHECKING:
    from argparse import Namespace

_UNREADABLE = 3
_MOST_JOBS = 1024
# With --dump as an option, the file is no positional of these.
_WITH_OPTION = ("esr", "reg", "at")
# Commands that need no dump, or start something.
_NOT_ABOUT_DUMPS = ("annotate", "fleet", "gdb", "gdbinit", "help", "snapshot", "trace")


@dataclass(frozen=True)
class FleetReport:
    """Answers as they come, each a line of JSON."""

    kind: ClassVar[str] = "fleet"
    raw: ClassVar[bool] = True

    rows: Iterator[str]


def _run(context: Context, arguments: Namespace) -> FleetReport:
    from gdbhyp.commands.parsing import split_words

    words = split_words(arguments.question)
    if not words or words[0] in _NOT_ABOUT_DUMPS or words[0].startswith("-"):
        raise UsageError(
            f"'{arguments.question}' is no question about a dump: try 'status' or 'map --stage2 ...'"
        )
    if arguments.resume and not arguments.results:
        raise UsageError("--resume needs --results FILE, the file of the rows that are there already")
    jobs = _whole_number("--jobs", arguments.jobs, _MOST_JOBS)
    seconds = _whole_number("--timeout", arguments.timeout, 1 << 31)
    done = answered(arguments.results, arguments.question) if arguments.resume else set()
    dumps = [dump for name in arguments.dumps for dump in _expanded(name) if dump not in done]
    if arguments.scheduler:
        rows = _on_cluster(arguments.scheduler, words, dumps, seconds)
    else:
        rows = _here(words, dumps, seconds, jobs)
    return FleetReport(_lines(context, arguments.question, rows, len(dumps), arguments.results))


def _whole_number(option: str, text: str | None, most: int) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or not 0 < int(text) <= most:
        raise UsageError(f"{option} is a number from 1 to {most}, not '{text}'")
    return int(text)


def answered(results: str, question: str) -> set[str]:
    """Return the dumps that a file of rows has an answer for; a half line at its end is of a run that was ended."""
    import json

    found = set()
    with contextlib.suppress(FileNotFoundError), open(results, encoding="utf-8", errors="replace") as file:
        for line in file:
            with contextlib.suppress(ValueError, TypeError, KeyError):
                row = json.loads(line)
                if row["question"] == question and row["status"] in (0, 1):
                    found.add(row["dump"])
    return found


def _expanded(name: str) -> list[str]:
    """Return the dumps that a name stands for: a URL may have ``*``, which the shell expands for local files only."""
    if "://" not in name or "*" not in name:
        return [name]
    try:
        filesystem, path = _fsspec().core.url_to_fs(name)
        protocol = name.partition("://")[0]
        return [f"{protocol}://{found}" for found in sorted(filesystem.glob(path))] or [name]
    except (OSError, ValueError, ImportError) as error:
        raise BadInput(f"cannot list {name}: {error}") from error


def _fsspec() -> Any:
    try:
        import fsspec
    except ImportError as error:
        raise BadInput("URLs need the extra gdbhyp[fleet]: install it, or name local files") from error
    return fsspec


def ask(words: Sequence[str], dump: str, seconds: int | None) -> dict[str, Any]:
    """Return the row of one dump, whatever happens to the process that is asked."""
    started = time.monotonic()
    try:
        with _local(dump) as path:
            row = _ask(words, path, seconds)
    except (BadInput, OSError, ValueError, ImportError) as error:
        row = {"status": _UNREADABLE, "answer": [], "error": f"cannot fetch {dump}: {error}"}
    return {"dump": dump, **row, "seconds": round(time.monotonic() - started, 3)}


@contextlib.contextmanager
def _local(dump: str) -> Iterator[str]:
    """Return the dump as a local file; what a URL names is fetched, and removed afterwards."""
    if "://" not in dump:
        yield dump
        return
    import tempfile
    from pathlib import Path

    url, at, address = dump.rpartition("@") if _has_address(dump) else (dump, "", "")
    filesystem, path = _fsspec().core.url_to_fs(url)
    with tempfile.TemporaryDirectory(prefix="gdbhyp-") as folder:
        local = str(Path(folder) / "dump")
        filesystem.get(path, local)
        yield local + at + address


def _has_address(dump: str) -> bool:
    tail = dump.rpartition("@")[2]
    return (
        "@" in dump
        and tail.lower().removeprefix("0x") != ""
        and all(c in "0123456789abcdefx" for c in tail.lower())
    )


def _ask(words: Sequence[str], path: str, seconds: int | None) -> dict[str, Any]:
    import json
    import subprocess

    name, *rest = words
    target = ["--dump", path] if name in _WITH_OPTION else [path]
    command = [sys.executable, "-m", "gdbhyp.cli.main", name, *target, *rest, "--json"]
    try:
        ran = subprocess.run(
            command, capture_output=True, timeout=seconds, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return {"status": _UNREADABLE, "answer": [], "error": f"no answer within {seconds} seconds"}
    said = ran.stderr.decode("utf-8", "replace").strip()
    if ran.returncode < 0:
        said = f"the process was ended by signal {-ran.returncode}" + (f": {said}" if said else "")
    lines = ran.stdout.decode("utf-8", "replace").splitlines()
    return {"status": ran.returncode, "answer": [json.loads(line) for line in lines], "error": said or None}


def _here(
    words: Sequence[str], dumps: Sequence[str], seconds: int | None, jobs: int | None
) -> Iterator[dict[str, Any]]:
    """Yield the rows of processes on this machine, as many at a time as it has CPUs unless said otherwise."""
    import os
    from concurrent.futures import ThreadPoolExecutor, as_completed

    pool = ThreadPoolExecutor(max_workers=jobs or os.cpu_count() or 1)
    try:
        for future in as_completed([pool.submit(ask, words, dump, seconds) for dump in dumps]):
            yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _on_cluster(
    scheduler: str, words: Sequence[str], dumps: Sequence[str], seconds: int | None
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Dask cluster, whose workers read the dumps by the same names."""
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise BadInput(
            "--scheduler needs the extra gdbhyp[fleet]: install it, or leave the option out"
        ) from error
    try:
        client = Client(scheduler, timeout=10)
    except (OSError, ValueError) as error:
        raise NoTarget(f"no Dask scheduler answers at {scheduler}: {error}") from error
    with client:
        futures = {client.submit(ask, list(words), dump, seconds, pure=False): dump for dump in dumps}
        for future in as_completed(list(futures)):
            if future.status == "finished":
                yield future.result()
            else:
                said = f"the cluster could not ask: {future.exception()}"
                row = {"status": _UNREADABLE, "answer": [], "error": said, "seconds": None}
                yield {"dump": futures[future], **row}


def _lines(
    context: Context, question: str, rows: Iterator[dict[str, Any]], total: int, results: str | None
) -> Iterator[str]:
    """Yield the rows as text, and append each to the file of results the moment it is there."""
    import json

    with contextlib.ExitStack() as stack:
        file = None
        if results:
            try:
                file = stack.enter_context(open(results, "a", encoding="utf-8"))
            except OSError as error:
                raise BadInput(f"cannot write {results}: {error.strerror}") from error
            if file.tell() and not _ends_a_line(results):
                file.write("\n")
        for number, row in enumerate(rows, 1):
            context.progress("dumps", number, total)
            line = json.dumps({"dump": row["dump"], "question": question, **row})
            if file:
                file.write(line + "\n")
                file.flush()
            yield line


def _ends_a_line(name: str) -> bool:
    with open(name, "rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"


COMMAND = Command(
    name="fleet",
    summary="Ask many dumps one question, and print a line of JSON for each.",
    run=_run,
    in_gdb=False,
    in_cli=True,
    arguments=(
        Argument(
            ("question",),
            "a command of gdbhyp about a dump, in quotes, without the dump: 'status', 'map --stage2 --vttbr ...'",
        ),
        Argument(
            ("dumps",),
            "the dumps, as FILE, FILE@ADDRESS, or a URL that fsspec knows (s3://..., ssh://..., with * for several)",
            "path",
            metavar="DUMP",
            repeated=True,
        ),
        Argument(("--jobs",), "how many processes at a time; one a CPU if not said", "text", metavar="N"),
        Argument(
            ("--scheduler",),
            "ask on this Dask cluster, tcp://HOST:PORT, instead of here",
            "text",
            metavar="ADDRESS",
        ),
        Argument(("--timeout",), "give each dump this many seconds", "text", metavar="SECONDS"),
        Argument(("--results",), "also append the rows to this file", "path", metavar="FILE"),
        Argument(("--resume",), "skip the dumps that the file of --results has an answer for"),
    ),
    description="""
Each dump is asked in a process of its own, so that whatever a damaged one does ends in its row, with "status" 3 and
the reason in "error". Rows come as they are ready, not in the order of the dumps.
""",
)
