"""Adapters beside whole and four-bit weights, with optimizers that hold less, from the task file to
the saved model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fitune import api, config
from fitune.approaches.finetuned import Finetuned
from fitune.data.rows import Row, Rows
from fitune.errors import Interrupted, MissingExtraError, ResourceError
from fitune.runs import read_jsonl
from fitune.taskfile import parse_task
from fitune.training.methods import trainable_parameters

Make = Callable[..., Any]
LABELS = ("change_pin", "late_transfer", "lost_card")
FAST = {"dtype": "fp32", "batch_size": 8, "seed": 0, "max_length": 96, "rank": 8}


def made_from(folder: Path, work: Any, **options: Any) -> Finetuned:
    return Finetuned(config.Finetuned(model=str(folder), **{**FAST, **options}), work)


@pytest.fixture
def rows() -> Rows:
    """Rows whose label follows from one word."""
    words = {"card": "lost_card", "transfer": "late_transfer", "pin": "change_pin"}
    other = ["the", "a", "money", "bank", "new", "old", "please", "help", "slow", "fast", "hello"]
    return Rows(
        tuple(
            Row(f"{other[i % 11]} my {word} {other[i % 7]}", words[word], source=f"row {i}")
            for i, word in enumerate(["card", "transfer", "pin"] * 32)
        )
    )


@pytest.mark.parametrize(
    ("fixture", "method", "optimizer"),
    [
        ("wide_encoder", "dora", "adafactor"),
        ("wide_encoder", "qlora", "adamw-8bit"),
        ("wide_native_encoder", "dora", "adamw-8bit"),
        ("wide_native_encoder", "qlora", "adafactor"),
        ("wide_decoder", "dora", "adamw-8bit"),
        ("wide_decoder", "qlora", "adafactor"),
    ],
)
def test_it_learns_and_comes_back_the_same(
    fixture: str,
    method: str,
    optimizer: str,
    request: pytest.FixtureRequest,
    make_work: Make,
    rows: Rows,
    quietly: Any,
    tmp_path: Path,
) -> None:
    work = make_work(LABELS)
    options = {"method": method, "optimizer": optimizer, "learning_rate": 5e-3, "epochs": 5}
    made = made_from(request.getfixturevalue(fixture), work, **options, checkpointing=True)
    train, test = rows[:72], rows[72:]
    made.fit(train, test)
    answers = made.predict(test, quietly)
    right = sum(p.text == row.answer for p, row in zip(answers, test, strict=True))
    assert right / len(test) >= 0.75  # chance is a third
    made.save(tmp_path / "model")
    read = Finetuned.load(tmp_path / "model", work)
    assert read.predict(test, quietly) == answers
    assert read.cost == made.cost


def test_four_bit_weights_count_as_the_weights_they_are(
    wide_decoder: Path, make_work: Make, rows: Rows
) -> None:
    costs = []
    for method in ("lora", "qlora"):
        made = made_from(wide_decoder, make_work(LABELS, folder=method), method=method, epochs=1)
        made.fit(rows[:24], rows[24:30])
        costs.append(made.cost)
    assert costs[0] == costs[1]


@pytest.mark.parametrize(
    ("dtype", "fixture", "method"),
    [
        ("bf16", "wide_encoder", "qlora"),
        ("bf16", "wide_decoder", "qlora"),
        ("pure-bf16", "wide_encoder", "full"),
        ("pure-bf16", "wide_encoder", "qlora"),
        ("pure-bf16", "wide_native_encoder", "full"),
        ("pure-bf16", "wide_native_encoder", "lora"),
        ("pure-bf16", "wide_decoder", "full"),
        ("pure-bf16", "wide_decoder", "lora"),
        ("pure-bf16", "wide_decoder", "qlora"),
    ],
)
def test_in_sixteen_bits(
    dtype: str,
    fixture: str,
    method: str,
    request: pytest.FixtureRequest,
    make_work: Make,
    rows: Rows,
    quietly: Any,
    tmp_path: Path,
) -> None:
    """It learns, is held in the dtype that was asked for, and comes back the same."""
    work = make_work(LABELS)
    options = {"method": method, "dtype": dtype, "learning_rate": 5e-3, "epochs": 3}
    made = made_from(request.getfixturevalue(fixture), work, **options, head_learning_rate=1e-2)
    made.fit(rows[:72], rows[72:])
    trained = {p.dtype for p in trainable_parameters(made.tuner.model).values()}
    assert trained == {torch.bfloat16 if dtype == "pure-bf16" else torch.float32}
    records = (work.folder / "metrics.jsonl").read_text().splitlines()
    losses = [r["loss"] for r in map(json.loads, records) if r["kind"] == "train"]
    assert losses[-1] < losses[0] - 0.1
    answers = made.predict(rows[72:], quietly)
    made.save(tmp_path / "model")
    assert Finetuned.load(tmp_path / "model", work).predict(rows[72:], quietly) == answers


@pytest.mark.parametrize("dtype", ["fp32", "pure-bf16"])
def test_stopping_changes_nothing(
    dtype: str, wide_decoder: Path, make_work: Make, rows: Rows, quietly: Any
) -> None:
    """A quantized base is quantized again, an 8-bit optimizer goes on, dropout draws the same."""
    options: dict[str, Any] = {
        "method": "qlora",
        "optimizer": "adamw-8bit",
        "rank": 64,
        "dtype": dtype,
        "checkpointing": True,
        "lora_dropout": 0.2,
        "epochs": 2,
        "learning_rate": 1e-2,
    }
    whole = made_from(wide_decoder, make_work(LABELS, folder="whole"), **options)
    whole.fit(rows[:40], rows[40:48])
    stopped = make_work(LABELS, folder="parts")
    for _ in range(3):
        asked = iter([False, *[True] * 99])
        object.__setattr__(stopped, "stop_requested", asked.__next__)
        parts = made_from(wide_decoder, stopped, **options)
        with pytest.raises(Interrupted):
            parts.fit(rows[:40], rows[40:48])
    object.__setattr__(stopped, "stop_requested", lambda: False)
    parts = made_from(wide_decoder, stopped, **options)
    parts.fit(rows[:40], rows[40:48])
    found, expected = (trainable_parameters(made.tuner.model) for made in (parts, whole))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    assert parts.predict(rows[:8], quietly) == whole.predict(rows[:8], quietly)


def test_from_the_task_file_to_evaluation(
    wide_encoder: Path, wide_decoder: Path, intents: Path, tmp_path: Path
) -> None:
    rungs = [
        {"use": "finetuned", "name": "a", "model": str(wide_encoder), "method": "dora"},
        {"use": "finetuned", "name": "b", "model": str(wide_decoder), "method": "qlora"},
    ]
    optimizers = {"a": "adafactor", "b": "adamw-8bit"}
    fast = {"epochs": 1, "batch_size": 16, "rank": 4, "dtype": "fp32"}
    task = {
        "kind": "classify",
        "data": {"train": str(intents)},
        "output": str(tmp_path / "runs"),
        "approaches": [{**r, **fast, "optimizer": optimizers[r["name"]]} for r in rungs],
    }
    result = api.ladder(parse_task(task))
    assert [rung.name for rung in result.rungs] == ["a", "b"]
    held_out = read_jsonl(result.run / "rows.test.jsonl")
    again = tmp_path / "again.csv"
    again.write_text("text,label\n" + "".join(f"{r['text']},{r['answer']}\n" for r in held_out))
    for rung in result.rungs:
        assert api.evaluate(result.run, again, rung=rung.name).value == rung.value


def test_what_cannot_run_here_is_told_before_anything_is_loaded(
    wide_decoder: Path, intents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def climb(**options: Any) -> None:
        rung = {"use": "finetuned", "model": str(wide_decoder), **options}
        task = {
            "kind": "classify",
            "data": {"train": str(intents)},
            "output": str(tmp_path / "runs"),
            "approaches": [{"use": "majority"}, rung],
        }
        api.ladder(parse_task(task))

    with pytest.raises(ResourceError, match="the device is cpu; use adamw-8bit"):
        climb(optimizer="paged-adamw-8bit")
    monkeypatch.setattr("fitune.quantization.weights.import_bitsandbytes", lambda: None)
    with pytest.raises(MissingExtraError, match=r"method qlora needs .*fitune\[quant\]"):
        climb(method="qlora")
    with pytest.raises(MissingExtraError, match="optimizer adamw-8bit needs"):
        climb(optimizer="adamw-8bit")
    assert not list(tmp_path.glob("runs/*/rungs/*"))
