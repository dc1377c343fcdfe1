"""What Perfetto and a terminal are shown: slices that nest, and instants that say what happened."""

from __future__ import annotations

import csv
import itertools
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from gdbhyp.cli.main import main
from gdbhyp.render.style import Style
from gdbhyp.render.text import trace_timeline
from gdbhyp.trace import files
from gdbhyp.trace.events import Event, Lost, Returned, Taken
from gdbhyp.trace.listing import Filter, no_symbol
from gdbhyp.trace.spans import Spans
from gdbhyp.trace.timeline import timeline
from gdbhyp.trace.worlds import Party, WorldTracker

DATA = Path(__file__).with_name("data")
TRACES = sorted([DATA / "demo-int.log", *DATA.glob("kvm-*.txt")])
VM, A, B = 1, 3 << 48 | 0x1000, 4 << 48 | 0x1000
HVC, DABT = 0x5A000000, 0x93C08046


def taken(seq: int, time: int, cpu: int = 0, vttbr: int = 0, esr: int = HVC) -> Taken:
    hcr = VM if vttbr else 0
    return Taken(
        seq, cpu, 0x2400, 1, time, esr, far=0x18, hpfar=0x90000, elr=0x1000, hcr=hcr, vttbr=vttbr, x0=7
    )


def back(seq: int, time: int, cpu: int = 0, vttbr: int = 0) -> Returned:
    return Returned(seq, cpu, 1, 0x1000, time, VM if vttbr else 0, vttbr)


EVENTS: list[Event] = [
    taken(0, 1000),
    back(1, 3000, vttbr=A),
    taken(2, 4000, cpu=1),
    taken(3, 8000, vttbr=A, esr=DABT),
    back(4, 9000),
    back(5, 9500, cpu=1, vttbr=B),
    taken(6, 12000),
    taken(7, 20000, cpu=1, vttbr=B),
]


def test_spans() -> None:
    spans = Spans(WorldTracker())
    found = [span for event in EVENTS for span in spans.take(event)[1]]
    assert found == [
        (0, Party("hypervisor"), 1000, 3000),
        (0, Party("guest", 3), 3000, 8000),
        (0, Party("hypervisor"), 8000, 9000),
        (0, Party("host"), 9000, 12000),
        (1, Party("hypervisor"), 4000, 9500),
        (1, Party("guest", 4), 9500, 20000),
    ]


def test_nothing_is_known_around_a_loss() -> None:
    spans = Spans(WorldTracker())
    events: list[Event] = [taken(0, 1000), Lost(1, 5, "test"), taken(2, 9000)]
    assert [span for event in events for span in spans.take(event)[1]] == []


def exported(path: Path, tmp_path: Path) -> list[dict[str, Any]]:
    out = tmp_path / "out.json"
    assert main(["trace", "export", str(path), "--format", "chrome", "-o", str(out)]) == 0
    document = json.loads(out.read_text())
    assert document.keys() == {"traceEvents"}
    items: list[dict[str, Any]] = document["traceEvents"]
    return items


def as_perfetto(microseconds: float) -> int:
    """Return the nanoseconds that Perfetto makes of a number."""
    return int(microseconds * 1000.0)


