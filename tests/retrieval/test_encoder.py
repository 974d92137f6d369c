"""Vectors, against sentence-transformers and against one text at a time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fitune.errors import ModelError
from fitune.models.quiet import quiet
from fitune.retrieval.encoder import Encoder


def test_vectors_are_those_of_sentence_transformers(
    tiny_encoder: Path, passages: list[str], tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    folder = shutil.copytree(tiny_encoder, tmp_path / "model")
    pooling = {"embedding_dimension": 32, "pooling_mode": "mean"}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    with quiet():
        other = SentenceTransformer(str(folder), device="cpu")
        wanted = other.encode(passages, show_progress_bar=False)
    encoder = Encoder(str(folder))
    vectors, truncated = encoder.passages(passages)
    np.testing.assert_allclose(vectors, wanted, atol=2e-6)
    assert truncated == 1  # the one of 280 words: tiny-bert reads 64 tokens


def test_a_text_has_the_vector_it_has_alone(encoder: Encoder, passages: list[str]) -> None:
    together, _ = encoder.passages(passages)
    alone = np.concatenate([encoder.passages([text])[0] for text in passages])
    np.testing.assert_allclose(together, alone, atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    assert together.dtype == np.float32


def test_prefixes_stand_before_texts(encoder: Encoder, tiny_encoder: Path) -> None:
    told = Encoder(str(tiny_encoder), query_prefix="what ", passage_prefix="the ")
    plain, _ = encoder.passages(["what card", "the card"])
    np.testing.assert_allclose(told.queries(["card"])[0], plain[0], atol=2e-6)
    np.testing.assert_allclose(told.passages(["card"])[0][0], plain[1], atol=2e-6)
    assert told.passage_tokens == encoder.passage_tokens - 1


def test_its_options_make_it_again(tiny_encoder: Path) -> None:
    made = Encoder(str(tiny_encoder), query_prefix="what ", pooling="cls", max_length=32)
    again = Encoder(**made.options)
    np.testing.assert_array_equal(made.queries(["my card"]), again.queries(["my card"]))
    assert again.max_length == 32
    mean = Encoder(str(tiny_encoder)).queries(["my card"])
    assert np.linalg.norm(made.queries(["my card"]) - mean) > 0.01


def test_tokens_begin_where_they_stand(encoder: Encoder) -> None:
    text = "my new  card, please"
    assert encoder.tokens(text) == [0, 3, 8, 12, 14]


def test_passages_of_as_many_tokens_as_said_are_read_whole(encoder: Encoder) -> None:
    _, truncated = encoder.passages(["card " * encoder.passage_tokens])
    assert truncated == 0
    _, truncated = encoder.passages(["card " * (encoder.passage_tokens + 1)])
    assert truncated == 1


def test_nothing_to_encode(encoder: Encoder) -> None:
    assert encoder.queries([]).shape == (0, encoder.dimension)
    assert np.isfinite(encoder.queries(["", "\u200b"])).all()


def test_progress_is_told(encoder: Encoder) -> None:
    told: list[tuple[int, int]] = []
    encoder.passages(["a card"] * 3, lambda done, of: told.append((done, of)))
    assert told == [(3, 3)]


def test_a_model_that_does_not_say_how_it_pools(tiny_native_encoder: Path) -> None:
    with pytest.raises(ModelError, match=r"does not say how its token vectors become one.*pooling"):
        Encoder(str(tiny_native_encoder))
    assert Encoder(str(tiny_native_encoder), pooling="mean").dimension == 32


def test_a_decoder_pools_its_last_token(tiny_decoder: Path) -> None:
    encoder = Encoder(str(tiny_decoder), pooling="last")
    texts = ["my card", "my card was stolen, please help"]
    together = encoder.queries(texts)
    alone = np.concatenate([encoder.queries([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=2e-6)
