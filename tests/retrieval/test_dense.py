"""Exact search, against comparing everything with everything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fitune.errors import ConfigError, RunError
from fitune.retrieval import dense
from fitune.retrieval.dense import Dense, nearest, read_vectors
from fitune.retrieval.encoder import Encoder


@given(
    arrays.arrays(np.float32, (5, 3), elements=st.integers(-2, 2)),
    arrays.arrays(
        np.float32, st.tuples(st.integers(1, 23), st.just(3)), elements=st.integers(-2, 2)
    ),
    st.integers(1, 30),
)
def test_nearest_is_brute_force_whatever_the_blocks(queries, vectors, k: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense, "_PASSAGES", 4)
        patch.setattr(dense, "_QUERIES", 2)
        found = nearest(queries, vectors, k)
    for query, hits in zip(queries, found, strict=True):
        scores = [float(query.astype(float) @ vector) for vector in vectors.astype(float)]
        wanted = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:k]
        assert [hit.passage for hit in hits] == wanted
        assert [hit.score for hit in hits] == [scores[i] for i in wanted]


def test_scores_are_cosines(encoder: Encoder, passages: list[str]) -> None:
    from sklearn.metrics.pairwise import cosine_similarity

    retriever = Dense(model=encoder)
    retriever.build(passages)
    queries = ["stolen card", "late"]
    vectors, _ = encoder.passages(passages)
    wanted = cosine_similarity(encoder.queries(queries).astype(float), vectors.astype(float))
    for row, hits in zip(wanted, retriever.search(queries, len(passages)), strict=True):
        np.testing.assert_allclose(
            [h.score for h in hits], [row[h.passage] for h in hits], atol=1e-6
        )
    assert retriever.truncated == 1
    assert retriever.parameters == encoder.parameters > 10_000


def test_memory_stays_in_bounds() -> None:
    import tracemalloc

    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((200_000, 4), dtype=np.float32)
    queries = rng.standard_normal((256, 4), dtype=np.float32)
    tracemalloc.start()
    nearest(queries, vectors, 3)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50 * 2**20  # all scores at once would be 195 MiB


def test_a_saved_one_answers_as_before(
    encoder: Encoder, passages: list[str], tmp_path: Path
) -> None:
    made = Dense(model=encoder)
    made.build(passages)
    made.save(tmp_path / "vectors")
    loaded = Dense.load(tmp_path / "vectors")
    queries = ["stolen card", "late transfer"]
    assert loaded.search(queries, 4) == made.search(queries, 4)


def test_prefixes_beside_an_encoder(encoder: Encoder) -> None:
    with pytest.raises(ConfigError, match="beside an encoder"):
        Dense(model=encoder, query_prefix="query: ")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.zeros((2, 3), dtype=np.float64), "float64 of shape"),
        (np.zeros((2, 4), dtype=np.float32), "not float32 vectors of 3"),
        (np.zeros(3, dtype=np.float32), r"shape \(3,\)"),
    ],
)
def test_other_vectors_are_refused(values: np.ndarray, said: str, tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.npy", values)
    with pytest.raises(RunError, match=said):
        read_vectors(tmp_path / "vectors.npy", 3)


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.npy", np.array([{}], dtype=object))
    with pytest.raises(RunError, match="is damaged"):
        read_vectors(tmp_path / "vectors.npy", 3)
