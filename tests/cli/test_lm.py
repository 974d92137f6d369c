"""`fitune lm`: what it hands to `api`, and what it prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fitune.cli import main
from fitune.cli.lm_view import token
from fitune.language_models.figures import Continuation, ModelFigures
from fitune.language_models.perplexity import Score
from fitune.language_models.probes import DISTANCES, Probed
from fitune.results import LmResult


def model(name: str, nats: float, *, own: bool = False, **changes: Any) -> ModelFigures:
    settings: dict[str, Any] = {
        "score": Score(nats, 1000, 5000, 0, 0.0, True),
        "parameters": 1_234_567,
        "train_seconds": None if own else 75.0,
        "learned_tokens": 1_500_000,
        "score_tokens_per_second": 34_000.0,
        "own_tokens": own,
        "ended": None,
        "sample": "ROMEO:\nWhat [is] it\x07 " * 30,
        "continuations": (
            Continuation("Who is", " there", (("\n", 0.5), (" it", 0.25), ("(end)", 0.1)), 0.01),
        ),
        "probed": None if own else Probed(dict.fromkeys(DISTANCES, 0.75), 0.5, 12.3, 4.0),
        "curve": (),
    }
    return ModelFigures(name, **{**settings, **changes})


MODELS = (
    model("ngram", 5000.0),
    model("a-model-with-a-very-long-name", 4000.0, own=True),
    model("transformer", 4500.0, ended="validation"),
)


@pytest.fixture
def lm(monkeypatch: pytest.MonkeyPatch):
    """A stand-in for `api.lm`, which remembers how it was called."""
    from fitune import api

    calls: list[tuple[str, dict[str, Any]]] = []

    def fake(corpus: str, *, on: Any, **options: Any) -> LmResult:
        calls.append((corpus, options))
        on.progress("ngram", 0, 1)
        return LmResult(
            corpus=corpus,
            unit="lines",
            tokens="words",
            vocabulary=9_999,
            train_tokens=170_000,
            sequences=(1000, 100, 100),
            models=MODELS,
            notes=("A note.",),
            saved=None,
            plot=Path("curve.html"),
            seconds=200.0,
        )

    monkeypatch.setattr(api, "lm", fake)
    return calls


def test_what_is_called(lm, capsys) -> None:
    words = "lm a.txt --models ngram,lstm --tokens characters --order 7 --states 9 --hidden 64"
    words += " --layers 3 --epochs 1.5 --vocabulary 500 --valid v.txt --test t.txt --unit lines"
    words += " --minutes 2 --seed 4 --save m --plot c.svg"
    assert main(words.split()) == 0
    ((corpus, options),) = lm
    assert corpus == "a.txt"
    assert options == {
        "models": "ngram,lstm",
        "tokens": "characters",
        "unit": "lines",
        "order": 7,
        "states": 9,
        "hidden": 64,
        "layers": 3,
        "epochs": 1.5,
        "vocabulary": 500,
        "valid": "v.txt",
        "test": "t.txt",
        "save": Path("m"),
        "load": None,
        "plot": Path("c.svg"),
        "minutes": 2.0,
        "seed": 4,
    }


def test_defaults_are_those_of_the_function(lm) -> None:
    from fitune.modelling import Modelling

    main(["lm", "a.txt"])
    ((corpus, options),) = lm
    said = Modelling(corpus, **{**options, "valid": float(options["valid"])})
    assert said == Modelling(corpus)


@pytest.mark.parametrize("width", [80, 160])
def test_all_of_it_fits_the_screen(lm, capsys, monkeypatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["lm", "a.txt", "--quiet"]) == 0
    out = capsys.readouterr().out
    # Elsewhere than in a terminal, sentences are not broken.
    laid_out = [line for line in out.splitlines() if not line.startswith("Taught anew on 3,000")]
    assert max(map(len, laid_out)) <= width
    for text in ("ngram", "148.41", "54.60*", "1.443", "1.23 M", "1 min 15 s", "20.0 k", "A note."):
        assert text in out
    assert "What comes after “Who is” (there: “ there”)" in out
    assert "“↵” 50.0%  “ it” 25.0%  (end) 10.0%" in out
    assert "ROMEO:↵What [is] it�" in out
    assert "75%" in out and "0.50×" in out and "10^12.3" in out
    assert "curve.html" in out and "3 min 20 s in all" in out
    assert ("stopped by" in out) == (width == 160)
    assert out.count("\ntransformer ") == 2  # no name of ours is broken


def test_json_is_the_result(lm, capsys) -> None:
    assert main(["lm", "a.txt", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in record["models"]] == [each.name for each in MODELS]
    first = record["models"][0]
    assert first["perplexity"] == pytest.approx(148.413, abs=1e-3)
    assert first["tokens_per_second"] == 20_000
    assert record["models"][1]["train_seconds"] is None
    assert record["plot"] == "curve.html"


def test_infinite_perplexity_is_null() -> None:
    assert model("bad", float("inf")).to_json()["perplexity"] is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("lm", "CORPUS"),
        ("lm none.txt", "there is no file none.txt"),
        ("lm none.txt --models lsmt", "did you mean 'lstm'"),
        ("lm none.txt --order many", "'many' is not a whole number above 0"),
        ("lm none.txt --epochs lots", "lots"),
        ("lm none.txt --token words", "--tokens"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(words: str, says: str, capsys) -> None:
    assert main(words.split()) == 2
    captured = capsys.readouterr()
    last = captured.err.strip().splitlines()[-1]
    assert last.startswith("error: ") and says in last and captured.out == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [("word", "word"), (" word", "“ word”"), ("\n", "“↵”"), ("", "“”"), ("a\x07b", "a�b")],
)
def test_tokens_show_their_white_space(text: str, shown: str) -> None:
    assert token(text) == shown
