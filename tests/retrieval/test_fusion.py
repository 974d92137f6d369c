"""Fusion, by hand and by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitune.retrieval import Hit
from fitune.retrieval.fusion import FUSIONS, min_max, reciprocal_rank, z_score

WORDS = [Hit(3, 9.0), Hit(1, 5.0), Hit(2, 1.0)]
VECTORS = [Hit(1, 0.9), Hit(4, 0.8)]


def as_dict(hits: list[Hit]) -> dict[int, float]:
    return {hit.passage: hit.score for hit in hits}


def test_reciprocal_rank_by_hand() -> None:
    fused = reciprocal_rank([WORDS, VECTORS], (1, 1), 10)
    assert [hit.passage for hit in fused] == [1, 3, 4, 2]
    wanted = {1: 1 / 62 + 1 / 61, 3: 1 / 61, 4: 1 / 62, 2: 1 / 63}
    assert as_dict(fused) == pytest.approx(wanted, abs=1e-15)


def test_min_max_by_hand() -> None:
    wanted = {3: 0.7, 1: 0.7 * 0.5 + 0.3, 2: 0.0, 4: 0.0}
    fused = min_max([WORDS, VECTORS], (0.7, 0.3), 10)
    assert as_dict(fused) == pytest.approx(wanted)
    assert [hit.passage for hit in fused] == [3, 1, 2, 4]  # equals in order of number


def test_z_score_by_hand() -> None:
    words = (np.array([9.0, 5.0, 1.0]) - 5.0) / np.std([9.0, 5.0, 1.0])
    wanted = {3: words[0] - 1, 1: words[1] + 1, 2: words[2] - 1, 4: words[2] - 1}
    assert as_dict(z_score([WORDS, VECTORS], (1, 1), 10)) == pytest.approx(wanted)


@pytest.mark.parametrize("fuse", FUSIONS.values(), ids=FUSIONS)
def test_rankings_that_are_empty_or_say_nothing(fuse) -> None:
    assert fuse([[], []], (1, 1), 5) == []
    assert [hit.passage for hit in fuse([[], VECTORS], (1, 1), 5)] == [1, 4]
    alike = [Hit(7, 2.0), Hit(8, 2.0)]
    assert {hit.passage for hit in fuse([alike, VECTORS], (1, 1), 5)} == {1, 4, 7, 8}
    assert [hit.passage for hit in fuse([WORDS, VECTORS], (1, 1), 1)] == [
        fuse([WORDS, VECTORS], (1, 1), 5)[0].passage
    ]


def test_the_only_passage_that_a_ranking_found_is_its_best() -> None:
    [first, *_] = min_max([[Hit(2, 0.1)], VECTORS], (0.6, 0.4), 5)
    assert first.passage == 2 and first.score == pytest.approx(0.6)


rankings = st.lists(
    st.dictionaries(st.integers(0, 9), st.floats(-5, 5, width=32), max_size=8),
    min_size=2,
    max_size=2,
)


@given(rankings, st.floats(0, 1), st.sampled_from(list(FUSIONS)))
def test_as_brute_force(found: list[dict[int, float]], weight: float, name: str) -> None:
    sides = [
        [Hit(p, s) for p, s in sorted(side.items(), key=lambda item: (-item[1], item[0]))]
        for side in found
    ]
    weights = (1 - weight, weight)
    wanted: dict[int, float] = {}
    for passage in {*found[0], *found[1]}:
        total = 0.0
        for side, w in zip(sides, weights, strict=True):
            scores = np.array([hit.score for hit in side], dtype=np.float64)
            at = next((i for i, hit in enumerate(side) if hit.passage == passage), None)
            if name == "reciprocal-rank":
                total += 0.0 if at is None else w / (60 + at + 1)
            elif len(side):
                value = scores.min() if at is None else scores[at]
                if name == "min-max":
                    width = scores.max() - scores.min()
                    flat = 0.0 if at is None else 1.0
                    total += w * ((value - scores.min()) / width if width else flat)
                else:
                    spread = scores.std()
                    level = (value - scores.mean()) / spread if np.ptp(scores) else 0.0
                    total += w * level
        wanted[passage] = total
    fused = FUSIONS[name](sides, weights, 20)
    assert as_dict(fused) == pytest.approx(wanted, abs=1e-6)
    assert [h.score for h in fused] == sorted((h.score for h in fused), reverse=True)
