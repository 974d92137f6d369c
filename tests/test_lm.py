"""`fitune.lm`: models side by side, saved, loaded, and refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import fitune
from fitune.errors import ConfigError, DataError, ModelError, RunError
from fitune.language_models import LANGUAGE_MODELS
from fitune.language_models.ngram import NGram
from fitune.language_models.perplexity import score
from fitune.language_models.vocabulary import build_vocabulary

SMALL = {"hidden": 16, "epochs": 1, "states": 4, "order": 3}


@pytest.fixture(autouse=True)
def fewer_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is learned of the small language has tests of its own."""
    monkeypatch.setattr("fitune.language_models.probes.SENTENCES", 40)
    monkeypatch.setattr("fitune.language_models.probes.ASKED", 10)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """200 lines that a model can learn something from."""
    people, things = ("anna", "bert", "carl", "dora"), ("apples", "bread", "cheese")
    path = tmp_path / "corpus.txt"
    lines = [
        f"{people[i % 4]} likes {things[(i // 4) % 3]} and {things[i % 3]}" for i in range(200)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_every_model_is_trained_and_scored_on_the_same_text(corpus: Path) -> None:
    result = fitune.lm(corpus, tokens="characters", **SMALL)
    assert [model.name for model in result.models] == list(LANGUAGE_MODELS)
    assert result.sequences == (160, 20, 20) and result.unit == "lines"
    first = result.models[0].score
    for model in result.models:
        assert (model.score.predictions, model.score.bytes) == (first.predictions, first.bytes)
        assert 1 < model.score.perplexity < result.vocabulary * 1.2
        assert model.parameters > 0 and model.train_seconds and model.probed is not None
        assert len(model.continuations) == 3 and model.curve == ()
        for said in model.continuations:
            chances = [probability for _, probability in said.likeliest]
            assert chances == sorted(chances, reverse=True) and sum(chances) <= 1 + 1e-9
    json.dumps(result.to_json(), allow_nan=False)


def test_figures_are_those_of_the_model_alone(corpus: Path) -> None:
    result = fitune.lm(corpus, models="ngram", order=3)
    lines = corpus.read_text().splitlines()
    vocabulary = build_vocabulary(lines[:160], "words", minimum_count=2)
    model = NGram(len(vocabulary), order=3)
    model.fit(vocabulary.encode_all(lines[:160]))
    expected = score(model, vocabulary, lines[180:])
    (found,) = result.models
    assert found.score == expected and found.parameters == model.parameters
    assert found.learned_tokens == 160 * 6


def test_saved_models_answer_alike_and_nothing_is_trained(
    corpus: Path, tmp_path: Path, monkeypatch
) -> None:
    folder = tmp_path / "models"
    saved = fitune.lm(corpus, models="ngram,hmm,gru,transformer", save=folder, **SMALL)
    assert saved.saved == folder
    for kind in ("ngram.NGram", "recurrent.Recurrent", "transformer.Transformer"):
        monkeypatch.setattr(f"fitune.language_models.{kind}.fit", lambda *given: None)
    monkeypatch.setattr("fitune.modelling._Work.probed", lambda work, name: None)
    loaded = fitune.lm(corpus, load=folder)
    assert [model.name for model in loaded.models] == ["ngram", "hmm", "gru", "transformer"]
    for before, after in zip(saved.models, loaded.models, strict=True):
        assert after.score == before.score and after.sample == before.sample
        assert after.train_seconds is None
    (alone,) = fitune.lm(corpus, load=folder, models="gru").models
    assert alone.score == saved.models[2].score
    with pytest.raises(ConfigError, match="holds no model 'lstm'"):
        fitune.lm(corpus, load=folder, models="lstm")


def test_a_model_that_exists_is_scored_by_its_own_tokens(corpus: Path, tiny_decoder: Path) -> None:
    result = fitune.lm(corpus, models=["ngram", str(tiny_decoder)], order=3)
    trained, existing = result.models
    assert existing.own_tokens and not trained.own_tokens
    assert existing.score.bytes == trained.score.bytes and existing.score.unknown == 0
    assert existing.train_seconds is None and existing.probed is None
    assert any("tokens of its own" in note for note in result.notes)
    assert existing.score.bits_per_byte > trained.score.bits_per_byte  # it has learned nothing


def test_more_text_is_drawn_as_a_curve(corpus: Path, tmp_path: Path) -> None:
    picture = tmp_path / "curve.html"
    result = fitune.lm(corpus, models="ngram,rnn", plot=picture, **SMALL)
    for model in result.models:
        assert [point.tokens for point in model.curve] == [100, 200, 400, 800]
        assert model.curve[-1].perplexity == model.score.perplexity
    assert result.models[0].curve[0].perplexity > result.models[0].curve[-1].perplexity
    page = picture.read_text("utf-8")
    assert page.startswith("<!doctype html>") and "ngram" in page and "http://www.w3" in page


def test_minutes_are_shared_by_the_networks(corpus: Path) -> None:
    result = fitune.lm(corpus, models="ngram,rnn,gru", epochs=1e6, hidden=16, minutes=0.01)
    assert [model.ended for model in result.models] == [None, "time", "time"]
    assert sum(model.train_seconds or 0 for model in result.models[1:]) < 3
    assert "Out of time before the last epoch: rnn, gru." in result.notes


def test_the_same_seed_gives_the_same_figures(corpus: Path) -> None:
    scores = [fitune.lm(corpus, models="lstm,hmm", seed=s, **SMALL).models for s in (1, 1, 2)]
    same, again, other = ([m.score.nats for m in models] for models in scores)
    assert same == again and same != other


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"models": "ngrma"}, ConfigError, "did you mean 'ngram'"),
        ({"models": "nowhere/none"}, ModelError, "not in the local cache"),
        ({"models": ","}, ConfigError, "no model is named"),
        ({"tokens": "letters"}, ConfigError, "no tokens of kind 'letters'"),
        ({"unit": "verses"}, ConfigError, "no unit 'verses'"),
        ({"states": 0}, ConfigError, "states is 0"),
        ({"hidden": 30}, ConfigError, "hidden is 30"),
        ({"epochs": float("nan")}, ConfigError, "epochs is nan"),
        ({"minutes": -1}, ConfigError, "minutes is -1"),
        ({"valid": 0.9}, ConfigError, "valid is 0.9"),
        ({"valid": "none.txt"}, DataError, "there is no file"),
        ({"test": "none.txt"}, DataError, "there is no file"),
        ({"plot": "curve.png"}, ConfigError, "curve.png"),
        ({"plot": "a.svg", "load": "b"}, ConfigError, "leave one of them out"),
        ({"load": "nowhere"}, RunError, "nowhere"),
        ({"tokens": "subwords", "vocabulary": 10}, ConfigError, "10 subwords"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(
    corpus: Path, monkeypatch, options, error, says
) -> None:
    def fit(*given) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr("fitune.language_models.hmm.HiddenMarkov.fit", fit)
    with pytest.raises(error, match=says):
        fitune.lm(corpus, **{"models": "hmm", **options})


def test_an_empty_corpus_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(" \n\n")
    with pytest.raises(DataError, match="holds no text"):
        fitune.lm(tmp_path / "a.txt")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="holds no text files"):
        fitune.lm(tmp_path / "folder")
