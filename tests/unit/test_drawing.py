"""Maps as bands: nothing is lost, and nothing that is drawn is wrong."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.machines import HYP, TEXT, Nvhe

from gdbhyp.analyses.drawing import Band, bars, coarser, draw, stretches
from gdbhyp.analyses.map import Question, map_tables
from gdbhyp.analyses.trees import trees_of
from gdbhyp.arch.regimes import Regime
from gdbhyp.arch.spaces import Address
from gdbhyp.render.output import text_lines
from gdbhyp.render.style import Style


def band(start: int, end: int, look: str = "data") -> Band:
    return Band(Address(start), Address(end), Address(0), 1, end - start, look, "rw-", "Normal")  # type: ignore[arg-type]


@st.composite
def some_bands(draw_: st.DrawFn) -> list[Band]:
    edges = sorted(draw_(st.sets(st.integers(0, 1 << 48), min_size=2, max_size=60)))
    looks = draw_(st.lists(st.sampled_from(["data", "code"]), min_size=30, max_size=30))
    return [band(a, b, look) for a, b, look in zip(edges[::2], edges[1::2], looks, strict=False)]


@given(some_bands(), st.integers(1, 20))
def test_coarser(bands: list[Band], most: int) -> None:
    found = coarser(bands, most)
    assert len(found) <= max(most, 1)
    assert sum(each.ranges for each in found) == len(bands)
    assert sum(each.mapped for each in found) == sum(each.mapped for each in bands)
    assert all(left.end <= right.start for left, right in pairwise(found))
    for each in found:
        inside = [one for one in bands if each.start <= one.start and one.end <= each.end]
        assert (each.start, each.end) == (inside[0].start, inside[-1].end)
        assert each.look in (
            {one.look for one in inside} if len({o.look for o in inside}) == 1 else {"several"}
        )
        assert (each.output is None) == (each.ranges > 1)


@given(some_bands())
def test_stretches(bands: list[Band]) -> None:
    """Every band is in exactly one stretch, which begins and ends with a band."""
    found = stretches(bands)
    for each in bands:
        assert sum(start <= each.start and each.end <= end for start, end in found) == 1
    assert {start for start, _ in found} <= {each.start for each in bands}
    assert {end for _, end in found} <= {each.end for each in bands}


def test_stretches_leave_the_emptiness_out() -> None:
    bands = [band(0x1000, 0x3000), band(0x4000, 0x8000), band(1 << 40, (1 << 40) + 0x1000)]
    assert stretches(bands) == ((0x1000, 0x8000), (1 << 40, (1 << 40) + 0x1000))
    assert stretches([]) == ()


def test_looks() -> None:
    tree = next(tree for tree in trees_of(Nvhe().stop()).trees if tree.who == "hypervisor")
    drawing = draw(tree.label, tree.ranges(), 100)
    looks = {each.look for each in drawing.bands}
    assert {"code", "data", "device"} <= looks
    assert not drawing.coarse
    code = next(each for each in drawing.bands if each.look == "code")
    assert (code.start, code.output) == (HYP + TEXT, TEXT)


@pytest.mark.parametrize("width", [0, 60, 200])
def test_bars(width: int) -> None:
    report = bars(map_tables(Nvhe().stop(), Question(regime=Regime.EL2)))
    lines = list(text_lines(report, Style(width=width)))
    (stretch,) = (line for line in lines if line.startswith(f"{HYP + TEXT:#x}"))
    assert len(stretch) <= (width or 100)
    assert set(stretch.split()[-1]) <= set("WR.~X!D-")
    assert lines[-2].startswith("3 ranges")


def test_writable_code_always_shows() -> None:
    """One page of a GiB is less than a cell."""
    report = bars(map_tables(Nvhe().stop(), Question(regime=Regime.EL2)))
    drawing = report.drawing
    page = band(drawing.bands[0].start, drawing.bands[0].start + 1, "writable code")
    changed = type(drawing)(
        drawing.label, "VA", "PA", 2, 2, False, (page, *drawing.bands), drawing.stretches, ()
    )
    assert any("!" in line for line in text_lines(type(report)(changed, ()), Style()))
