"""The loop: what it keeps, when it stops, what it writes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fitune.data.batches import Batch
from fitune.errors import ResourceError, TrainingError
from fitune.training.loop import Validation, _evaluation_steps
from fitune.training.methods import trainable_parameters
from training_kit import Kit


def scripted(scores: list[float]) -> tuple[Callable[[], Validation], list[int]]:
    """A validation that reads its scores from a list, and how often it was asked."""
    asked: list[int] = []

    def validate() -> Validation:
        asked.append(len(asked))
        return Validation(loss=None, score=scores[len(asked) - 1])

    return validate, asked


def test_the_best_weights_are_kept_not_the_last(kit: Callable[..., Kit], tmp_path: Path) -> None:
    """The weights after the second epoch are those of a run that ends there at the same rates."""
    made = kit(rows=16, epochs=4.0, schedule="constant")
    validate, _ = scripted([0.1, 0.9, 0.2, 0.3])
    trained = made.train(tmp_path / "four", validate=validate)
    assert (trained.best_step, trained.steps, trained.best.score) == (4, 8, 0.9)
    two = kit(rows=16, epochs=2.0, schedule="constant")
    two.train(tmp_path / "two", validate=scripted([0.1, 0.9])[0])
    for name, parameter in trainable_parameters(made.model).items():
        assert torch.equal(parameter, trainable_parameters(two.model)[name])


def test_equal_scores_are_told_apart_by_the_loss(kit: Callable[..., Kit], tmp_path: Path) -> None:
    found = iter([Validation(0.9, 0.5), Validation(0.4, 0.5), Validation(0.6, 0.5)])
    trained = kit(rows=8, epochs=3.0).train(tmp_path, validate=lambda: next(found))
    assert trained.best_step == 2 and trained.best.loss == 0.4


def test_a_later_score_within_one_standard_error_is_kept(
    kit: Callable[..., Kit], tmp_path: Path
) -> None:
    """0.90 ± 0.02 then 0.89 is chance and the annealed weights stay; 0.87 is not."""
    scores = iter([0.5, 0.90, 0.89, 0.87])
    trained = kit(rows=8, epochs=4.0).train(
        tmp_path, validate=lambda: Validation(None, next(scores), error=0.02)
    )
    assert (trained.best_step, trained.best.score) == (3, 0.89)


def test_near_scores_do_not_creep_down(kit: Callable[..., Kit], tmp_path: Path) -> None:
    """Nearness is to the highest score, not to the last one kept."""
    scores = iter([0.90, 0.89, 0.88, 0.87])
    trained = kit(rows=8, epochs=4.0, patience=9).train(
        tmp_path, validate=lambda: Validation(None, next(scores), error=0.015)
    )
    assert trained.best_step == 2


def test_patience_stops_early(kit: Callable[..., Kit], tmp_path: Path) -> None:
    validate, asked = scripted([0.5, 0.6, 0.6, 0.1, 0.2, 0.9])
    trained = kit(rows=8, epochs=6.0, patience=3).train(tmp_path, validate=validate)
    assert trained.stopped_early and trained.best_step == 2 and len(asked) == 5


def test_a_nan_score_never_wins(kit: Callable[..., Kit], tmp_path: Path) -> None:
    validate, _ = scripted([math.nan, 0.1, math.nan])
    trained = kit(rows=8, epochs=3.0).train(tmp_path, validate=validate)
    assert trained.best_step == 2


@pytest.mark.parametrize(
    ("total", "per_epoch", "per", "expected"),
    [
        (10, 5, 1, {5, 10}),
        (12, 5, 1, {5, 10, 12}),
        (3, 5, 1, {3}),
        (10, 5, 2, {2, 5, 8, 10}),
        (4, 2, 4, {1, 2, 3, 4}),
    ],
)
def test_evaluations_are_even_and_end_at_the_end(
    total: int, per_epoch: int, per: int, expected: set[int]
) -> None:
    assert _evaluation_steps(total, per_epoch, per) == expected


def test_records_hold_what_a_curve_needs(kit: Callable[..., Kit], tmp_path: Path) -> None:
    made = kit(rows=20, epochs=2.0, warmup=0.5)
    trained = made.train(tmp_path)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    steps = [r for r in records if r["kind"] == "train"]
    assert [r["step"] for r in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[-1]["epoch"] == 2.0
    assert steps[-1]["tokens"] == trained.tokens == 2 * sum(made.lengths)
    assert [round(r["learning_rate"] / 5e-3, 3) for r in steps] == [
        0.333,
        0.667,
        1,
        1,
        0.667,
        0.333,
    ]
    assert [r["step"] for r in records if r["kind"] == "validation"] == [3, 6]


def test_divergence_is_said_with_the_step(kit: Callable[..., Kit], tmp_path: Path) -> None:
    made = kit(rows=16, method="full", optimizer="sgd", learning_rate=1e30, clip=1e9)
    notices: list[str] = []
    with pytest.raises(TrainingError, match=r"at step 6 .*lower learning_rate"):
        made.train(tmp_path, notices=notices)
    assert notices[0].startswith("step 2 changed nothing: its loss is ")


def test_a_batch_with_an_infinite_loss_is_left_out(
    kit: Callable[..., Kit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = kit(rows=40, epochs=1.0)
    bad = 7
    plain = made.objective.loss_sum

    def loss_sum(model: Any, batch: Any) -> torch.Tensor:
        return plain(model, batch) * (float("inf") if bad in batch.rows else 1.0)

    monkeypatch.setattr(made.objective, "loss_sum", loss_sum)
    notices: list[str] = []
    trained = made.train(tmp_path, notices=notices)
    assert (trained.steps, trained.skipped) == (5, 1)
    assert len(notices) == 1 and "changed nothing: its loss is inf" in notices[0]
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [r["loss"] is None for r in records if r["kind"] == "train"].count(True) == 1
    assert all(p.isfinite().all() for p in trainable_parameters(made.model).values())


def test_the_rows_that_do_it_are_named(
    kit: Callable[..., Kit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = kit(rows=8, epochs=9.0)
    plain = made.objective.loss_sum

    def loss_sum(model: Any, batch: Any) -> torch.Tensor:
        return plain(model, batch) * (float("nan") if {2, 5} & set(batch.rows) else 1.0)

    monkeypatch.setattr(made.objective, "loss_sum", loss_sum)
    with pytest.raises(TrainingError, match=r"at step 5 .* for row (2, row 5|5, row 2),"):
        made.train(tmp_path)


def test_the_loss_falls_in_bf16_too(kit: Callable[..., Kit], tmp_path: Path) -> None:
    made = kit(dtype="bf16", epochs=4.0, learning_rate=2e-2)
    before = made.validation().loss
    after = made.train(tmp_path).best.loss
    assert before is not None and after is not None and after < before - 0.2
    assert all(p.dtype == torch.float32 for p in trainable_parameters(made.model).values())


def test_training_only_touches_what_trains(kit: Callable[..., Kit], tmp_path: Path) -> None:
    made = kit(epochs=1.0)
    frozen = {n: p.clone() for n, p in made.model.named_parameters() if not p.requires_grad}
    made.train(tmp_path)
    now = dict(made.model.named_parameters())
    assert frozen and all(torch.equal(now[name], value) for name, value in frozen.items())


def test_the_untuned_model_is_validated_once(kit: Callable[..., Kit], tmp_path: Path) -> None:
    """Its record stands at step 0, also when the first attempt died before any checkpoint."""
    made = kit(rows=8, epochs=1.0)
    expected = made.validation().loss
    (tmp_path / "metrics.jsonl").write_text('{"kind": "validation", "step": 0, "loss": 99.0}\n')
    trained = made.train(tmp_path, validate_before=True)
    assert trained.before == expected
    records = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [r["loss"] for r in records if r["kind"] == "validation" and r["step"] == 0] == [
        expected
    ]
    again = kit(rows=8, epochs=1.0).train(tmp_path, validate_before=True)
    assert again == trained


@pytest.mark.parametrize("message", ["can't allocate memory: you tried", "CUDA"])
def test_a_step_that_runs_out_of_memory_is_done_again_in_smaller_parts(
    kit: Callable[..., Kit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    whole = kit(rows=24, epochs=1.0)
    whole.train(tmp_path / "whole")
    made = kit(rows=24, epochs=1.0)
    loss_sum, notices, most = made.objective.loss_sum, [], 150

    def scarce(model: object, batch: Batch) -> torch.Tensor:
        if model.training and batch.input_ids.numel() > most:  # type: ignore[attr-defined]
            raise torch.OutOfMemoryError(message) if message == "CUDA" else RuntimeError(message)
        return loss_sum(model, batch)

    monkeypatch.setattr(made.objective, "loss_sum", scarce)
    made.train(tmp_path / "scarce", notices=notices)
    assert any("memory ran out at step 1" in notice for notice in notices)
    expected = trainable_parameters(whole.model)
    for name, parameter in trainable_parameters(made.model).items():
        assert torch.allclose(parameter, expected[name], atol=2e-5), name


def test_one_row_that_does_not_fit_ends_in_one_sentence(
    kit: Callable[..., Kit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = kit(rows=24, epochs=1.0)

    def nothing_fits(model: object, batch: Batch) -> torch.Tensor:
        raise MemoryError

    monkeypatch.setattr(made.objective, "loss_sum", nothing_fits)
    with pytest.raises(ResourceError, match="one row"):
        made.train(tmp_path)
