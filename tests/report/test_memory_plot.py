"""The picture of a step: sound XML, nothing lost in the stack, the peak where it is."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest

from fitune.memory.estimate import Estimate, Moment, PeakAt
from fitune.report.memory_plot import SERIES, Picture, series_of, step_moments

SVG = "{http://www.w3.org/2000/svg}"
GIB = 2**30


def moment(step: int, phase: str, place: str, **terms: int) -> Moment:
    named = {name.replace("_", " "): amount for name, amount in terms.items()}
    return Moment(step, phase, place, sum(named.values()), named)


def made(*moments: Moment) -> Estimate:
    highest = max(moments, key=lambda m: m.bytes)
    return Estimate(
        parameters=1,
        trainable=1,
        peak_bytes=highest.bytes,
        terms=highest.terms,
        peak_at=PeakAt(highest.phase, "aten.mm.default", highest.place),
        phases={m.phase: m.bytes for m in moments},
        timeline=moments,
    )


TRAINING = made(
    moment(0, "update", " -1", weights=GIB, optimizer_states=2 * GIB),
    moment(1, "forward", "embed -1", weights=GIB, optimizer_states=2 * GIB),
    moment(1, "forward", "layers 0", weights=GIB, optimizer_states=2 * GIB, temporaries=GIB // 2),
    moment(1, "loss", " -1", weights=GIB, optimizer_states=2 * GIB, logits_and_loss=GIB),
    moment(1, "backward", "layers 0", weights=GIB, optimizer_states=2 * GIB, gradients=4 * GIB),
    moment(2, "evaluation", "layers 0", weights=GIB, optimizer_states=2 * GIB, strange=GIB // 4),
)


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def test_it_is_sound_and_says_what_it_shows() -> None:
    svg = Picture("a <b> & c", "the peak", TRAINING, budget=8 * GIB).svg()
    root = ElementTree.fromstring(svg)
    assert root.find(f"{SVG}title").text == "a <b> & c"  # type: ignore[union-attr]
    words = texts(svg)
    for word in ("forward", "loss", "backward", "evaluation", "together", "7.00 GiB", "GiB"):
        assert word in words
    assert "budget 8.00 GiB" in words
    assert "update" not in words  # what a trace begins with is no part of a step


def test_nothing_is_loaded_from_elsewhere() -> None:
    picture = Picture("a", "b", TRAINING)
    for text in (picture.svg(), picture.page()):
        links = re.findall(r"(?:src|href)\s*=|url\(|https?://[^\"<]*", text)
        assert set(links) <= {"http://www.w3.org/2000/svg"}


def test_the_stack_reaches_the_sum_of_the_terms() -> None:
    """The upper edge of the highest band, in the picture's own scale."""
    root = ElementTree.fromstring(Picture("a", "b", TRAINING).svg())
    polygons = [
        [tuple(map(float, pair.split(","))) for pair in (p.get("points") or "").split()]
        for p in root.iter(f"{SVG}polygon")
    ]
    (dot,) = root.iter(f"{SVG}circle")
    tops = {y for points in polygons for _, y in points}
    assert min(tops) == pytest.approx(float(dot.get("cy") or 0), abs=0.11)
    floor = max(tops)
    lowest = [y for _, y in polygons[0]]
    weights = floor - min(lowest)
    assert (floor - min(tops)) / weights == pytest.approx(7, rel=0.01)  # 7 GiB and 1 GiB


def test_no_byte_is_lost() -> None:
    for each in TRAINING.timeline:
        assert sum(series_of(each).values()) == each.bytes
    assert series_of(TRAINING.timeline[-1])["other"] == GIB // 4
    every_term = [term for terms in SERIES.values() for term in terms]
    assert len(every_term) == len(set(every_term))


def test_a_budget_far_away_is_not_drawn() -> None:
    assert not any("budget" in text for text in texts(Picture("a", "b", TRAINING, GIB * 80).svg()))


def test_answering_is_shown_from_its_first_moment() -> None:
    prefill = moment(0, "prefill", " -1", weights=10**6, logits=10)
    first = moment(0, "prefill", "layers 0", weights=10**6, kv_cache=10)
    decode = moment(1, "decode", "layers 0", weights=10**6, kv_cache=20)
    estimate = made(prefill, first, decode)
    assert step_moments(estimate) == (first, prefill, decode)
    assert {"prefill", "decode", "MiB"} <= set(texts(Picture("a", "b", estimate).svg()))


def test_a_single_moment_can_be_drawn() -> None:
    ElementTree.fromstring(Picture("a", "b", made(moment(0, "forward", "", weights=5))).svg())


class Balanced(HTMLParser):
    """Fails on a tag that is not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_holds_the_picture_and_the_terms() -> None:
    page = Picture("a <b>", "c", TRAINING).page()
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert {"svg", "table"} <= set(parser.seen)
    assert "a &lt;b&gt;" in page and "<b>" not in page
    assert "4,294,967,296" in page and "57.1%" in page
