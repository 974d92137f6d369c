"""Options of training, from the task file to the saved model: they survive being stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fitune import config
from fitune.approaches.finetuned import Finetuned
from fitune.data.rows import Rows
from fitune.errors import ConfigError, Interrupted
from fitune.training.methods import trainable_parameters

Make = Callable[..., Any]
LABELS = ("change_pin", "late_transfer", "lost_card")
FAST = {"dtype": "fp32", "batch_size": 8, "seed": 0, "max_length": 96, "epochs": 2}


def made_from(folder: Path, work: Any, **options: Any) -> Finetuned:
    return Finetuned(config.Finetuned(model=str(folder), **{**FAST, **options}), work)


CASES: list[tuple[str, dict[str, Any]]] = [
    (
        "tiny_encoder",
        {
            "ema": 0.9,
            "neftune": 5.0,
            "layer_decay": 0.8,
            "class_weights": "balanced",
            "micro_batch_tokens": 60,
        },
    ),
    ("tiny_native_encoder", {"ema": 0.9, "class_weights": {"lost_card": 2.0}}),
    ("tiny_decoder", {"ema": 0.9, "neftune": 5.0, "layer_decay": 0.8, "method": "lora"}),
    ("tiny_decoder", {"method": "lora", "rank": 4, "rslora": True, "lora_plus": 4.0}),
    ("tiny_decoder", {"method": "lora", "rank": 4, "lora_init": "pissa"}),
    ("tiny_native_encoder", {"method": "lora", "rank": 4, "lora_init": "pissa"}),
    ("tiny_decoder", {"method": "ia3"}),
    ("tiny_decoder", {"method": "ia3", "dtype": "bf16", "learning_rate": 0.05}),
    ("tiny_decoder", {"method": "prompt-tuning", "dtype": "bf16", "neftune": 5.0}),
    ("tiny_decoder", {"method": "prefix-tuning", "virtual_tokens": 3, "optimizer": "lion"}),
    ("tiny_decoder", {"method": "prompt-tuning", "dtype": "pure-bf16", "ema": 0.9}),
    ("tiny_encoder", {"method": "bitfit"}),
    ("tiny_native_encoder", {"method": "bitfit"}),
    ("tiny_native_encoder", {"method": "ia3"}),
]


@pytest.mark.parametrize(("fixture", "options"), CASES)
def test_stopping_changes_nothing_and_it_comes_back_the_same(
    fixture: str,
    options: dict[str, Any],
    request: pytest.FixtureRequest,
    make_work: Make,
    intent_rows: Rows,
    quietly: Any,
    tmp_path: Path,
) -> None:
    folder = request.getfixturevalue(fixture)
    train, test = intent_rows[:32], intent_rows[32:44]
    whole = made_from(folder, make_work(LABELS, folder="whole"), **options)
    whole.fit(train, test)
    stopped = make_work(LABELS, folder="parts")
    for _ in range(3):
        asked = iter([False, *[True] * 99])
        object.__setattr__(stopped, "stop_requested", asked.__next__)
        with pytest.raises(Interrupted):
            made_from(folder, stopped, **options).fit(train, test)
    object.__setattr__(stopped, "stop_requested", lambda: False)
    parts = made_from(folder, stopped, **options)
    parts.fit(train, test)
    found, expected = (trainable_parameters(made.tuner.model) for made in (parts, whole))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    answers = whole.predict(test, quietly)
    whole.save(tmp_path / "model")
    read = Finetuned.load(tmp_path / "model", whole.work).predict(test, quietly)
    assert [p.text for p in read] == [p.text for p in answers]
    for mine, theirs in zip(read, answers, strict=True):
        assert mine.scores == pytest.approx(theirs.scores, abs=1e-5)


@pytest.mark.parametrize(
    ("fixture", "method"),
    [
        ("tiny_decoder", "ia3"),
        ("tiny_decoder", "prompt-tuning"),
        ("tiny_decoder", "prefix-tuning"),
        ("tiny_native_encoder", "bitfit"),
    ],
)
def test_it_learns(
    fixture: str,
    method: str,
    request: pytest.FixtureRequest,
    make_work: Make,
    intent_rows: Rows,
) -> None:
    work = make_work(LABELS)
    options = {"method": method, "learning_rate": 0.02, "epochs": 6, "patience": 9}
    made = made_from(request.getfixturevalue(fixture), work, **options)
    made.fit(intent_rows[:48], intent_rows[48:60])
    records = map(json.loads, (work.folder / "metrics.jsonl").read_text().splitlines())
    losses = [record["loss"] for record in records if record["kind"] == "train"]
    assert sum(losses[-6:]) < sum(losses[:6])  # of an epoch each


@pytest.mark.parametrize(
    ("fixture", "options", "sentence"),
    [
        ("tiny_decoder", {"class_weights": "balanced"}, "class_weights is for a classification"),
        ("tiny_encoder", {"class_weights": {"lost_crd": 2.0}}, "did you mean 'lost_card'"),
        ("tiny_encoder", {"method": "prompt-tuning"}, "'prompt-tuning' is for decoders"),
        ("tiny_decoder", {"method": "bitfit"}, "'llama' have none; use ia3"),
        (
            "tiny_decoder",
            {"method": "prefix-tuning", "max_length": 250},
            "max_length 250 is more than the 236 tokens .*, less the virtual ones",
        ),
        ("tiny_decoder", {"method": "prompt-tuning", "virtual_tokens": 300}, "set virtual_tokens"),
        ("tiny_encoder", {"method": "head", "layer_decay": 0.5}, "'head' trains no layer"),
    ],
)
def test_what_contradicts_itself_is_refused(
    fixture: str,
    options: dict[str, Any],
    sentence: str,
    request: pytest.FixtureRequest,
    make_work: Make,
    intent_rows: Rows,
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        made_from(request.getfixturevalue(fixture), make_work(LABELS), **options).fit(
            intent_rows[:16], intent_rows[16:24]
        )
