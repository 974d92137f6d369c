"""The average of the weights against the recurrence written out in float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from fitune.errors import Interrupted
from fitune.training.average import Average
from fitune.training.checkpoint import load_best
from fitune.training.loop import Validation
from fitune.training.methods import trainable_parameters
from training_kit import Kit


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_recurrence(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.randn(3, 4).to(dtype))
    average = Average({"w": parameter}, decay=0.6)
    expected = parameter.detach().double()
    for step in range(1, 41):
        with torch.no_grad():
            parameter.add_(torch.randn(3, 4).to(dtype))
        average.update({"w": parameter}, step)
        decay = min(0.6, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * parameter.detach().double()
    assert average.values["w"].dtype == torch.float32
    assert (average.values["w"].double() - expected).abs().max() < 1e-5


def test_inside_the_block_the_parameters_are_the_average_and_after_it_themselves() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    average = Average({"w": parameter}, decay=0.5)
    with torch.no_grad():
        parameter.add_(1.0)
    average.update({"w": parameter}, 100)
    with pytest.raises(RuntimeError), average.applied({"w": parameter}):
        assert torch.equal(parameter, torch.tensor([0.5, 0.5]))
        raise RuntimeError
    assert torch.equal(parameter, torch.ones(2))


def test_the_average_is_validated_and_kept(kit: Callable[..., Kit], tmp_path: Path) -> None:
    """Against a run without: the weights that it had after each step, averaged here."""
    options = {"rows": 24, "epochs": 2.0, "schedule": "constant"}
    plain = kit(**options)
    trail = [{n: p.detach().double() for n, p in trainable_parameters(plain.model).items()}]

    def note(*_: object) -> None:
        now = trainable_parameters(plain.model)
        trail.append({n: p.detach().double() for n, p in now.items()})

    optimizer = plain.optimizer()
    optimizer.register_step_post_hook(note)
    plain.optimizer = lambda: optimizer  # type: ignore[method-assign]
    plain.train(tmp_path / "plain")
    expected = trail[0]
    for step, weights in enumerate(trail[1:], start=1):
        decay = min(0.9, (1 + step) / (10 + step))
        expected = {n: decay * v + (1 - decay) * weights[n] for n, v in expected.items()}

    made = kit(**options, ema=0.9)
    seen: list[dict[str, torch.Tensor]] = []

    def validate() -> Validation:
        seen.append({n: p.detach().clone() for n, p in trainable_parameters(made.model).items()})
        return Validation(loss=None, score=float(len(seen)))

    trained = made.train(tmp_path / "ema", validate=validate)
    kept = load_best(tmp_path / "ema" / "checkpoints", trained.best_step)
    assert len(trail) == 7
    for name, value in expected.items():
        assert torch.equal(kept[name], seen[-1][name])
        assert torch.equal(kept[name], trainable_parameters(made.model)[name])
        assert (kept[name].double() - value).norm() <= 1e-6 * value.norm() + 1e-9, name
    assert any(not torch.allclose(kept[n].double(), trail[-1][n]) for n in kept)


def test_stopping_changes_nothing(kit: Callable[..., Kit], tmp_path: Path) -> None:
    options = {"rows": 24, "epochs": 2.0, "ema": 0.99}
    whole = kit(**options)
    whole.train(tmp_path / "whole")
    stops = 0
    while True:
        asked = iter([False, *[True] * 99])
        made = kit(**options)
        try:
            made.train(tmp_path / "parts", stop_requested=asked.__next__)
            break
        except Interrupted:
            stops += 1
    assert stops >= 2
    found = trainable_parameters(made.model)
    for name, value in trainable_parameters(whole.model).items():
        assert torch.equal(found[name], value), name
