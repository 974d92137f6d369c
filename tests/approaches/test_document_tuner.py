"""Models that go on learning from plain text: they learn it, and come back the same."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fitune import api, config
from fitune.approaches.finetuned import Finetuned
from fitune.data.rows import Row, Rows
from fitune.errors import ConfigError, DataError, Interrupted
from fitune.evaluation.likelihood import Likelihood
from fitune.training.methods import trainable_parameters
from fitune.training.objectives import Masked

Make = Callable[..., Any]
FAST = {"dtype": "fp32", "batch_size": 8, "seed": 0, "max_length": 24}
SENTENCES = ["the card is lost.", "my bank is slow.", "a new pin code please.", "how fast is it?"]


@pytest.fixture
def documents() -> Rows:
    """Four sentences in every order, so that one predicts much of the next token."""
    return Rows(
        tuple(
            Row(" ".join(SENTENCES[(i * k) % 4] for k in range(1, 6)) + f" {i}", source=f"d{i}")
            for i in range(24)
        )
    )


def made_from(folder: Path, work: Any, **options: Any) -> Finetuned:
    return Finetuned(config.Finetuned(model=str(folder), **{**FAST, **options}), work)


def lm_work(make_work: Make, **options: Any) -> Any:
    return make_work(kind="language-model", **options)


def costs(predictions: list[Any]) -> list[Likelihood]:
    return [Likelihood.read(prediction.text) for prediction in predictions]


def exact_nats(model: Any, tokenizer: Any, text: str, length: int) -> tuple[float, int]:
    """By plain transformers, row by row in float64."""
    ids = tokenizer(text, add_special_tokens=False).input_ids
    stream = [tokenizer.eos_token_id, *ids]
    total = 0.0
    for start in range(0, len(stream) - 1, length - 1):
        part = stream[start : start + length]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([part])).logits[0].double()
        said = torch.log_softmax(logits[:-1], dim=-1)
        total -= said[torch.arange(len(part) - 1), torch.tensor(part[1:])].sum().item()
    return total, len(ids)


@pytest.mark.parametrize(
    ("fixture", "options"),
    [
        ("tiny_decoder", {"method": "full", "learning_rate": 5e-3, "epochs": 6}),
        ("tiny_base_decoder", {"method": "lora", "learning_rate": 2e-2, "epochs": 6}),
        ("tiny_encoder", {"method": "full", "learning_rate": 5e-3, "epochs": 20, "patience": 20}),
    ],
    ids=["decoder-full", "decoder-lora", "encoder-full"],
)
def test_it_learns_and_comes_back_the_same(
    fixture: str,
    options: dict[str, Any],
    request: pytest.FixtureRequest,
    make_work: Make,
    documents: Rows,
    quietly: Any,
    tmp_path: Path,
) -> None:
    notices: list[str] = []
    work = lm_work(make_work, notices=notices)
    made = made_from(request.getfixturevalue(fixture), work, **options)
    made.fit(documents[:18], documents[18:21])
    assert made.trained is not None and made.trained.before is not None
    best = made.trained.best
    assert best.score is None and best.loss is not None
    assert best.loss < made.trained.before - 0.2  # nats a token
    before, after = (f"{math.exp(x):,.2f}" for x in (made.trained.before, best.loss))
    assert f"went from {before} (untuned) to {after}." in notices[-1]
    test = documents[21:]
    said = made.predict(test, quietly)
    assert [cost.bytes for cost in costs(said)] == [len(row.text) for row in test]
    made.save(tmp_path / "model")
    read = Finetuned.load(tmp_path / "model", work)
    assert read.predict(test, quietly) == said
    assert read.cost == made.cost and made.cost.rows == 18
    assert read.predict(Rows(()), quietly) == []


def test_a_documents_cost_is_that_of_plain_transformers(
    tiny_decoder: Path, make_work: Make, documents: Rows, quietly: Any
) -> None:
    made = made_from(tiny_decoder, lm_work(make_work), method="full", epochs=1)
    made.fit(documents[:18], documents[18:21])
    tuner: Any = made.tuner
    found = costs(made.predict(documents[21:], quietly))
    for cost, row in zip(found, documents[21:], strict=True):
        nats, tokens = exact_nats(tuner.model, made.tokenizer, row.text, 24)
        assert (cost.nats, cost.tokens) == (pytest.approx(nats, rel=1e-5), tokens)


@pytest.mark.parametrize("fixture", ["tiny_decoder", "tiny_encoder"])
def test_stopping_changes_nothing(
    fixture: str, request: pytest.FixtureRequest, make_work: Make, documents: Rows
) -> None:
    """Also not which tokens are hidden, which differs from epoch to epoch."""
    folder = request.getfixturevalue(fixture)
    options = {"method": "full", "epochs": 4, "learning_rate": 3e-3, "micro_batch_tokens": 60}
    whole = made_from(folder, lm_work(make_work, folder="whole"), **options)
    whole.fit(documents[:18], documents[18:21])
    work = lm_work(make_work, folder="stopped")
    asked = iter([False] * 7 + [True] * 100)
    stopped = made_from(
        folder, dataclasses.replace(work, stop_requested=lambda: next(asked)), **options
    )
    with pytest.raises(Interrupted):
        stopped.fit(documents[:18], documents[18:21])
    resumed = made_from(folder, work, **options)
    resumed.fit(documents[:18], documents[18:21])
    found = trainable_parameters(resumed.tuner.model)
    for name, tensor in trainable_parameters(whole.tuner.model).items():
        assert torch.equal(found[name], tensor), name


def test_tokens_are_hidden_anew_in_each_epoch(
    tiny_encoder: Path, make_work: Make, documents: Rows, monkeypatch: Any
) -> None:
    epochs: list[int] = []
    begin = Masked.begin_epoch

    def watched(self: Masked, epoch: int) -> None:
        epochs.append(epoch)
        begin(self, epoch)

    monkeypatch.setattr(Masked, "begin_epoch", watched)
    made = made_from(tiny_encoder, lm_work(make_work), epochs=3, patience=9)
    made.fit(documents[:18], documents[18:21])
    assert epochs == [0, 1, 2]
    assert made.options["label_smoothing"] == 0.0


@pytest.fixture
def corpus(tmp_path: Path, documents: Rows) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("\n\n".join(documents.texts * 3))
    return path


def test_a_decoder_end_to_end(
    tiny_decoder: Path, corpus: Path, task_file: Callable[..., Path]
) -> None:
    """From a text file to a run that opens again, and to weights that transformers opens alone."""
    approach = {"use": "finetuned", "model": str(tiny_decoder), "method": "full", **FAST}
    approach["epochs"] = 1
    path = task_file(kind="language-model", data={"train": corpus.name}, approaches=[approach])
    found = api.tune(path)
    assert found.rung.metric == "neg_bits_per_byte" and found.rung.value < 0
    assert found.rung.interval.low <= found.rung.value <= found.rung.interval.high
    lines = (found.run / "rungs" / found.rung.name / "predictions.jsonl").read_text().splitlines()
    sums = [Likelihood.read(json.loads(line)["text"]) for line in lines]
    nats, tokens = sum(s.nats for s in sums), sum(s.tokens for s in sums)
    assert found.rung.value == pytest.approx(-nats / sum(s.bytes for s in sums) / math.log(2))
    assert found.rung.metrics["neg_perplexity"] == pytest.approx(-math.exp(nats / tokens))
    saved = api.load(found.run)
    text = saved.predict(["the card is lost."])[0].text
    report = (found.run / "report.html").read_text()
    assert "neg_bits_per_byte" in report
    shown = api.check(path, show=1).shown[0]
    assert len(shown.tokens) == 24 and shown.tokens[0] == ("</s>", False, "beginning of text")
    assert all(learned for _, learned, _ in shown.tokens[1:])
    again = api.evaluate(found.run, corpus)
    assert again.metric == "neg_bits_per_byte" and again.rows == 1

    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = found.run / "rungs" / found.rung.name / "model" / "model"
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    nats, _ = exact_nats(model, tokenizer, "the card is lost.", 24)
    assert Likelihood.read(text).nats == pytest.approx(nats, rel=1e-5)


def test_an_encoder_end_to_end_and_on_to_a_classifier(
    tiny_native_encoder: Path, corpus: Path, intents: Path, task_file: Callable[..., Path]
) -> None:
    """Saved as a masked language model, whose trunk then learns to classify."""
    approach = {"use": "finetuned", "model": str(tiny_native_encoder), "epochs": 1, **FAST}
    path = task_file(kind="language-model", data={"train": corpus.name}, approaches=[approach])
    found = api.tune(path)
    assert any("a new one is drawn" in note for note in found.rung.notes)
    folder = found.run / "rungs" / found.rung.name / "model" / "model"

    from transformers import AutoModelForMaskedLM

    model, info = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    trunk = model.bert.encoder.layer[0].output.dense.weight

    approach = {**approach, "model": str(folder), "method": "head"}
    path = task_file(kind="classify", data={"train": str(intents)}, approaches=[approach])
    classified = api.tune(path)
    kept: Any = api.load(classified.run).approach
    weights = dict(kept.tuner.model.named_parameters())
    name = next(n for n in weights if n.endswith("layer.0.output.dense.weight"))
    assert torch.equal(weights[name], trunk)  # `head` leaves the trunk as it was loaded
    assert classified.rung.metric == "accuracy"


@pytest.mark.parametrize(
    ("fixture", "options", "sentence"),
    [
        ("tiny_decoder", {"objective": "masked"}, "objective 'masked' is not for .* a decoder"),
        ("tiny_encoder", {"objective": "pretrain"}, "objective 'pretrain' is not for .* an encod"),
        ("tiny_decoder", {"objective": "dpo"}, "kind 'language-model'"),
        ("tiny_encoder", {"method": "lora"}, "method 'lora' does not go with objective 'masked'"),
    ],
)
def test_wrong_combinations_are_refused_at_once(
    fixture: str,
    options: dict[str, Any],
    sentence: str,
    request: pytest.FixtureRequest,
    make_work: Make,
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        made_from(request.getfixturevalue(fixture), lm_work(make_work), **options)


def test_a_corpus_shorter_than_a_row_is_refused(
    tiny_decoder: Path, make_work: Make, documents: Rows
) -> None:
    made = made_from(tiny_decoder, lm_work(make_work), max_length=200)
    with pytest.raises(DataError, match="fewer than one row of max_length 200"):
        made.fit(documents[:1], documents[1:2])


def test_only_what_learns_reads_plain_text(corpus: Path, task_file: Callable[..., Path]) -> None:
    path = task_file(
        kind="language-model", data={"train": corpus.name}, approaches=[{"use": "prompt"}]
    )
    with pytest.raises(ConfigError, match="approach 'prompt' answers rows, and documents"):
        api.plan(path)
