"""The reliability diagram: where bars end, and that it stands by itself."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import numpy as np

from fitune.evaluation.calibration import Calibration, calibration
from fitune.report.reliability import HEIGHT, LEFT, SIDE, TOP, WIDTH, reliability_plot


def found(rows: int = 400, seed: int = 0) -> Calibration:
    rng = np.random.default_rng(seed)
    sure = rng.uniform(0.5, 1, rows)
    true = np.where(rng.random(rows) < sure**2, "a", "b").tolist()
    return calibration(np.stack([sure, 1 - sure], axis=1), ["a"] * rows, true, ("a", "b"))


def bars(svg: str, kind: str) -> list[tuple[float, float, float, float]]:
    pattern = rf'class="{kind}" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"'
    return [tuple(map(float, at)) for at in re.findall(pattern, svg)]  # type: ignore[misc]


def test_it_is_well_formed_and_needs_nothing_from_elsewhere() -> None:
    svg = reliability_plot(found())
    ElementTree.fromstring(svg)
    assert re.findall(r"https?://[^\"' ]+", svg) == ["http://www.w3.org/2000/svg"]
    assert "ECE 0." in svg and "Of 400 answers" in svg
    rules = re.search(r"<style>(.*)</style>", svg, re.DOTALL)
    assert rules
    selectors = [part for part in re.findall(r"([^{}]+)\{", rules[1]) if "@media" not in part]
    assert selectors and all(".reliability " in part for part in selectors)


def test_bars_are_as_high_as_the_share_of_right_answers() -> None:
    made = found()
    svg = reliability_plot(made)
    filled = [b for b in made.bins if b.rows]
    right, rows = bars(svg, "right"), bars(svg, "rows")
    assert len(right) == len(rows) == len(filled) == 8  # from one half on
    for (x, y, width, height), one in zip(right, filled, strict=True):
        assert abs(height - SIDE * one.accuracy) < 0.02 and abs(y + height - TOP - SIDE) < 0.02
        assert x > LEFT + SIDE * one.low and x + width < LEFT + SIDE * one.high
    gaps = {kind: bars(svg, kind) for kind in ("over", "under")}
    assert len(gaps["over"]) == sum(b.confidence > b.accuracy for b in filled)
    assert len(gaps["over"]) + len(gaps["under"]) == 8
    total = sum(height for *_, height in gaps["over"] + gaps["under"])
    expected = SIDE * sum(abs(b.confidence - b.accuracy) for b in filled)
    assert abs(total - expected) < 0.2
    tallest = max(rows, key=lambda bar: bar[3])
    assert filled[rows.index(tallest)].rows == max(b.rows for b in filled)


def test_everything_is_inside_the_picture() -> None:
    for rows, seed in ((1, 0), (7, 3), (400, 1)):
        svg = reliability_plot(found(rows, seed))
        for kind in ("right", "over", "under", "rows"):
            for x, y, width, height in bars(svg, kind):
                assert 0 <= x <= x + width <= WIDTH and 0 <= y <= y + height <= HEIGHT