def check_format(items: list[dict[str, Any]]) -> None:
    """Every object is one of the trace format, each track is named, and its slices follow each other."""
    named = {(i["pid"], i["tid"]) for i in items if i["name"] == "thread_name"}
    processes = {i["pid"] for i in items if i["name"] == "process_name"}
    tracks: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for item in items:
        assert isinstance(item["pid"], int)
        assert isinstance(item["tid"], int)
        assert isinstance(item["name"], str)
        if item["ph"] == "M":
            assert item["args"].keys() == {"name"}
            continue
        assert item["ts"] >= 0
        assert (item["pid"], item["tid"]) in named
        assert item["pid"] in processes
        if item["ph"] == "X":
            assert item["dur"] >= 0
            tracks[item["pid"], item["tid"]].append((as_perfetto(item["ts"]), as_perfetto(item["dur"])))
        else:
            assert (item["ph"], item["s"]) == ("i", "t")
    for slices in tracks.values():
        for (begin, length), (following, _) in itertools.pairwise(slices):
            assert begin + length <= following


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_chrome(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = exported(path, tmp_path)
    check_format(items)
    assert main(["trace", "stat", str(path), "--json"]) == 0
    stat = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert sum(item["ph"] == "i" for item in items) == stat["exceptions"]


def test_nanoseconds_survive(tmp_path: Path) -> None:
    """Slices that follow each other do so to the nanosecond, of times whose division by 1000 is rounded."""
    times = list(itertools.accumulate(range(1, 400), initial=1000))
    assert any(as_perfetto(time / 1000) != time for time in times)
    events = [
        taken(number, time, vttbr=A) if number % 2 else back(number, time, vttbr=A)
        for number, time in enumerate(times)
    ]
    trace = tmp_path / "trace.jsonl"
    files.write(str(trace), files.Header("break"), events)
    slices = [item for item in exported(trace, tmp_path) if item["ph"] == "X" and item["pid"] == 1]
    begins = [as_perfetto(item["ts"]) for item in slices]
    ends = [begin + as_perfetto(item["dur"]) for begin, item in zip(begins, slices, strict=True)]
    assert (begins, ends) == (times[1:-1], times[2:])


def test_chrome_tracks_and_arguments(tmp_path: Path) -> None:
    """A track for each CPU, and a process for each VM; an exit says what the syndrome says."""
    trace = tmp_path / "trace.jsonl"
    files.write(str(trace), files.Header("break"), EVENTS)
    items = exported(trace, tmp_path)
    check_format(items)
    processes = {i["args"]["name"]: i["pid"] for i in items if i["name"] == "process_name"}
    assert processes.keys() == {"CPUs", "host", "guest VMID 3", "guest VMID 4"}
    of_a = [i for i in items if i["pid"] == processes["guest VMID 3"] and i["ph"] == "X"]
    assert [(i["ts"], i["dur"], i["tid"]) for i in of_a] == [(3.0, 5.0, 0)]
    exit_of_a = next(i for i in items if i["ph"] == "i" and i["args"].get("vmid") == 3)
    assert exit_of_a["name"].startswith("guest write of 8 bytes from x0 to IPA 0x9000018")
    arguments = exit_of_a["args"]
    assert (arguments["ec"], arguments["ipa"], arguments["pc"]) == (0x24, "0x9000018", "0x1000")
    assert arguments["class"] == "Data Abort from a lower Exception level"
    assert arguments["fields"]["WnR"]


def draw(events: list[Event], width: int = 60, **options: Any) -> list[str]:
    report = timeline(
        events,
        WorldTracker(),
        options.pop("wanted", Filter()),
        options.pop("last", 100),
        no_symbol,
        **options,
    )
    return list(trace_timeline.render(report, Style(width=width)))


def test_timeline() -> None:
    """19 us in 50 columns: who ran longest in each, and where exceptions were taken."""
    first, marks, second, _, scale, *legend = draw(EVENTS, 59)
    assert first.startswith("CPU 0  |^^^^^A")
    assert "A^^" in first
    assert first.rstrip("| ").endswith("h")
    assert marks.count("'") == 3
    assert second.startswith("CPU 1  |       ")
    assert second.endswith("B|")
    assert scale.endswith("0.019 ms")
    assert legend[:4] == ["h  host", "^  hypervisor", "A  guest VMID 3", "B  guest VMID 4"]


@pytest.mark.parametrize("width", [1, 40, 80, 200])
def test_timeline_fits(width: int) -> None:
    lanes = [line for line in draw(EVENTS, width) if "|" in line]
    assert all(len(line) == max(width, 20 + 7 + 2) for line in lanes)


def test_timeline_of_nothing_and_of_one() -> None:
    assert draw([]) == ["no recorded exception matches"]
    assert draw([taken(0, 5)])[0].startswith("CPU 0")
    assert draw(EVENTS, wanted=Filter(vmid=9)) == ["no recorded exception matches"]
    assert "0.008 ms" in "".join(draw(EVENTS, wanted=Filter(time=(3000, 12000))))


def test_csv_has_every_column(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    trace = str(DATA / "kvm-trace-cmd.txt")
    assert main(["trace", "export", trace, "--format", "csv", "-o", str(out)]) == 0
    heading, *rows = csv.reader(out.read_text().splitlines())
    assert len(rows) == 5
    fault = dict(zip(heading, rows[0], strict=False))
    assert (fault["world"], fault["esr"], fault["ec"]) == ("guest", "0x93c08046", "36")
    # Where only the class is known, no syndrome is made up.
    sysreg = dict(zip(heading, rows[3], strict=False))
    assert (sysreg["ec"], sysreg["esr"]) == ("24", "")
