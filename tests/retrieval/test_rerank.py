"""Reranking, against sentence-transformers' cross-encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fitune.errors import ConfigError, ModelError
from fitune.models.quiet import quiet
from fitune.retrieval import Hit
from fitune.retrieval.rerank import Reranker


@pytest.fixture(scope="module")
def cross_encoder(tiny_native_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT with a head of one output, of large weights so that scores differ."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path_factory.mktemp("reranker") / "tiny-cross"
    with quiet():
        model = AutoModelForSequenceClassification.from_pretrained(
            tiny_native_encoder, num_labels=1
        )
        torch.manual_seed(0)
        torch.nn.init.normal_(model.classifier.weight, std=100)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(tiny_native_encoder).save_pretrained(folder)
    return folder


def test_scores_are_those_of_sentence_transformers(
    cross_encoder: Path, passages: list[str]
) -> None:
    import torch
    from sentence_transformers import CrossEncoder

    with quiet():
        other = CrossEncoder(str(cross_encoder), device="cpu", activation_fn=torch.nn.Identity())
        wanted = other.predict(
            [("my stolen card", text) for text in passages], show_progress_bar=False
        )
    scores = Reranker(str(cross_encoder)).scores("my stolen card", passages)
    np.testing.assert_allclose(scores, wanted, atol=1e-3)
    assert np.ptp(scores) > 0.1


def test_hits_stand_in_the_order_of_scores(cross_encoder: Path, passages: list[str]) -> None:
    reranker = Reranker(str(cross_encoder))
    hits = [Hit(4, 0.9), Hit(1, 0.8), Hit(0, 0.7), Hit(3, 0.1)]
    again = reranker.rerank("late", hits, passages, 3)
    scores = dict(enumerate(reranker.scores("late", passages)))
    assert [h.score for h in again] == pytest.approx([scores[h.passage] for h in again], abs=1e-3)
    assert [h.score for h in again] == sorted((h.score for h in again), reverse=True)
    assert len(again) == 3 and {h.passage for h in again} < {0, 1, 3, 4}
    alike = [h.passage for h in reranker.rerank("late", hits, passages, 4) if h.passage in (1, 4)]
    assert alike == [4, 1]  # of the same text: in the order in which they were
    assert reranker.rerank("late", [], passages, 3) == []
    assert reranker.parameters > 10_000
    with pytest.raises(ConfigError, match="k is 0"):
        reranker.rerank("late", hits, passages, 0)


def test_a_length_cuts_both(cross_encoder: Path, passages: list[str]) -> None:
    short, long = (Reranker(str(cross_encoder), max_length=n) for n in (16, 128))
    assert short.scores("card", passages[:1]) == pytest.approx(long.scores("card", passages[:1]))
    assert short.scores("card", passages[6:7]) != pytest.approx(long.scores("card", passages[6:7]))


def test_models_that_do_not_rank(tiny_native_encoder: Path, tmp_path: Path) -> None:
    import json
    import shutil

    with pytest.raises(ModelError, match="gives 2 numbers for a pair"):
        Reranker(str(tiny_native_encoder))
    headless = shutil.copytree(tiny_native_encoder, tmp_path / "headless")
    config = json.loads((headless / "config.json").read_text())
    config |= {"id2label": {"0": "score"}, "label2id": {"score": 0}}
    (headless / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"lack 2 tensors, such as classifier\.bias"):
        Reranker(str(headless))
