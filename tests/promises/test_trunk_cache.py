"""Promise: computing frozen layers once changes an update by rounding only, and however a run was
stopped, going on ends bit-identical to the uninterrupted run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fitune import config
from fitune.approaches.base import Prediction, Work
from fitune.approaches.finetuned import Finetuned
from fitune.config import Task
from fitune.data.rows import Row, Rows
from fitune.training import loop
from fitune.training.methods import trainable_parameters

LABELS = ("a", "b", "c")
ROWS = Rows(
    tuple(
        Row(
            " ".join(["my card", "the pin", "new money", "old fee"][: 1 + i % 4] * (1 + i % 3)),
            LABELS[i % 3],
            source=f"row {i}",
        )
        for i in range(44)
    )
)
METHODS = {"top": {"method": "freeze", "freeze_layers": 1}, "head": {"method": "head"}}
FAST = {
    "dtype": "fp32", "batch_size": 8, "epochs": 3.0, "seed": 0, "max_length": 64, "patience": 99,
    "head_learning_rate": 1e-2, "learning_rate": 1e-3,
}  # fmt: skip


def score(predictions: list[Prediction], rows: Rows) -> float:
    hits = [p.text == row.answer for p, row in zip(predictions, rows, strict=True)]
    return sum(hits) / len(hits)


def work(folder: Path, notices: list[str] | None = None, **changes: Any) -> Work:
    folder.mkdir(exist_ok=True)
    made = Work(
        task=Task.model_validate({"kind": "classify", "data": {"train": "unused.csv"}}),
        labels=LABELS,
        folder=folder,
        progress=lambda *told: None,
        notice=(notices if notices is not None else []).append,
        score=score,
        device="cpu",
        dtype="fp32",
        memory_bytes=2**30,
        stop_requested=lambda: False,
    )
    return dataclasses.replace(made, **changes)


def fitted(model: Path, work: Work, **options: Any) -> Finetuned:
    made = Finetuned(config.Finetuned(model=str(model), **{**FAST, **options}), work)
    made.fit(ROWS[:36], ROWS[36:])
    return made


def weights(made: Finetuned) -> dict[str, torch.Tensor]:
    parameters = trainable_parameters(made.tuner.model)
    return {name: parameter.detach().clone() for name, parameter in parameters.items()}


def losses(folder: Path) -> list[float]:
    return [
        json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]


@pytest.fixture(params=["tiny_encoder", "tiny_native_encoder"])
def model(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("memory", [2**30, 1], ids=["memory", "file"])
@pytest.mark.parametrize("method", METHODS)
def test_the_same_training_within_rounding(
    model: Path, method: str, memory: int, tmp_path: Path
) -> None:
    """By SGD, in whose update rounding stays as small as it is: AdamW's divides by the gradient's
    own size, so that it makes a step of the rounding of a gradient that is zero, as that of
    attention's key bias."""
    options = {
        **METHODS[method],
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "micro_batch_tokens": 90,
    }
    notices: list[str] = []
    with_cache = work(tmp_path / "with", notices, memory_bytes=memory)
    found = fitted(model, with_cache, **options)
    expected = fitted(model, work(tmp_path / "without"), **options, trunk_cache=False)
    assert sum("frozen layers are computed once for" in said for said in notices) == 1
    assert [("file" in said) for said in notices] == [memory == 1]
    assert losses(tmp_path / "with") == pytest.approx(losses(tmp_path / "without"), rel=1e-5)
    for name, tensor in weights(expected).items():
        torch.testing.assert_close(weights(found)[name], tensor, rtol=1e-5, atol=1e-6)
    assert sorted(p.name for p in (tmp_path / "with").iterdir()) == sorted(
        p.name for p in (tmp_path / "without").iterdir()
    ), "nothing is left behind"


class Killed(BaseException):
    """Not an Exception, so that nothing in the program may catch it."""


@pytest.mark.parametrize("method", METHODS)
def test_killed_in_any_epoch(
    model: Path, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the first, second and third epoch (five steps each), each time with less memory."""
    options = {**METHODS[method], "checkpoint_steps": 2}
    whole = fitted(model, work(tmp_path / "whole"), **options)
    take_step = loop.take_step
    folder = tmp_path / "parts"
    stopped_at: list[int] = []
    for life, memory in zip((3, 5, 6), (2**30, 2**20, 1), strict=True):
        left = [life]

        def mortal(*arguments: Any, left: list[int] = left, **more: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return take_step(*arguments, **more)

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(loop, "take_step", mortal)
            fitted(model, work(folder, memory_bytes=memory), **options)
        (checkpoint,) = (folder / "checkpoints").glob("step-*")
        stopped_at.append(int(checkpoint.name.removeprefix("step-")))
    assert stopped_at == [2, 6, 12]
    parts = fitted(model, work(folder), **options)
    assert losses(folder) == losses(tmp_path / "whole")
    for name, tensor in weights(whole).items():
        assert torch.equal(weights(parts)[name], tensor), name
