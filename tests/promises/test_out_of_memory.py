"""Promise: a step that runs out of memory is done again in smaller parts; the batch, the order and
the normalisation stay, and a run that the system killed goes on with smaller parts, too."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fitune.data.batches import Batch
from fitune.errors import Interrupted
from fitune.training.loop import Validation
from fitune.training.methods import trainable_parameters
from training_kit import Kit

WHOLE, SMALLER = 200, 61
RUN = {"rows": 32, "epochs": 3.0, "micro_batch_tokens": WHOLE}


def flat(kit: Kit) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainable_parameters(kit.model).values()])


def distance(one: Kit, other: Kit) -> float:
    return float((flat(one) - flat(other)).norm() / flat(other).norm())


def run_out(monkeypatch: pytest.MonkeyPatch, kit: Kit, moment: int) -> list[Batch]:
    """Memory runs out once, in the forward pass of micro-batch number `moment`.

    Returns:
        The micro-batch, once it happened.
    """
    plain, number, failed = kit.objective.loss_sum, itertools.count(), []

    def loss_sum(model: Any, batch: Batch) -> torch.Tensor:
        if model.training and next(number) == moment:
            failed.append(batch)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(model, batch)

    monkeypatch.setattr(kit.objective, "loss_sum", loss_sum)
    return failed


def after(steps: int) -> Callable[[], bool]:
    """Asks to stop once so many steps are done."""
    asked: Iterator[bool] = itertools.chain([False] * (steps - 1), itertools.repeat(True))
    return asked.__next__


def seen(monkeypatch: pytest.MonkeyPatch, kit: Kit) -> list[tuple[int, ...]]:
    """The rows of every micro-batch that is learned from, as they come."""
    plain, rows = kit.objective.loss_sum, []

    def loss_sum(model: Any, batch: Batch) -> torch.Tensor:
        if model.training:
            rows.append(batch.rows)
        return plain(model, batch)

    monkeypatch.setattr(kit.objective, "loss_sum", loss_sum)
    return rows


@pytest.mark.parametrize(
    ("options", "moment"),
    [({}, 0), ({}, 12), ({"method": "full"}, 1), ({"packing": False}, 1)],
)
def test_the_weights_are_those_of_a_run_with_enough_memory(
    kit: Callable[..., Kit],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    moment: int,
) -> None:
    """At a step's first part, and after gradients of an earlier part are there."""
    whole, scarce = kit(**RUN, **options), kit(**RUN, **options)
    whole.train(tmp_path / "whole")
    failed = run_out(monkeypatch, scarce, moment)
    notices: list[str] = []
    scarce.train(tmp_path / "scarce", notices=notices)
    assert len(failed) == 1 and sum("memory ran out" in notice for notice in notices) == 1
    assert 0 < distance(scarce, whole) < 1e-5, "cut otherwise, and nothing but rounding differs"


def test_it_is_the_run_with_that_schedule_to_the_last_bit(
    kit: Callable[..., Kit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout. The schedule: whole parts for four steps, then by a resumption the smaller."""
    options = {**RUN, "lora_dropout": 0.2}
    scarce = kit(**options)
    rows = seen(monkeypatch, scarce)
    with pytest.raises(Interrupted):
        scarce.train(tmp_path / "first", stop_requested=after(4))
    moment = len(rows) + 1  # the second part of the fifth step

    scarce = kit(**options)
    (failed,) = [run_out(monkeypatch, scarce, moment)]
    notices: list[str] = []
    scarce.train(tmp_path / "scarce", notices=notices)
    (notice,) = notices
    assert "at step 5 " in notice and len(failed[0].rows) > 1
    smaller = int(notice.rpartition(" ")[2].replace(",", ""))

    with pytest.raises(Interrupted):
        kit(**options).train(tmp_path / "planned", stop_requested=after(4))
    planned = kit(**{**options, "micro_batch_tokens": smaller})
    planned.train(tmp_path / "planned", notices=notices)
    assert notices[1:] == [
        "going on from step 4 of 12",
        f"micro-batches hold at most {smaller:,} tokens from here on",
    ]
    assert torch.equal(flat(scarce), flat(planned))
    same = kit(**options)
    same.train(tmp_path / "whole")
    assert not torch.equal(flat(scarce), flat(same)), "the schedule does make a difference"


def test_going_on_with_smaller_parts_keeps_order_and_normalisation(
    kit: Callable[..., Kit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = kit(**RUN)
    expected = seen(monkeypatch, whole)
    whole.train(tmp_path / "whole")
    with pytest.raises(Interrupted):
        kit(**RUN).train(tmp_path / "parts", stop_requested=after(5))
    smaller = kit(**{**RUN, "micro_batch_tokens": SMALLER})
    rows = seen(monkeypatch, smaller)
    smaller.train(tmp_path / "parts")
    together = [row for part in rows for row in part]
    assert together == [row for part in expected for row in part][-len(together) :]
    assert len(together) == 7 * 8 and len(rows) > len(expected) * 7 / 12
    assert 0 < distance(smaller, whole) < 1e-5


def test_what_memory_left_is_remembered(
    kit: Callable[..., Kit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that had to shrink does not try the old size again when it goes on."""
    scarce = kit(**RUN)
    run_out(monkeypatch, scarce, 0)
    with pytest.raises(Interrupted):
        scarce.train(tmp_path, stop_requested=after(2))
    later = kit(**RUN)
    rows = seen(monkeypatch, later)
    notices: list[str] = []
    later.train(tmp_path, notices=notices)
    assert notices == ["going on from step 2 of 12"]
    tokens = [sum(later.lengths[row] for row in part) for part in rows if len(part) > 1]
    assert max(tokens) <= WHOLE / 2


def test_the_best_weights_of_another_cut_are_not_taken(
    kit: Callable[..., Kit], tmp_path: Path
) -> None:
    """Killed after an evaluation found new best weights, before any checkpoint knows of them. The
    training that goes on finds none better: it ends with those that its own state calls best."""
    options = {**RUN, "epochs": 4.0, "checkpoint_steps": 6}

    def scripted(scores: list[float]) -> Callable[[], Validation]:
        given = iter(scores)
        return lambda: Validation(None, next(given))

    expected = kit(**options)
    expected.train(tmp_path / "whole", validate=scripted([0.9, 0.1, 0.1, 0.1]))
    with pytest.raises(StopIteration):  # at step 12: the last checkpoint is that of step 6
        kit(**options).train(tmp_path / "parts", validate=scripted([0.8, 0.9]))
    later = kit(**options)
    trained = later.train(tmp_path / "parts", validate=scripted([0.1, 0.1, 0.1]))
    assert trained.best_step == 4
    assert torch.equal(flat(later), flat(expected))
