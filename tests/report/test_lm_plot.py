"""The picture of perplexity by size of the training text."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from fitune.language_models.figures import CurvePoint
from fitune.report.lm_plot import HEIGHT, WIDTH, Line, Picture, marks

LINES = tuple(
    Line(name, tuple(CurvePoint(1000 * 2**i, start / 1.5**i) for i in range(4)))
    for name, start in [("ngram", 200.0), ("hmm <3>", 400.0), ("lstm", 201.0)]
)
PICTURE = Picture("Perplexity of a & b", "words", LINES)


def places(svg: str) -> dict[str, list[tuple[float, float]]]:
    lines = re.findall(r'<polyline class="line" points="([^"]*)"', svg)
    return {
        line.name: [tuple(map(float, pair.split(","))) for pair in points.split()]  # type: ignore[misc]
        for line, points in zip(LINES, lines, strict=True)
    }


def test_it_is_well_formed_and_needs_nothing_from_elsewhere() -> None:
    svg = PICTURE.svg()
    ElementTree.fromstring(svg)
    assert re.findall(r"https?://[^\"' ]+", svg) == ["http://www.w3.org/2000/svg"]
    page = PICTURE.page()
    assert "a &amp; b" in page and "hmm &lt;3&gt;" in page and "<script" not in page
    assert re.findall(r"https?://[^\"' ]+", page) == ["http://www.w3.org/2000/svg"]


def test_a_power_law_is_a_straight_line_inside_the_picture() -> None:
    for points in places(PICTURE.svg()).values():
        xs, ys = [x for x, _ in points], [y for _, y in points]
        assert all(0 < x < WIDTH for x in xs) and all(0 < y < HEIGHT for y in ys)
        steps = [(b - a, d - c) for a, b, c, d in zip(xs, xs[1:], ys, ys[1:], strict=False)]
        assert all(step == pytest.approx(steps[0], abs=0.2) for step in steps)
        assert steps[0][0] > 0 and steps[0][1] > 0  # more text is to the right, less perplexity low


def test_labels_do_not_lie_on_each_other() -> None:
    heights = [
        float(y) for y in re.findall(r'<text x="\d+" y="([\d.]+)" style="fill', PICTURE.svg())
    ]
    assert len(heights) == 3
    assert all(abs(a - b) >= 16 for i, a in enumerate(heights) for b in heights[:i])


def test_the_page_says_the_figures() -> None:
    page = PICTURE.page()
    for text in ("1,000", "8,000", "200.00", "59.26", "words to learn from"):
        assert text in page


@pytest.mark.parametrize(("low", "high"), [(3, 900), (5.1, 5.9), (1, 1.01), (90, 110), (2, 1e9)])
def test_marks_are_inside_and_few(low: float, high: float) -> None:
    found = marks(low, high)
    assert 2 <= len(found) <= 12 and found == sorted(found)
    assert all(low <= mark <= high for mark in found)


def test_without_a_curve_nothing_is_drawn() -> None:
    ElementTree.fromstring(Picture("Perplexity", "words", ()).svg())
